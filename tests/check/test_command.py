"""`quantguard check` as a workflow runs it: a process of its own in a checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from quantguard.check import remarks
from quantguard.check.rules import RULES
from quantguard.registry.embedded import EmbeddedServer
from tests.check.repository import ENVIRONMENT, PATH, Repository, with_policy
from tests.check.test_pins import manifest
from tests.command import COMMAND, Ran, environment

SARIF = Path(__file__).parents[1] / "report" / "sarif-schema-2.1.0.json"
HEAVY = {"torch", "transformers", "bitsandbytes", "safetensors", "numpy", "rich", "scipy", "lm_eval", "datasets"}
MODULES = """\
import json, sys
from quantguard.cli.main import main
try:
    main()
finally:
    sys.stderr.write(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return with_policy(tmp_path / "checkout")


def run(directory: Path, *arguments: str, prefix: tuple[str, ...] = (*COMMAND, "check"), **variables: str) -> Ran:
    kept = {name: value for name, value in ENVIRONMENT.items() if not name.startswith(("MLFLOW_", "GITHUB_"))}
    ran = subprocess.run(
        [*prefix, *arguments],
        cwd=directory,
        env={**environment(), **kept, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def test_the_first_line_is_the_answer_and_the_last_what_to_do(repository: Repository) -> None:
    repository.replace(PATH, "confidence: 0.95", "confidence: 0.9")
    ran = run(repository.root)
    assert (ran.code, ran.err) == (1, "")
    first, line, last = ran.out.splitlines()
    assert first.startswith("blocked: 1 error; 1 policy (1 changed); compared with main ")
    assert line == f"{PATH}:4: error: looser: confidence: 0.95 became 0.9"
    assert last.startswith("next: take the looser limits back, or have them allowed")
    allowed = run(repository.root, "--allow-looser")
    assert (allowed.code, allowed.out.splitlines()[1]) == (0, line.replace("error", "warning"))
    assert run(repository.root, "--quiet") == Ran(1, "", "")


def test_exit_codes_tell_the_answers_apart(repository: Repository, tmp_path: Path) -> None:
    passed = run(repository.root)
    assert (passed.code, passed.out.splitlines()[-1]) == (0, "next: nothing")
    repository.write("quantguard.yaml", manifest("model: models:/a/1"))
    unknown = run(repository.root)
    assert (unknown.code, unknown.out.partition(":")[0]) == (2, "could not tell")
    empty = Repository(tmp_path / "empty")
    empty.commit()
    nothing = run(empty.root)
    assert (nothing.code, nothing.out.partition(":")[0]) == (3, "nothing to check")
    for wrong in (("--base", "gone"), ("--base=-x",), ("--output", "junit=x"), ("--output", "md="), ("--bse", "main")):
        usage = run(repository.root, *wrong)
        assert usage.code == 4, wrong
        assert usage.out == ""


def test_the_branch_of_the_pull_request_is_the_base(repository: Repository) -> None:
    repository.git("update-ref", "refs/remotes/origin/release", "main")
    assert "compared with origin/release" in run(repository.root, GITHUB_BASE_REF="release").out
    missing = run(repository.root, GITHUB_BASE_REF="other")
    assert (missing.code, "fetch-depth: 0" in missing.err) == (4, True)
    assert "compared with main" in run(repository.root, GITHUB_BASE_REF="").out


def test_every_format_tells_the_same(repository: Repository, tmp_path: Path) -> None:
    repository.replace(PATH, "confidence: 0.95", "confidence: 0.9")
    repository.replace(PATH, "fail_on: high", "fail_on: low")
    (repository.root / "policies/a\nb.yaml").symlink_to("small.yaml")
    outputs = [f"--output={name}={tmp_path / name}" for name in ("annotations", "sarif", "md", "json")]
    assert run(repository.root, *outputs).code == 1
    annotations = (tmp_path / "annotations").read_text(encoding="utf-8").splitlines()
    assert [line.partition(" ")[0] for line in annotations] == ["::error", "::error", "::notice"]
    assert f"file={PATH},line=4," in annotations[1]
    sarif = json.loads((tmp_path / "sarif").read_text(encoding="utf-8"))
    Draft7Validator(json.loads(SARIF.read_text(encoding="utf-8"))).validate(sarif)
    results = sarif["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == ["check.unsafe_path", "check.looser"]
    assert results[1]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == PATH
    assert "`policies/small.yaml:4`" in (tmp_path / "md").read_text(encoding="utf-8")
    document = json.loads((tmp_path / "json").read_text(encoding="utf-8"))
    assert (document["schema"], document["answer"], document["exit_code"]) == ("quantguard.check/1", "blocked", 1)
    assert document["result"]["remarks"][1]["place"]["line"] == 4


def test_every_rule_of_a_remark_is_described() -> None:
    told = {value for name, value in vars(remarks).items() if name.isupper()}
    assert told == set(RULES)


def test_what_a_change_writes_cannot_speak_to_a_terminal_or_to_the_runner(
    repository: Repository, tmp_path: Path
) -> None:
    evil = "x\\e[2J\\n::error::forged\\u202e"
    repository.replace(PATH, "keywords: [Zentrix]", f'keywords: ["{evil}"]')
    ran = run(repository.root, f"--output=annotations={tmp_path / 'a'}", f"--output=md={tmp_path / 'm'}")
    for text in (ran.out, (tmp_path / "a").read_text(encoding="utf-8"), (tmp_path / "m").read_text(encoding="utf-8")):
        assert "forged" in text
        assert not any(line.startswith("::error::") for line in text.splitlines())
        assert not {"\x1b", "\u202e"} & set(text)


def test_neither_torch_nor_transformers_is_imported(repository: Repository, mlflow_server: EmbeddedServer) -> None:
    prefix = (sys.executable, "-c", MODULES, "check")
    without = run(repository.root, prefix=prefix)
    assert {*HEAVY, "mlflow"} & set(json.loads(without.err)) == set()
    repository.write("quantguard.yaml", manifest("model: models:/no-such-model/1"))
    ran = run(repository.root, "--tracking-uri", mlflow_server.uri, prefix=prefix)
    assert (ran.code, "check.pin" in ran.out or "no such version" in ran.out) == (1, True)
    # Full MLflow brings numpy and more of its own; what a hosted runner installs is told in docs/check.md.
    assert {"torch", "transformers", "bitsandbytes", "lm_eval", "datasets"} & set(json.loads(ran.err)) == set()
