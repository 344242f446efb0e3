"""A bundle is what was signed, to the last byte, or it is told what is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.attest.bundle import DECISION, POLICY, intact, write_bundle
from quantguard.attest.statements import Decided, Measured, decided_payload, measured_payload, read_decided
from quantguard.attest.verify import Asked, State, Verified, verify_bundle
from quantguard.core.attestation import timestamp
from quantguard.core.errors import EvidenceError
from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Subject, Verdict
from quantguard.core.waiver import Waiver
from quantguard.evidence.dsse import read_envelope, sign
from quantguard.evidence.keys import Signer
from quantguard.evidence.records import canonical_json, to_plain
from quantguard.evidence.statement import PAYLOAD_TYPE
from quantguard.evidence.trusted import TrustedKey, TrustedKeys
from quantguard.policy.evidence import asked
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.subject import decide_subject
from tests.attest.made import BINDING, NOW, SIGNER, days, measurements, write_made_policy

KEYS = TrustedKeys((TrustedKey("gate", SIGNER.public),))


def made(
    folder: Path,
    policy: LoadedPolicy,
    *,
    found: Measurements | None = None,
    verdict: Verdict | None = None,
    waivers: tuple[Waiver, ...] = (),
) -> Path:
    """A bundle as the gate writes one, smaller."""
    found = found or measurements()
    decision = decide_subject(policy.policy, Subject.ORIGINAL, (), found)
    measured = Measured(BINDING, Subject.ORIGINAL, found, (), asked(policy), (), timestamp(NOW))
    decided = Decided(
        BINDING, Subject.ORIGINAL, verdict or decision.verdict, decision.reasons, waivers, "made", policy.digest, "",
        timestamp(NOW),
    )  # fmt: skip
    record = {"schema": "quantguard.measurements-original/1", "inputs": "", "body": to_plain(Measurements, found)}
    files = {POLICY: policy.text, "evidence/measurements-original.json": canonical_json(record), "empty": b""}
    write_bundle(folder, measured, decided, files, SIGNER)
    return folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> LoadedPolicy:
    return write_made_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, policy: LoadedPolicy) -> Path:
    return made(tmp_path_factory.mktemp("bundles") / "bundle", policy)


def states(verified: Verified) -> dict[str, State]:
    return {check.name: check.state for check in verified.checks}


def test_what_the_gate_wrote_is_verified_and_the_same_facts_give_the_same_bytes(
    bundle: Path, policy: LoadedPolicy, tmp_path: Path
) -> None:
    verified = verify_bundle(Asked(bundle, KEYS, NOW))
    assert [check.name for check in verified.checks] == [
        "signatures", "key", "files", "policy", "measurements", "verdict",
    ]  # fmt: skip
    assert verified.state is State.OK
    again = made(tmp_path / "again", policy)
    for path in bundle.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (again / path.relative_to(bundle)).read_bytes()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_byte_counts(bundle: Path, data: st.DataObject) -> None:
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.stat().st_size)
    path = data.draw(st.sampled_from(files))
    before = path.read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    flipped = bytearray(before)
    flipped[place] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(flipped)
        assert verify_bundle(Asked(bundle, KEYS, NOW)).state is State.FAILED
        assert intact(bundle, KEYS) is None or path.name == DECISION
    finally:
        path.write_bytes(before)


def spoilt(bundle: Path) -> Iterator[tuple[str, str]]:
    """(what was done, what is told), done to the bundle one after the other."""
    (bundle / "more").write_bytes(b"")
    yield "added", "more was added"
    (bundle / "more").unlink()
    (bundle / "empty").unlink()
    yield "removed", "empty is missing"
    (bundle / "empty").symlink_to("/dev/null")
    yield "linked", "empty is no ordinary file"
    (bundle / "empty").unlink()
    (bundle / "empty").mkdir()
    (bundle / "empty" / "file").write_bytes(b"")
    yield "made a directory", "empty is missing"


def test_a_file_more_or_less_or_a_link_is_named(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    for done, told in spoilt(copy):
        verified = verify_bundle(Asked(copy, KEYS, NOW))
        assert states(verified)["files"] is State.FAILED, done
        assert any(told in check.message for check in verified.checks), done


def test_a_verdict_that_does_not_follow_is_told_though_it_is_signed(policy: LoadedPolicy, tmp_path: Path) -> None:
    bad = made(tmp_path / "bad", policy, found=measurements(quantized=90))
    assert verify_bundle(Asked(bad, KEYS, NOW)).state is State.OK  # genuine evidence of a refusal
    lied = made(tmp_path / "lied", policy, found=measurements(quantized=90), verdict=Verdict.PROMOTE)
    assert states(verify_bundle(Asked(lied, KEYS, NOW)))["verdict"] is State.FAILED


def test_a_stranger_s_signature_ends_it_and_a_key_counts_at_its_time(bundle: Path) -> None:
    stranger = TrustedKeys.of(Signer.generate().public)
    assert states(verify_bundle(Asked(bundle, stranger, NOW))) == {"signatures": State.FAILED}
    key = KEYS.keys[0]
    retired = TrustedKeys((replace(key, not_after=NOW + days(1)),))
    later = verify_bundle(Asked(bundle, retired, NOW + days(900)))
    assert later.state is State.OK  # evidence outlives its key
    assert "run out since" in later.checks[1].message
    early = TrustedKeys((replace(key, not_before=NOW + days(1)),))
    assert states(verify_bundle(Asked(bundle, early, NOW + days(2))))["key"] is State.FAILED
    elsewhere = TrustedKeys((replace(key, environments=("staging",)),))
    assert states(verify_bundle(Asked(bundle, elsewhere, NOW)))["key"] is State.FAILED


def test_what_waivers_allowed_is_told_with_the_days_that_are_left(policy: LoadedPolicy, tmp_path: Path) -> None:
    waiver = Waiver("scan.boundary", BINDING.model_digest, "nf4", "a test", "ann", "2026-12-01")
    folder = made(tmp_path / "waived", policy, waivers=(waiver,))
    for now, told in ((NOW, "by ann until 2026-12-01, 11 days left"), (NOW + days(30), "expired")):
        verified = verify_bundle(Asked(folder, KEYS, now))
        assert verified.state is State.OK
        assert [told in check.message for check in verified.checks if check.name == "waivers"] == [True]


def test_other_bytes_and_a_stricter_policy_are_told(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"x")
    assert states(verify_bundle(Asked(bundle, KEYS, NOW, model=tmp_path / "model")))["bytes"] is State.FAILED
    more = write_made_policy(tmp_path / "more", triggers={"prompts": "p.jsonl", "confirm": 40, "max_upper_bound": 0.5})
    assert states(verify_bundle(Asked(bundle, KEYS, NOW, policy=more)))["your policy"] is State.UNKNOWN


def test_the_summary_and_the_details_of_a_decision_say_the_same(bundle: Path) -> None:
    payload = json.loads(read_envelope((bundle / DECISION).read_bytes()).payload)
    predicate = payload["predicate"]
    assert (predicate["verificationResult"], payload["predicateType"]) == (
        "PASSED", "https://slsa.dev/verification_summary/v1",
    )  # fmt: skip
    for key, value in (("verificationResult", "FAILED"), ("resourceUri", "models:/other/3"), ("more", 1)):
        with pytest.raises(EvidenceError, match="contradicts"):
            read_decided(canonical_json({**payload, "predicate": {**predicate, key: value}}))


def test_nothing_is_left_of_a_bundle_that_cannot_be_written(policy: LoadedPolicy, tmp_path: Path) -> None:
    measured = Measured(BINDING, Subject.ORIGINAL, None, (), (), (), timestamp(NOW))
    decided = Decided(BINDING, Subject.ORIGINAL, Verdict.HOLD, (), (), "made", policy.digest, "", timestamp(NOW))
    with pytest.raises(EvidenceError):
        write_bundle(tmp_path / "b", measured, decided, {"a/b": b"", "a": b""}, SIGNER)
    with pytest.raises(EvidenceError):
        write_bundle(tmp_path / "b", measured, decided, {"../up": b""}, SIGNER)
    assert list(tmp_path.iterdir()) == []
    assert sign(PAYLOAD_TYPE, measured_payload(measured), SIGNER) != sign(
        PAYLOAD_TYPE, decided_payload(replace(decided, measurements="sha256:" + "0" * 64)), SIGNER
    )


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "bitsandbytes", "mlflow", "accelerate"}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from quantguard.cli.main import main
main()
"""


def test_the_command_verifies_where_neither_torch_nor_mlflow_is(
    bundle: Path, policy: LoadedPolicy, tmp_path: Path
) -> None:
    (tmp_path / "gate.pub.pem").write_bytes(SIGNER.public.pem())

    def verified(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", BLOCKED, "evidence", "verify", str(bundle), "--key", "gate.pub.pem", *more]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    ran = verified("--output", "json", "--policy", str(policy.path))
    said = json.loads(ran.stdout)
    assert {check["state"] for check in said["checks"]} == {"OK"}
    assert said["exit_code"] == ran.returncode == 0, ran.stderr
    assert verified("--key", "none.pem").returncode == 4
