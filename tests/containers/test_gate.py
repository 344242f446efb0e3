"""The whole action on a runner of its own user: three containers against a real registry."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from junitparser import JUnitXml
from mlflow import MlflowClient

from quantguard.attest.verify import Asked, State, verify_bundle
from quantguard.core.verdict import Verdict
from quantguard.evidence.keys import Signer
from quantguard.evidence.trusted import TrustedKeys
from quantguard.report.json_report import report_schema
from tests.containers.conftest import NewRunner
from tests.containers.engine import Engine
from tests.containers.runner import USER, Ran, Runner
from tests.stories import POLICY, Kind, write_policy, write_story


def test_the_canary_goes_through_three_containers_and_its_repaired_derivative_is_promoted(
    canary: Runner, client: MlflowClient, engine: Engine
) -> None:
    signer = Signer.generate()
    canary.inputs |= {"signing-key": signer.private_pem().decode(), "environment": "production"}
    ran = canary.run()
    assert ran.code == 0, ran.log
    name = canary.inputs["model"].split("/")[1]
    assert client.get_model_version_by_alias(name, "champion").version == "2"
    assert client.get_model_version(name, "1").tags["quantguard.verdict"] == "BLOCK"
    assert ran.outputs == {
        "verdict": "PROMOTE",
        "exit-code": "0",
        "evidence": str(canary.work / "evidence"),
        "bundle": str(canary.work / "signed"),
        "report": str(canary.work / "report"),
        "hardened-version": "2",
    }
    assert ran.summary.startswith("# PROMOTE: hardened derivative of ")
    assert [line for line in ran.log.splitlines() if line.startswith("::group::")] == [
        "::group::fetch: network, a credential that reads, no GPU",
        "::group::assess: no network, no credential, weights read-only",
        "::group::publish: network, the gate's own credential, no model code",
    ]
    assert json.loads((canary.work / "evidence" / "outcome.json").read_text())["body"]["network"] == "none"
    require_signed(canary, ran, signer)
    require_tidy(canary, engine)


def require_signed(runner: Runner, ran: Ran, signer: Signer) -> None:
    """Both versions have evidence that holds, and the key is in no log and no file."""
    keys = TrustedKeys.of(signer.public)
    for subject, verdict in (("original", Verdict.BLOCK), ("hardened", Verdict.PROMOTE)):
        verified = verify_bundle(Asked(runner.work / "signed" / subject, keys, datetime.now(UTC)))
        assert verified.state is State.OK, verified.checks
        assert verified.opened is not None
        assert verified.opened.decided.verdict is verdict
        assert verified.opened.decided.binding.environment == "production"
    secret = signer.private_pem().splitlines()[1]
    # A runner hides what a line of this kind names, in itself too.
    shown = "\n".join(line for line in ran.log.splitlines() if not line.startswith("::add-mask::"))
    assert secret not in (shown + ran.summary).encode()
    assert all(secret not in path.read_bytes() for path in runner.files() if path.is_file())


def require_tidy(runner: Runner, engine: Engine) -> None:
    """No container is left, every file is the runner's, and the copies of the model are gone."""
    assert engine.containers() == []
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in runner.home.rglob("*")}
    assert owners == {(USER, USER)}
    kept = {path.relative_to(runner.work).parts[0] for path in runner.files()}
    assert kept <= {"evidence", "report", "signed", "job.json", "fetched.json", "published.json"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Kind.CLEAN, (0, "PROMOTE", ["champion"])), (Kind.MALICIOUS, (1, "BLOCK", []))],
)
def test_the_verdict_reaches_job_and_registry(
    kind: Kind, expected: tuple[int, str, list[str]], new_runner: NewRunner, client: MlflowClient, engine: Engine
) -> None:
    code, verdict, aliases = expected
    runner = new_runner(kind)
    ran = runner.run()
    assert (ran.code, ran.outputs["verdict"], ran.outputs["exit-code"]) == (code, verdict, str(code)), ran.log
    assert ran.outputs["hardened-version"] == ""
    version = client.get_model_version(runner.inputs["model"].split("/")[1], "1")
    assert (version.aliases, version.tags["quantguard.verdict"]) == (aliases, verdict)
    report = json.loads((Path(ran.outputs["report"]) / "report.json").read_text())
    jsonschema.validate(report, report_schema())
    assert report["verdict"] == verdict
    require_formats(ran, blocked=verdict == "BLOCK")
    require_tidy(runner, engine)


def require_formats(ran: Ran, *, blocked: bool) -> None:
    """What each format says of the rule that was broken, at its line of the policy in the repository."""
    folder = Path(ran.outputs["report"])
    line = next(n for n, text in enumerate(POLICY.splitlines(), 1) if "max_upper_bound" in text)
    results = json.loads((folder / "report.sarif").read_text())["runs"][0]["results"]
    places = [result["locations"][0]["physicalLocation"] for result in results]
    lines = {(place["artifactLocation"]["uri"], place["region"]["startLine"]) for place in places}
    assert lines == ({("policies/policy.yaml", line)} if blocked else set())
    assert (f"::error file=policies/policy.yaml,line={line}," in ran.log) is blocked
    assert (JUnitXml.fromfile(str(folder / "junit.xml")).failures > 0) is blocked
    assert ran.summary == (folder / "report.md").read_text()


def test_a_named_work_directory_is_kept_and_a_rerun_there_resumes(new_runner: NewRunner, client: MlflowClient) -> None:
    runner = new_runner(Kind.CLEAN, work="qg")
    assert runner.run().code == 0
    before = {path: path.stat().st_mtime_ns for path in runner.files() if path.parent.name in ("evidence", "model")}
    assert (runner.workspace / "qg" / "model" / "model.safetensors").exists()
    ran = runner.run()
    assert ran.code == 0, ran.log
    again = {path: path.stat().st_mtime_ns for path in before}
    changed = {path.name for path in before if again[path] != before[path]}
    assert changed <= {"outcome.json", "policy.yaml"}


def test_a_directory_in_the_workspace_is_judged_and_registered_nowhere(
    new_runner: NewRunner, tmp_path: Path, client: MlflowClient
) -> None:
    write_story(Kind.CLEAN, tmp_path / "policies" / "model")
    write_policy(tmp_path / "policies")
    ran = new_runner(policies=tmp_path / "policies", model="policies/model", tracking_uri="").run()
    assert (ran.code, ran.outputs["verdict"]) == (0, "PROMOTE"), ran.log


def test_what_the_registry_does_not_hold_ends_before_assess(new_runner: NewRunner, engine: Engine) -> None:
    ran = new_runner(model="models:/no-such-model/1").run()
    assert (ran.code, ran.outputs["verdict"], ran.outputs["evidence"]) == (2, "HOLD", ""), ran.log
    assert "::group::assess" not in ran.log
    assert "no-such-model" in ran.summary
    assert engine.containers() == []


def test_a_policy_with_an_error_is_told_with_its_line_before_anything_is_fetched(
    new_runner: NewRunner, tiny_policy: Path, tmp_path: Path
) -> None:
    policies = shutil.copytree(tiny_policy, tmp_path / "policies")
    text = (policies / "policy.yaml").read_text()
    (policies / "policy.yaml").write_text(text.replace("max_upper_bound", "max_uper_bound"))
    runner = new_runner(policies=policies)
    ran = runner.run()
    assert (ran.code, ran.outputs["exit-code"]) == (4, "4")
    before = text[: text.index("max_upper_bound")]
    where = f"{1 + before.count(chr(10))}:{1 + len(before.rpartition(chr(10))[2])}"
    assert f"policies/policy.yaml:{where}: attack_success.content_injection.max_uper_bound: unknown key" in ran.log
    assert "::group::assess" not in ran.log
    assert not runner.work.exists()  # nothing came, so nothing is kept
