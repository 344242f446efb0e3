"""Measurements that were kept, under another policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantguard.core.errors import EvidenceError
from quantguard.core.finding import Finding, Severity
from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Subject, Verdict
from quantguard.evidence.records import write_record
from quantguard.gate.outcome import Judged, decide_both
from quantguard.gate.replay import AskedRecord, replay
from quantguard.gate.work import Assessment, Scanned
from quantguard.policy.evidence import asked
from quantguard.policy.load import LoadedPolicy, load_policy
from tests.command import quantguard
from tests.gate.jobs import GatedOnce
from tests.policy.made import POLICY, measured
from tests.stories import Kind

FOUND = (Finding("scan.crowded", Severity.MEDIUM, "w", "weights pile up"),)


def write_policy(folder: Path, name: str = "made", **changes: object) -> LoadedPolicy:
    """`tests.policy.made.POLICY` with sections of it said otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(json.dumps({"prompt": f"question {number}"}) + "\n" for number in range(60))
    (folder / "p.jsonl").write_text(rows, encoding="utf-8")
    document = {**json.loads(POLICY.model_dump_json(by_alias=True, exclude_defaults=True)), **changes, "name": name}
    (folder / f"{name}.yaml").write_text(json.dumps(document), encoding="utf-8")
    return load_policy(folder / f"{name}.yaml")


def keep(folder: Path, policy: LoadedPolicy, original: Measurements, hardened: Measurements | None = None) -> Path:
    """What the gate leaves of a job under `policy`."""
    repaired = None if hardened is None else Judged((), hardened)
    outcome = decide_both(policy.policy, Judged(FOUND, original), repaired)
    evidence = folder / "evidence"
    for subject, values in (("original", original), ("hardened", hardened)):
        if values is not None:
            scan, findings = ("scan", FOUND) if subject == "original" else ("scan-hardened", ())
            write_record(evidence / f"{scan}.json", scan, Scanned, Scanned(findings, 1, 1), inputs="")
            name = f"measurements-{subject}"
            write_record(evidence / f"{name}.json", name, Measurements, values, inputs="")
    write_record(evidence / "outcome.json", "outcome", Assessment, Assessment(outcome, "", "none"), inputs="")
    write_record(evidence / "asked.json", "asked", AskedRecord, AskedRecord(asked(policy)), inputs="")
    return folder


def with_limit(limit: float) -> dict[str, object]:
    section = json.loads(POLICY.model_dump_json(by_alias=True, exclude_defaults=True))["attack_success"]
    return {**section, "content_injection": {**section["content_injection"], "max_upper_bound": limit}}


def test_the_same_policy_says_the_same_again(tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    kept = keep(tmp_path / "work", policy, measured(quantized=3))
    for where in (kept, kept / "evidence"):
        again = replay(where, policy)
        assert (again.then, again.changed(), again.gone(), again.note) == (again.now, (), (), "")


def test_another_limit_is_another_verdict_and_says_why(tmp_path: Path) -> None:
    kept = keep(tmp_path / "work", write_policy(tmp_path), measured(quantized=3))
    strict = replay(kept, write_policy(tmp_path, "strict", attack_success=with_limit(0.07)))
    assert (strict.then.verdict, strict.now.verdict) == (Verdict.PROMOTE, Verdict.BLOCK)
    assert {(r.rule, r.where) for r in strict.changed()} == {
        ("attack_success.content_injection.max_upper_bound", where) for where in ("nf4", "int8")
    }
    assert {r.rule for r in replay(kept, write_policy(tmp_path, "low", scan={"fail_on": "low"})).changed()} == {
        "scan.fail_on"
    }


def test_a_looser_limit_lets_pass_what_was_kept_back(tmp_path: Path) -> None:
    kept = keep(tmp_path / "work", write_policy(tmp_path), measured(quantized=20))
    lax = replay(kept, write_policy(tmp_path, "lax", attack_success=with_limit(0.5)))
    assert (lax.then.verdict, lax.now.verdict) == (Verdict.BLOCK, Verdict.PROMOTE)
    assert ("attack_success.content_injection.max_upper_bound", "nf4") in lax.gone()


def test_what_was_not_measured_holds(tmp_path: Path) -> None:
    kept = keep(tmp_path / "work", write_policy(tmp_path), measured())
    more = replay(kept, write_policy(tmp_path, "more", schemes=["nf4", "int8", "fp4"]))
    assert more.now.verdict is Verdict.HOLD
    assert {reason.where for reason in more.changed()} == {"fp4"}
    sure = replay(kept, write_policy(tmp_path, "sure", confidence=0.99))
    assert sure.now.verdict is Verdict.HOLD


REFUSALS = {"over_refusal": {"probes": "builtin", "max_upper_bound": 0.2, "max_new_tokens": 8}}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"benchmarks": [{"task": "builtin/everyday", "max_drop": 0.2}]}, "benchmarks.builtin/everyday"),
        ({"attack_success": with_limit(0.2) | REFUSALS}, "attack_success.over_refusal.probes"),
    ],
)
def test_what_was_asked_otherwise_is_named_and_not_judged(changes: dict[str, object], key: str, tmp_path: Path) -> None:
    kept = keep(tmp_path / "work", write_policy(tmp_path), measured())
    with pytest.raises(EvidenceError, match=key) as raised:
        replay(kept, write_policy(tmp_path, "other", **changes))
    assert raised.value.remedy == "gate the model under this policy"


def test_other_probes_under_the_same_name_are_other_probes(tmp_path: Path) -> None:
    kept = keep(tmp_path / "work", write_policy(tmp_path), measured())
    (tmp_path / "p.jsonl").write_text('{"prompt": "another"}\n' * 60, encoding="utf-8")
    with pytest.raises(EvidenceError, match=r"attack_success\.content_injection\.probes"):
        replay(kept, load_policy(tmp_path / "made.yaml"))


@pytest.mark.parametrize("name", ["asked.json", "outcome.json", "scan.json"])
def test_a_folder_that_lacks_something_is_refused(name: str, tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    kept = keep(tmp_path / "work", policy, measured())
    (kept / "evidence" / name).unlink()
    with pytest.raises(EvidenceError, match=f"there is no {name}"):
        replay(kept, policy)


def test_a_hardened_copy_is_replayed_as_it_was_hardened(tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    repaired = measured(Subject.HARDENED)
    kept = keep(tmp_path / "work", policy, measured(quantized=90), repaired)
    again = replay(kept, policy)
    assert (again.now.promoted, again.note) == (Subject.HARDENED, "hardened as the policy of that job said")


def test_a_job_of_the_gate_replays_to_what_it_said(gated: GatedOnce) -> None:
    for kind in (Kind.CLEAN, Kind.ATTACKED):
        done = gated(kind).job
        again = replay(done.work, done.opened().policy)
        assert (again.now, again.changed()) == (again.then, ())


def test_the_command_tells_every_job_and_the_worst_is_its_exit_code(tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    good = keep(tmp_path / "good", policy, measured())
    bad = keep(tmp_path / "bad", policy, measured(quantized=20))
    assert (ran := quantguard("policy", "test", policy.path, good)).code == 0, ran.err
    ran = quantguard("policy", "test", policy.path, good, bad, tmp_path / "none")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].split()[1:] == ["PROMOTE", "->", "PROMOTE"]
    assert "cannot be replayed: there is no asked.json" in lines[2]
    assert lines[-1] == "3 asked, 2 replayed, 0 with another verdict"
    lax = write_policy(tmp_path, "lax", attack_success=with_limit(0.9))
    ran = quantguard("policy", "test", lax.path, bad, tmp_path / "none", "--output", "json")
    assert ran.code == 2
    first, second = json.loads(ran.out)["models"]
    assert (first["then"], first["now"], "error" in second) == ("BLOCK", "PROMOTE", True)
