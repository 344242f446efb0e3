"""Sigstore's own library signs and verifies our statements, against an instance of the test's own."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quantguard.attest.keyless import Identity, sign_keyless, verify_keyless
from quantguard.attest.tags import SignedPair
from quantguard.core.errors import EvidenceError, ForgedEvidenceError, UsageError
from quantguard.core.verdict import ExitCode
from quantguard.evidence.dsse import read_envelope
from tests.attest.local_sigstore import ISSUER, SUBJECT, served, token
from tests.attest.made import signed_pair, write_made_policy
from tests.command import quantguard

WORKFLOW = Identity(SUBJECT, ISSUER)


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served(tmp_path_factory.mktemp("sigstore")) as path:
        yield path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SignedPair:
    return signed_pair(write_made_policy(tmp_path_factory.mktemp("policy")))


@pytest.fixture(scope="module")
def payload(pair: SignedPair) -> bytes:
    return read_envelope(pair.decision).payload


@pytest.fixture(scope="module")
def bundle(payload: bytes, trust: Path) -> bytes:
    return sign_keyless(payload, token(), trust=trust)


def test_the_payload_of_an_envelope_comes_back_byte_for_byte(bundle: bytes, payload: bytes, trust: Path) -> None:
    assert verify_keyless(bundle, WORKFLOW, trust=trust) == payload


@pytest.mark.parametrize(
    "identity", [Identity(SUBJECT + "x", ISSUER), Identity(SUBJECT, "https://issuer.example")], ids=["name", "issuer"]
)
def test_another_identity_is_refused(bundle: bytes, trust: Path, identity: Identity) -> None:
    with pytest.raises(ForgedEvidenceError):
        verify_keyless(bundle, identity, trust=trust)


def test_another_instance_is_refused(bundle: bytes, tmp_path: Path) -> None:
    with served(tmp_path) as other, pytest.raises(ForgedEvidenceError):
        verify_keyless(bundle, WORKFLOW, trust=other)


def other_payload(document: dict[str, Any]) -> None:
    envelope = document["dsseEnvelope"]
    envelope["payload"] = base64.b64encode(base64.b64decode(envelope["payload"]).replace(b"PASSED", b"FAILED")).decode()


def other_signature(document: dict[str, Any]) -> None:
    signature = document["dsseEnvelope"]["signatures"][0]
    raw = base64.b64decode(signature["sig"])
    signature["sig"] = base64.b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode()


def other_time(document: dict[str, Any]) -> None:
    (entry,) = document["verificationMaterial"]["tlogEntries"]
    entry["integratedTime"] = str(int(entry["integratedTime"]) + 30)


def no_entry(document: dict[str, Any]) -> None:
    document["verificationMaterial"]["tlogEntries"] = []


@pytest.mark.parametrize("change", [other_payload, other_signature, other_time, no_entry])
def test_what_was_changed_afterwards_is_refused(bundle: bytes, trust: Path, change: Any) -> None:
    document = json.loads(bundle)
    change(document)
    with pytest.raises(EvidenceError):
        verify_keyless(json.dumps(document).encode(), WORKFLOW, trust=trust)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff"])
def test_what_is_no_bundle_is_told(data: bytes, trust: Path) -> None:
    with pytest.raises(EvidenceError, match="not a signature of Sigstore"):
        verify_keyless(data, WORKFLOW, trust=trust)


def test_a_token_that_is_none_is_told_without_it(payload: bytes, trust: Path) -> None:
    with pytest.raises(EvidenceError) as refused:
        sign_keyless(payload, "a-secret-token", trust=trust)
    assert "a-secret-token" not in str(refused.value)


def test_only_statements_are_signed(trust: Path) -> None:
    with pytest.raises(EvidenceError):
        sign_keyless(b"no statement", token(), trust=trust)


def test_a_trust_configuration_that_is_none_is_told(bundle: bytes, tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_text("{}")
    for path in (tmp_path / "trust.json", tmp_path / "absent.json"):
        with pytest.raises(UsageError, match="not a trust configuration"):
            verify_keyless(bundle, WORKFLOW, trust=path)


def test_the_command_line_signs_an_envelope_and_tells_it_from_another(
    pair: SignedPair, trust: Path, tmp_path: Path
) -> None:
    for name, data in (("decision", pair.decision), ("measurements", pair.measurements)):
        (tmp_path / f"{name}.dsse.json").write_bytes(data)
    decision, bundle = tmp_path / "decision.dsse.json", tmp_path / "decision.sigstore.json"
    arguments = ("keyless", "sign", decision, "--output", bundle, "--trust-config", trust)
    nobody = quantguard(*arguments)
    assert nobody.code == ExitCode.USAGE, nobody.err
    assert not bundle.exists()
    signed = quantguard(*arguments, env={"SIGSTORE_ID_TOKEN": token()})
    assert signed.code == ExitCode.PASSED, signed.err
    who = ("--identity", SUBJECT, "--issuer", ISSUER, "--trust-config", trust)
    verified = quantguard("keyless", "verify", bundle, "--envelope", decision, *who)
    assert verified.code == ExitCode.PASSED, verified.err
    assert f"signed by {SUBJECT}" in verified.out
    other = quantguard("keyless", "verify", bundle, "--envelope", tmp_path / "measurements.dsse.json", *who)
    assert other.code == ExitCode.BLOCKED


def test_without_the_extra_it_says_what_to_install(bundle: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sigstore.models", None)
    with pytest.raises(UsageError, match=r"quantguard\[sigstore\]"):
        verify_keyless(bundle, WORKFLOW)
