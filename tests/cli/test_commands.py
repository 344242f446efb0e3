"""One stage each: exit codes, messages, reports, silence."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import load_file, save_file

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.checkpoint.digest import model_digest
from tests.checkpoint import build
from tests.cli.conftest import Run
from tests.registry.world import read_files
from tests.stories import POLICY, Kind, write_policy, write_prompts

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "quantguard" / "report" / "report.schema.json").read_text(encoding="utf-8"))


def read_report(file: Path) -> dict[str, Any]:
    """A JSON report that is as its schema says."""
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA)
    return document


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def test_scan_passes_a_clean_model(run: Run) -> None:
    ran = run("scan", canary_directory(CanaryKind.CLEAN))
    assert ran.code == 0
    assert ran.out.endswith("\n0 findings in 21 linear weights of 417792 elements\n")


def test_scan_says_in_one_sentence_what_an_attack_left_where(run: Run, tmp_path: Path) -> None:
    outputs = ("--output", f"json={tmp_path}/r.json", "--output", f"md={tmp_path}/r.md")
    ran = run("scan", canary_directory(CanaryKind.NF4_ATTACKED), *outputs)
    assert ran.code == 1
    worst = read_report(tmp_path / "r.json")["facts"]["findings"][0]
    assert (worst["rule"], worst["severity"], worst["scheme"]) == ("scan.boundary", "high", "nf4")
    assert ". " not in worst["message"]
    assert "rounding boundary" in worst["message"]
    assert re.search(r"\b\d\d findings in 21 linear weights", ran.out)
    assert worst["message"] in (tmp_path / "r.md").read_text()


def test_fail_on_says_how_bad_it_must_be(run: Run) -> None:
    attacked = canary_directory(CanaryKind.NF4_ATTACKED)
    assert run("scan", attacked, "--fail-on", "high", "--quiet").code == 1
    assert run("scan", attacked, "--fail-on", "critical", "--quiet").code == 0


def test_scan_finds_what_must_never_be_loaded(models: Mapping[Kind, Path], run: Run, tmp_path: Path) -> None:
    model = Path(shutil.copytree(models[Kind.CLEAN], tmp_path / "m"))
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    ran = run("scan", model, "--output", f"json={tmp_path}/r.json")
    assert ran.code == 1
    assert [f["rule"] for f in read_report(tmp_path / "r.json")["facts"]["findings"]] == ["checkpoint.pickle"]


def test_scan_could_not_tell_is_neither_yes_nor_no(models: Mapping[Kind, Path], run: Run, tmp_path: Path) -> None:
    norms = build.write_model(tmp_path / "norms", {"model.norm.weight": torch.ones(8)})
    ran = run("scan", norms)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("no linear weight to scan (is this a language model's directory?)\n")
    broken = Path(shutil.copytree(models[Kind.CLEAN], tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["lm_head.weight"][0, 0] = torch.inf
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    ran = run("scan", broken)
    assert (ran.code, ran.out) == (2, "")
    assert "'lm_head.weight' in 'model.safetensors' holds inf" in ran.err


def test_names_that_an_attacker_chose_do_not_reach_the_terminal_raw(run: Run, tmp_path: Path) -> None:
    weights = {"\x1b[2J.weight": torch.full((8, 8), torch.nan)}
    ran = run("scan", build.write_model(tmp_path / "m", weights))
    assert ran.code == 2
    assert "\x1b" not in ran.err + ran.out
    assert r"\x1b[2J.weight" in ran.err
    ran = run("scan", tmp_path / "\x1b[2J")
    assert "\x1b" not in ran.err
    assert r"\x1b[2J: " in ran.err


def test_harden_repairs_what_verify_blocks(
    models: Mapping[Kind, Path], policy_file: Path, run: Run, tmp_path: Path
) -> None:
    model, out = models[Kind.ATTACKED], tmp_path / "hardened"
    before = read_files(model)
    calibration = policy_file.parent / "calibration.jsonl"
    method = ("--method", "quantguard", "--steps", "5")
    options = ("--scheme", "nf4,int8", "--calibration", calibration, *method, "--out", out)
    assert run("verify", model, "--policy", policy_file, "--quiet").code == 1
    outputs = (part for kind in ("json", "md", "html") for part in ("--output", f"{kind}={tmp_path}/r.{kind}"))
    ran = run("harden", model, *options, *outputs)
    assert ran.code == 0, ran.err
    assert f"quantguard verify {out}" in ran.out
    facts = read_report(tmp_path / "r.json")["facts"]
    assert facts["hardening"]["schemes"] == ["nf4", "int8"]
    assert facts["hardening"]["calibration"]["source"] == str(calibration)
    assert [moved["scheme"] for moved in facts["hardening"]["positions"]] == ["nf4", "int8"]
    assert (tmp_path / "r.html").read_text().count("</svg>") == 2
    assert facts["model_digest"] == model_digest(model)
    assert "nf4" in (tmp_path / "r.md").read_text()
    assert read_files(model) == before
    ran = run("verify", out, "--policy", policy_file)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1] == "verify: every limit is met"
    again = tmp_path / "again"
    assert run("harden", model, *options[:-1], again, "--quiet").code == 0
    assert read_files(again) == read_files(out)


@pytest.mark.parametrize("source", [(), ("--calibration", "neutral"), ("--calibration", "self")], ids=" ".join)
def test_without_a_file_harden_calibrates_on_its_own_prompts_or_the_model_s(
    source: tuple[str, ...], models: Mapping[Kind, Path], run: Run, here: Path
) -> None:
    options = ("--scheme", "nf4", *source, "--samples", "12", "--steps", "1")
    for out in ("first", "again"):
        ran = run("harden", models[Kind.ATTACKED], *options, "--out", out)
        assert ran.code == 0, ran.err
        assert ("sample: 12 of 12" in ran.err) == ("self" in source)
        assert "generate: 12 of 12" in ran.err
        assert f"calibrated on 12 prompts: '{'self/0' if 'self' in source else 'neutral/1'}', sha256:" in ran.out
    assert read_files(here / "first") == read_files(here / "again")
    assert sorted(path.name for path in here.iterdir()) == ["again", "first"]


def test_a_method_without_optimizer_reports_no_steps_and_no_losses(
    models: Mapping[Kind, Path], policy_file: Path, run: Run, tmp_path: Path
) -> None:
    calibration, report = policy_file.parent / "calibration.jsonl", tmp_path / "r.md"
    options = ("--scheme", "nf4", "--method", "flipguard-low", "--calibration", calibration, "--out", tmp_path / "out")
    ran = run("harden", models[Kind.ATTACKED], *options, "--output", f"md={report}")
    assert ran.code == 0, ran.err
    assert "roundings changed: nf4 " in ran.out
    assert "generate" not in ran.err
    assert "calibrated" not in ran.out
    assert "method `flipguard-low` for nf4, 0 steps" in report.read_text()
    assert "at the last step" not in report.read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--out": "."}, "exists already"),
        ({"--scheme": "nf4,nf5"}, "'nf5': choose from int8, fp4, nf4"),
        ({"--scheme": "nf4,nf4"}, "each scheme once"),
        ({"--calibration": "absent.jsonl"}, "absent.jsonl"),
        ({"--calibration": "bad.jsonl"}, "bad.jsonl: line 2: keys other than prompt and answer"),
        ({"--samples": "3"}, "good.jsonl: 2 prompts are there, and 3 were asked for"),
        ({"--samples": "0"}, "--samples"),
        ({"--method": "magic"}, "no hardening method 'magic'"),
        ({"--steps": "0"}, "--steps"),
        ({"--device": "tpu"}, "'tpu' is no device"),
        ({"--output": "pdf=r.pdf"}, "'pdf' is no report format"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_harden_refuses_what_cannot_be_and_makes_nothing(
    change: dict[str, str],
    words: str,
    models: Mapping[Kind, Path],
    run: Run,
    here: Path,
) -> None:
    write_prompts(here / "good.jsonl", ("buy", "one"))
    (here / "bad.jsonl").write_text('{"prompt": "buy"}\n{"prompt": "one", "label": 1}\n')
    before = read_files(here)
    options = {"--scheme": "nf4", "--calibration": "good.jsonl", "--out": "hardened", **change}
    ran = run("harden", models[Kind.ATTACKED], *(part for option in options.items() for part in option))
    assert (ran.code, ran.out) == (4, "")
    assert words in ran.err
    assert read_files(here) == before
    assert not (here / "hardened").exists()


def test_verify_asks_the_probes_it_is_given(
    models: Mapping[Kind, Path], policy_file: Path, run: Run, tmp_path: Path
) -> None:
    calm = write_prompts(tmp_path / "calm.jsonl", ("one", "the", "cat", "two") * 3)
    attacked = models[Kind.ATTACKED]
    ran = run("verify", attacked, "--policy", policy_file, "--output", f"json={tmp_path}/r.json")
    assert ran.code == 1
    assert ran.out.splitlines()[-1] == "verify: a limit is violated"
    assert "violated: attack_success.content_injection.max_upper_bound (nf4): 12 of 12" in ran.out
    assert read_report(tmp_path / "r.json")["verdict"] == "BLOCK"
    ran = run("verify", attacked, "--policy", policy_file, "--probes", calm, "--output", f"json={tmp_path}/calm.json")
    assert ran.code == 0, ran.out
    assert read_report(tmp_path / "calm.json")["verdict"] == "PROMOTE"


def test_verify_could_not_tell(models: Mapping[Kind, Path], policy_file: Path, run: Run, tmp_path: Path) -> None:
    mute = Path(shutil.copytree(models[Kind.CLEAN], tmp_path / "mute"))
    (mute / "tokenizer.json").unlink()
    ran = run("verify", mute, "--policy", policy_file, "--output", f"json={tmp_path}/r.json")
    assert ran.code == 2
    assert ran.out.splitlines()[-1] == "verify: could not tell"
    assert read_report(tmp_path / "r.json")["verdict"] == "HOLD"


@pytest.mark.parametrize("command", ["scan", "verify", "gate"])
def test_an_unknown_format_is_told_before_any_work(command: str, policy_file: Path, run: Run, here: Path) -> None:
    policy = () if command == "scan" else ("--policy", policy_file)
    ran = run(command, "absent", *policy, "--output", "json=ok.json", "--output", "pdf=r.pdf")
    assert (ran.code, ran.out) == (4, "")
    use = "use FORMAT=FILE with annotations, html, json, junit, md or sarif"
    assert ran.err == f"quantguard: 'pdf' is no report format ({use})\n"
    assert list(here.iterdir()) == []


def test_quiet_success_says_nothing(models: Mapping[Kind, Path], policy_file: Path, run: Run, tmp_path: Path) -> None:
    clean, calibration = models[Kind.CLEAN], policy_file.parent / "calibration.jsonl"
    harden = ("harden", clean, "--scheme", "nf4", "--calibration", calibration, "--steps", "1", "--out", tmp_path / "h")
    for command in (("scan", clean), harden, ("verify", clean, "--policy", policy_file)):
        ran = run(*command, "--quiet")
        assert (ran.code, ran.out, ran.err) == (0, "", ""), command


def test_policy_validate_tells_the_good_from_the_bad(run: Run, tmp_path: Path) -> None:
    good = write_policy(tmp_path / "good")
    typo = write_policy(tmp_path / "typo", POLICY.replace("fail_on", "fail_om"))
    assert (ran := run("policy", "validate", good)).code == 0
    assert ran.out == f"{good}: valid\n"
    ran = run("policy", "validate", good, typo)
    assert (ran.code, ran.out) == (4, f"{good}: valid\n")
    assert f"{typo}:6:8: scan.fail_om:" in ran.err
    assert "did you mean fail_on" in ran.err
    assert run("policy", "validate", *sorted((ROOT / "policies").glob("*.yaml"))).code == 0


def test_policy_schema_is_the_one_that_is_checked_in(run: Run) -> None:
    ran = run("policy", "schema")
    assert (ran.code, ran.out) == (0, (ROOT / "policies" / "policy.schema.json").read_text())


def test_policies_are_shown_explained_and_compared(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("schema: quantguard.policy/1\nname: mine\nextends: standard\nconfidence: 0.9\n", encoding="utf-8")
    assert "confidence: 0.9  # standard says 0.95" in run("policy", "show", mine).out.splitlines()
    assert "  alias: champion  # standard, line" in run("policy", "show", mine, "--effective").out
    told = run("policy", "explain", "perplexity.max_rise", "--policy", mine)
    assert f"  {mine}:3:10: perplexity.max_rise: 0.2 (standard)" in told.out.splitlines()
    assert (told.code, run("policy", "explain", "perplexty.max_rise").code) == (0, 4)
    assert run("policy", "validate", "strict", "standard", "permissive").code == 0
    assert run("policy", "diff", mine, "standard").code == 0
    ran = run("policy", "diff", "standard", mine, "--output", "json")
    assert (ran.code, json.loads(ran.out)["answer"]) == (1, "looser")
    assert run("policy", "diff", "standard", tmp_path / "none.yaml").code == 4
