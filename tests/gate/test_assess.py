"""What assess does with a directory under each hardening mode, and the plan on its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from quantguard.cli.gate import exit_code
from quantguard.core.errors import MachineError
from quantguard.core.finding import Finding, Severity
from quantguard.core.measurement import Measurements
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Decision, ExitCode, GateOutcome, Subject, Verdict
from quantguard.gate.assess import Room, assess, hardening_plan
from quantguard.gate.fetch import fetch
from quantguard.gate.outcome import decide_original
from quantguard.gate.work import Assessment, Scanned, Work, make_job
from quantguard.policy.decide import decide
from quantguard.policy.load import load_policy
from quantguard.policy.schema import Calibration, Harden, HardenMode, Policy
from quantguard.registry.directory import DirectoryRegistry
from tests.policy.made import POLICY as MADE
from tests.policy.made import measured
from tests.stories import POLICY, Kind, write_policy

FLAGGED = Finding("scan.boundary", Severity.HIGH, "lm_head.weight", "piled up", Scheme.INT8, 8.8, 0.4, 1e-30)


def assessed(model: Path, mode: str, root: Path) -> tuple[Assessment, Work]:
    policy = load_policy(write_policy(root / "policy", POLICY.replace("mode: when-suspicious", f"mode: {mode}")))
    work = Work(root / "work", make_job(str(model), policy, seed=0), policy)
    fetch(work, DirectoryRegistry())
    return assess(work, Room("cpu", "reachable")), work


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


def with_harden(mode: HardenMode, schemes: tuple[Scheme, ...] | None = None) -> Policy:
    calibration = Calibration(prompts="c.jsonl", samples=4)
    return MADE.model_copy(update={"harden": Harden(mode=mode, schemes=schemes, calibration=calibration)})


def plan(policy: Policy, measurements: Measurements, *findings: Finding) -> tuple[Scheme, ...]:
    decision = decide(policy, subject=Subject.ORIGINAL, findings=findings, measurements=measurements)
    schemes, note = hardening_plan(policy, Scanned(findings, 1, 64), measurements, decision)
    assert note.startswith("hardened" if schemes else "not hardened")
    return schemes


SUSPICIOUS, ALWAYS = with_harden(HardenMode.WHEN_SUSPICIOUS), with_harden(HardenMode.ALWAYS)
NF4, INT8 = Scheme.NF4, Scheme.INT8


def test_what_is_calm_is_hardened_only_where_the_policy_says_always() -> None:
    assert plan(SUSPICIOUS, measured()) == ()
    assert plan(ALWAYS, measured()) == (NF4, INT8)


def test_never_is_never() -> None:
    assert plan(with_harden(HardenMode.NEVER), measured(quantized=90), FLAGGED) == ()


def test_the_schemes_that_the_scan_flags_are_hardened() -> None:
    assert plan(SUSPICIOUS, measured(), FLAGGED) == (INT8,)


def test_behaviour_calls_for_a_repair_that_the_scan_did_not() -> None:
    assert plan(SUSPICIOUS, measured(quantized=90)) == (NF4, INT8)


def test_only_what_the_policy_lets_be_hardened_is() -> None:
    assert plan(with_harden(HardenMode.WHEN_SUSPICIOUS, (NF4,)), measured(quantized=90), FLAGGED) == (NF4,)
    assert plan(with_harden(HardenMode.ALWAYS, (INT8, NF4)), measured()) == (INT8, NF4)


@pytest.mark.parametrize("mode", [HardenMode.WHEN_SUSPICIOUS, HardenMode.ALWAYS])
def test_what_is_malicious_in_full_precision_is_not_hardened(mode: HardenMode) -> None:
    assert plan(with_harden(mode), measured(full=90, quantized=90), FLAGGED) == ()


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


def test_an_original_that_could_not_be_measured_is_held_where_only_hardened_models_pass() -> None:
    assert decide_original(ALWAYS, (), None).verdict is Verdict.HOLD
