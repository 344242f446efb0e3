"""What assess does with a directory under each hardening mode."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from quantguard.cli.gate import exit_code
from quantguard.core.errors import MachineError
from quantguard.core.verdict import Decision, ExitCode, GateOutcome, Subject, Verdict
from quantguard.gate.assess import Room, assess
from quantguard.gate.facts import report_facts
from quantguard.gate.fetch import fetch
from quantguard.gate.work import Assessment, Work, make_job
from quantguard.policy.load import load_policy
from quantguard.registry.directory import DirectoryRegistry
from tests.stories import POLICY, Kind, write_policy


def assessed(model: Path, mode: str, root: Path) -> tuple[Assessment, Work]:
    policy = load_policy(write_policy(root / "policy", POLICY.replace("mode: when-suspicious", f"mode: {mode}")))
    work = Work(root / "work", make_job(str(model), policy, seed=0), policy)
    fetch(work, DirectoryRegistry())
    return assess(work, Room("cpu", "reachable")), work


def test_the_layers_of_the_scan_are_kept_and_another_scan_of_the_bytes_finds_the_same(
    models: Mapping[Kind, Path], tmp_path: Path
) -> None:
    _, work = assessed(models[Kind.ATTACKED], "never", tmp_path)
    facts = report_facts(work)
    assert {layer.grid for layer in facts.layers} >= {"NF4", "FP4", "INT8"}
    assert facts.layers[0].histogram is not None
    before = (work.evidence / "scan.json").read_bytes()
    (work.evidence / "scan.json").unlink()
    assess(work, Room("cpu", "reachable"))  # what it samples, it draws from the bytes
    assert (work.evidence / "scan.json").read_bytes() == before


def test_never_leaves_an_attacked_model_blocked_and_unrepaired(models: Mapping[Kind, Path], tmp_path: Path) -> None:
    assessment, work = assessed(models[Kind.ATTACKED], "never", tmp_path)
    assert assessment.outcome.verdict is Verdict.BLOCK
    assert assessment.outcome.hardened is None
    assert assessment.hardening_note == "not hardened: the policy says never"
    assert not work.hardened.exists()
    assert not work.scratch.exists()


def test_always_promotes_the_hardened_derivative_only(models: Mapping[Kind, Path], tmp_path: Path) -> None:
    assessment, work = assessed(models[Kind.CLEAN], "always", tmp_path)
    assert assessment.outcome.promoted is Subject.HARDENED
    assert [reason.rule for reason in assessment.outcome.original.failures()] == ["harden.mode"]
    assert (work.hardened / "model.safetensors").exists()


@pytest.mark.parametrize("source", ["neutral", "self"])
def test_a_policy_may_name_a_source_of_prompts_instead_of_a_file(
    source: str, models: Mapping[Kind, Path], tmp_path: Path
) -> None:
    text = POLICY.replace("prompts: calibration.jsonl", f"prompts: {source}").replace("when-suspicious", "always")
    policy = load_policy(write_policy(tmp_path / "policy", text))
    work = Work(tmp_path / "work", make_job(str(models[Kind.CLEAN]), policy, seed=0), policy)
    fetch(work, DirectoryRegistry())
    told: dict[str, int] = {}

    def hear(stage: str, done: int, total: int, detail: str = "") -> None:
        told.setdefault(stage, total)

    assert assess(work, Room("cpu", "reachable", hear)).outcome.promoted is Subject.HARDENED
    assert told.get("sample") == (6 if source == "self" else None)
    summary = report_facts(work).hardening
    assert summary is not None
    assert summary.calibration is not None
    assert summary.calibration.source == ("self/0" if source == "self" else "neutral/1")
    assert not list(work.hardened.parent.glob(".quantguard-*"))


def test_always_does_not_harden_what_no_rounding_can_repair(models: Mapping[Kind, Path], tmp_path: Path) -> None:
    assessment, work = assessed(models[Kind.MALICIOUS], "always", tmp_path)
    assert (assessment.outcome.verdict, assessment.outcome.hardened) == (Verdict.BLOCK, None)
    assert not work.hardened.exists()


def test_where_a_policy_requires_a_gpu_nothing_runs_on_a_cpu(models: Mapping[Kind, Path], tmp_path: Path) -> None:
    policy = load_policy(write_policy(tmp_path / "policy", POLICY + "requires: {gpu: true}\n"))
    work = Work(tmp_path / "work", make_job(str(models[Kind.CLEAN]), policy, seed=0), policy)
    fetch(work, DirectoryRegistry())
    with pytest.raises(MachineError, match="requires a GPU, and this would run on cpu"):
        assess(work, Room("cpu", "none"))
    assert not work.evidence.exists()


def test_what_could_not_be_measured_is_measured_again(
    models: Mapping[Kind, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory was short, or a task's data was absent: the next run must not repeat the answer from its notes."""
    with monkeypatch.context() as broken:
        broken.setitem(sys.modules, "bitsandbytes", None)  # what an import finds where it is not installed
        assessment, work = assessed(models[Kind.CLEAN], "never", tmp_path)
    assert assessment.outcome.verdict is Verdict.HOLD
    assert assess(work, Room("cpu", "reachable")).outcome.verdict is Verdict.PROMOTE


def decision(subject: Subject, verdict: Verdict) -> Decision:
    return Decision(subject, verdict, ())


REPAIRED = GateOutcome(decision(Subject.ORIGINAL, Verdict.BLOCK), decision(Subject.HARDENED, Verdict.PROMOTE))


@pytest.mark.parametrize(
    ("outcome", "registered", "directory"),
    [
        (GateOutcome(decision(Subject.ORIGINAL, Verdict.PROMOTE), None), 0, 0),
        (GateOutcome(decision(Subject.ORIGINAL, Verdict.BLOCK), None), 1, 1),
        (GateOutcome(decision(Subject.ORIGINAL, Verdict.HOLD), None), 2, 2),
        (REPAIRED, 0, 1),  # the alias goes to the derivative; the directory stays as it is
    ],
)
def test_the_exit_code_is_about_what_is_used_next(outcome: GateOutcome, registered: int, directory: int) -> None:
    assert exit_code(outcome, "models:/m/1") is ExitCode(registered)
    assert exit_code(outcome, "./m") is ExitCode(directory)


@pytest.mark.parametrize(("limit", "promoted"), [("1000", Subject.HARDENED), ("0.0001", None)])
def test_a_hardened_copy_has_to_meet_the_limit_of_counterfactual_rounding_too(
    limit: str, promoted: Subject | None, models: Mapping[Kind, Path], tmp_path: Path
) -> None:
    section = f"counterfactual: {{prompts: calibration.jsonl, samples: 6, max_ratio: {limit}}}\n"
    policy = load_policy(write_policy(tmp_path / "policy", POLICY + section))
    work = Work(tmp_path / "work", make_job(str(models[Kind.ATTACKED]), policy, seed=0), policy)
    fetch(work, DirectoryRegistry())
    outcome = assess(work, Room("cpu", "reachable")).outcome
    assert outcome.promoted is promoted
    assert outcome.hardened is not None
    rule = "counterfactual.max_ratio"
    assert [r.where for r in outcome.hardened.reasons if r.rule == rule] == ["nf4"]
    assert [r.rule for r in outcome.hardened.failures()] == ([] if promoted else [rule])
    facts = report_facts(work)
    for measured in (facts.original, facts.hardened):
        assert measured is not None
        assert [drift.scheme.value for drift in measured.drifts] == ["nf4"]


def test_a_hardened_copy_has_to_meet_the_limit_of_perplexity_on_the_texts_of_the_original(
    models: Mapping[Kind, Path], tmp_path: Path
) -> None:
    section = "perplexity: {prompts: neutral, samples: 32, max_rise: 1000}\n"
    policy = load_policy(write_policy(tmp_path / "policy", POLICY + section))
    work = Work(tmp_path / "work", make_job(str(models[Kind.ATTACKED]), policy, seed=0), policy)
    fetch(work, DirectoryRegistry())
    outcome = assess(work, Room("cpu", "reachable")).outcome
    assert outcome.hardened is not None
    assert [r.where for r in outcome.hardened.reasons if r.rule == "perplexity.max_rise"] == ["full", "nf4"]
    facts = report_facts(work)
    assert facts.original is not None
    assert facts.hardened is not None
    rows = (*facts.original.perplexities, *facts.hardened.perplexities)
    assert len(rows) == 4
    assert len({row.texts for row in rows}) == 1
    assert [bool(row.answers) for row in rows] == [True, False, False, False]
