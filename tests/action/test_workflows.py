"""Laws of every workflow that we run or hand out, and of the actions that they call."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OURS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
HANDED_OUT = sorted((ROOT / "docs" / "workflows").glob("*.yml"))
WORKFLOWS = [*OURS, *HANDED_OUT]
ACTIONS = [ROOT / "action.yml", ROOT / "action" / "check" / "action.yml"]
SCRIPTS = [
    ROOT / "action" / "bootstrap.sh",
    ROOT / "action" / "check" / "check.sh",
    ROOT / "docs" / "serving" / "start-vllm.sh",
]
PLACEHOLDER = "0" * 40


def name_of(path: object) -> str:
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else ""


each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
each_file = pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=name_of)


def load(path: Path) -> dict[Any, Any]:
    """`on` is True in YAML 1.1."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return dict(load(path).get("jobs", {}))


def steps(path: Path) -> list[dict[str, Any]]:
    document = load(path)
    if "runs" in document:
        return list(document["runs"]["steps"])
    return [step for job in jobs(path).values() for step in job.get("steps", [])]


def calls(path: Path) -> list[dict[str, Any]]:
    """Whatever uses an action or a workflow: steps and jobs."""
    return [call for call in (*steps(path), *jobs(path).values()) if "uses" in call]


def strings(node: object, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every string of a document with the keys that lead to it."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from strings(value, (*at, str(key)))
    elif isinstance(node, list):
        for value in node:
            yield from strings(value, at)
    elif isinstance(node, str):
        yield at, node


def tool(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name(command[0]))
    return subprocess.run([program, *command[1:]], cwd=ROOT, input=given, capture_output=True, text=True, check=False)


def test_zizmor_finds_nothing() -> None:
    found = tool(
        "zizmor", "--offline", "--strict-collection", "--persona", "regular", ".", *map(str, HANDED_OUT), "--quiet"
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(("schema", "paths"), [("github-workflows", WORKFLOWS), ("github-actions", ACTIONS)])
def test_the_schema_of_github_holds(schema: str, paths: list[Path]) -> None:
    found = tool("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, paths))
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_shellcheck_finds_nothing_in_a_script(path: Path) -> None:
    found = tool("shellcheck", str(path))
    assert found.returncode == 0, found.stdout


@each_file
def test_shellcheck_finds_nothing_in_a_step(path: Path) -> None:
    for step in steps(path):
        if step.get("shell") == "bash":
            found = tool("shellcheck", "--shell=bash", "-", given=step["run"])
            assert found.returncode == 0, found.stdout
        assert "run" not in step or step.get("shell") in ("bash", "python"), "the shell that a step gets is told"


@each_workflow
def test_nothing_is_permitted_but_by_a_job(path: Path) -> None:
    assert load(path)["permissions"] == {}
    assert [name for name, job in jobs(path).items() if not isinstance(job.get("permissions"), dict)] == []


@each_workflow
def test_no_job_runs_for_ever_or_beside_itself(path: Path) -> None:
    assert [name for name, job in jobs(path).items() if "timeout-minutes" not in job and "uses" not in job] == []
    assert "concurrency" in load(path) or all("concurrency" in job for job in jobs(path).values())


@each_file
def test_what_others_wrote_is_pinned_by_commit_and_says_its_version(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    foreign = [call["uses"] for call in calls(path) if not call["uses"].startswith(("$/", "./"))]
    for uses in foreign:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", uses), uses
        lines = [line for line in text.splitlines() if f"uses: {uses}" in line]
        assert all(re.search(r" # v(\d+\.\d+\.\d+|X\.Y\.Z: use the commit .*)$", line) for line in lines), lines
        assert uses.startswith("quantguard/") == uses.endswith(f"@{PLACEHOLDER}"), uses


@each_workflow
def test_every_checkout_forgets_its_credential(path: Path) -> None:
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert [step for step in checkouts if step["with"].get("persist-credentials") is not False] == []


@each_file
def test_no_script_holds_an_expression(path: Path) -> None:
    """What an event brings would become part of the script."""
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []


@each_file
def test_a_secret_goes_to_one_step_only(path: Path) -> None:
    for at, text in strings(load(path)):
        if "secrets." in text:
            assert "steps" in at or at[-2] == "secrets", at  # or handed to a reusable workflow, by name
            assert at[-2] in ("env", "with", "secrets"), at


@each_workflow
def test_no_pull_request_reaches_a_gpu_or_runs_with_our_rights(path: Path) -> None:
    events = load(path)[True]
    assert not {"pull_request_target", "workflow_run"} & set(events)
    if "pull_request" in events:
        assert {job["runs-on"] for job in jobs(path).values()} == {"ubuntu-24.04"}


def test_the_reusable_gate_refuses_a_pull_request_of_its_caller() -> None:
    (job,) = jobs(ROOT / ".github/workflows/gate.yml").values()
    assert job["if"] == "${{ !startsWith(github.event_name, 'pull_request') }}"


def test_the_reusable_gate_runs_the_action_of_its_own_commit() -> None:
    """What zizmor is told to ignore there rests on this: `./` is whatever lies in the workspace."""
    path = ROOT / ".github/workflows/gate.yml"
    at = [step.get("uses") for step in steps(path)].index("./.quantguard")
    own = [step["with"] for step in steps(path)[:at] if step["with"].get("path") == ".quantguard"]
    origin = {"repository": "${{ job.workflow_repository }}", "ref": "${{ job.workflow_sha }}"}
    assert own == [{**origin, "path": ".quantguard", "persist-credentials": False}]


def test_the_gate_takes_the_same_by_call_and_by_hand() -> None:
    events = load(ROOT / ".github/workflows/gate.yml")[True]
    assert events["workflow_call"]["inputs"] == events["workflow_dispatch"]["inputs"]


def test_what_a_user_copies_is_short() -> None:
    text = (ROOT / "docs/workflows/gate.yml").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 30


def called(uses: str) -> Mapping[str, Any] | None:
    """What one of our own actions or reusable workflows takes and gives, None for those of others."""
    path = re.sub(r"^(quantguard/quantguard(/|(?=@))|\$/|\./\.quantguard)|@.*$", "", uses)
    if path == uses or uses.startswith(("actions/", "docker/", "github/")):
        return None
    if path.endswith(".yml"):
        event = load(ROOT / path)[True]["workflow_call"]
        return event if isinstance(event, dict) else {}
    return load(ROOT / path / "action.yml")


def test_our_own_are_told_from_those_of_others() -> None:
    known = {uses: called(uses) is not None for path in WORKFLOWS for uses in [call["uses"] for call in calls(path)]}
    assert {uses.partition("@")[0] for uses, own in known.items() if own} == {
        "quantguard/quantguard",
        "quantguard/quantguard/action/check",
        "quantguard/quantguard/.github/workflows/gate.yml",
        "$/action/check",
        "$/.github/workflows/ci.yml",
        "./.quantguard",
    }


@each_workflow
def test_what_is_given_to_our_own_and_taken_from_it_exists(path: Path) -> None:
    """Inputs that an action does not have are dropped without a word; outputs that it does not have are empty."""
    text = path.read_text(encoding="utf-8")
    for call in calls(path):
        if (ours := called(call["uses"])) is None:
            continue
        taken = ours.get("inputs") or {}
        assert set(call.get("with", {})) <= set(taken), call["uses"]
        assert {name for name, it in taken.items() if it.get("required")} <= set(call.get("with", {})), call["uses"]
        assert set(call.get("secrets", {})) <= set(ours.get("secrets") or {}), call["uses"]
        if "id" in call:
            used = set(re.findall(rf"steps\.{call['id']}\.outputs\.([\w-]+)", text))
            assert used <= set(ours["outputs"]), call["uses"]


def step_script(path: Path, marker: str) -> str:
    (found,) = [step["run"] for step in steps(path) if marker in step.get("run", "")]
    return str(found)


@pytest.mark.parametrize(
    ("verdicts", "code", "rows"),
    [
        (["PROMOTE", "PROMOTE"], 0, ["PROMOTE", "PROMOTE"]),
        (["PROMOTE", "BLOCK"], 1, ["PROMOTE", "BLOCK"]),
        (["PROMOTE", None], 1, ["PROMOTE", "HOLD"]),
        (["PROMOTE", "| PROMOTE"], 1, ["PROMOTE", "HOLD"]),
        ([], 1, []),
    ],
    ids=["all promoted", "one blocked", "one never ended", "one talks", "nothing pinned"],
)
def test_a_scheduled_run_passes_only_where_every_pin_was_promoted(
    tmp_path: Path, verdicts: list[str | None], code: int, rows: list[str]
) -> None:
    pins = [{"model": f"models:/a|b<{index}>/1", "policy": "p.yaml"} for index in range(len(verdicts))]
    for index, verdict in enumerate(verdicts):
        folder = tmp_path / "verdicts" / f"quantguard-{index}-verdict"
        folder.mkdir(parents=True)
        if verdict is not None:
            (folder / "verdict.json").write_text(json.dumps({"verdict": verdict}), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", step_script(ROOT / "docs/workflows/scheduled.yml", "import json")],
        cwd=tmp_path,
        env={**os.environ, "PINS": json.dumps(pins), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")},
        check=False,
    )
    assert done.returncode == code
    table = (tmp_path / "summary").read_text(encoding="utf-8").splitlines()[2:]
    assert table == [f"| `models:/a?b?{index}?/1` | {row} |" for index, row in enumerate(rows)]


def test_the_gate_writes_its_verdict_down(tmp_path: Path) -> None:
    """What the scheduled run reads back; the report alone would hide that a promotion failed."""
    script = step_script(ROOT / ".github/workflows/gate.yml", "verdict.json")
    environment = {"RUNNER_TEMP": str(tmp_path), "VERDICT": "HOLD", "EXIT_CODE": "2", "HARDENED_VERSION": ""}
    subprocess.run(["bash", "-e", "-c", script], env={**os.environ, **environment}, check=True)
    told = json.loads((tmp_path / "quantguard-verdict" / "verdict.json").read_text(encoding="utf-8"))
    assert told == {"verdict": "HOLD", "exit_code": "2", "hardened_version": ""}
