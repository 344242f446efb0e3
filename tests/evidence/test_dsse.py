"""Envelopes are those of the DSSE specification: its test vector, and another library's signatures."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as Theirs
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from quantguard.core.errors import EvidenceError, ForgedEvidenceError
from quantguard.evidence.dsse import Envelope, Signature, pae, read_envelope, sign, verify
from quantguard.evidence.keys import Signer
from quantguard.evidence.trusted import TrustedKeys

# https://github.com/secure-systems-lab/dsse/blob/master/protocol.md#test-vectors
KIND, BODY = "http://example.com/HelloWorld", b"hello world"
SECRET = 97358161215184420915383655311931858321456579547487070936769975997791359926199
SIGNATURE = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
ALICE, BOB = Signer(ec.derive_private_key(SECRET, ec.SECP256R1())), Signer.generate()
KEYS = TrustedKeys.of(ALICE.public)


def test_the_specification_s_vector() -> None:
    assert pae(KIND, BODY) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    r, s = decode_dss_signature(ALICE.sign(pae(KIND, BODY)))
    assert base64.b64encode(r.to_bytes(32) + s.to_bytes(32)).decode() == SIGNATURE


def test_another_library_takes_our_signature_and_we_take_its() -> None:
    ours = sign(KIND, BODY, ALICE)
    theirs = CryptoSigner(ALICE._key)
    theirs.public_key.keyid = ALICE.public.key_id  # they name keys by another rule
    assert Theirs.from_dict(json.loads(ours.to_json())).verify([theirs.public_key], 1)
    made = Theirs(BODY, KIND, {})
    made.sign(theirs)
    assert verify(read_envelope(json.dumps(made.to_dict()).encode()), KEYS, payload_type=KIND).payload == BODY


@given(st.binary(max_size=50), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_what_is_signed_is_read_back(payload: bytes, kind: str) -> None:
    envelope = sign(kind, payload, ALICE)
    assert read_envelope(envelope.to_json()) == envelope
    assert verify(envelope, KEYS, payload_type=kind).payload == payload


@given(st.binary(min_size=1, max_size=30), st.integers(0), st.integers(1, 255))
def test_another_payload_or_type_was_not_signed(payload: bytes, place: int, flip: int) -> None:
    envelope = sign(KIND, payload, ALICE)
    other = bytearray(payload)
    other[place % len(other)] ^= flip
    for forged in (Envelope(KIND, bytes(other), envelope.signatures), Envelope("x", payload, envelope.signatures)):
        with pytest.raises(ForgedEvidenceError):
            verify(forged, KEYS, payload_type=forged.payload_type)


def test_one_trusted_signature_of_several_is_enough_and_a_stranger_s_none() -> None:
    both = Envelope(KIND, BODY, (*sign(KIND, BODY, BOB).signatures, *sign(KIND, BODY, ALICE).signatures))
    assert [signer.public.key_id for signer in verify(both, KEYS, payload_type=KIND).signers] == [ALICE.public.key_id]
    with pytest.raises(ForgedEvidenceError, match="nobody who is trusted"):
        verify(sign(KIND, BODY, BOB), KEYS, payload_type=KIND)
    claimed = Envelope(KIND, BODY, (Signature(ALICE.public.key_id, BOB.sign(pae(KIND, BODY))),))
    with pytest.raises(ForgedEvidenceError, match="does not fit"):
        verify(claimed, KEYS, payload_type=KIND)


def test_the_name_of_a_key_is_a_hint_and_its_absence_none() -> None:
    nameless = Envelope(KIND, BODY, (Signature("", ALICE.sign(pae(KIND, BODY))),))
    assert verify(nameless, KEYS, payload_type=KIND).payload == BODY


def test_a_good_signature_over_another_kind_of_document_counts_for_nothing() -> None:
    with pytest.raises(ForgedEvidenceError, match="expected"):
        verify(sign("text/plain", BODY, ALICE), KEYS, payload_type=KIND)


GOOD = json.loads(sign(KIND, BODY, ALICE).to_json())
PAYLOADS = ("aGVsbG8", "aGVsbG9=", "aGVs bG8=", "aGVsbG8=\n", 1)
SIGNATURES: tuple[object, ...] = ([], {}, [{}], ["x"], [{"sig": "a"}] * 17)
SPOILT: list[tuple[str, object]] = [("payload", value) for value in PAYLOADS] + [
    ("payloadType", value) for value in (None, "\ud800")
]
SPOILT += [("signatures", value) for value in SIGNATURES]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"[" * 100_000,
        b"\xff",
        *(json.dumps({**GOOD, key: bad}).encode() for key, bad in SPOILT),
    ],
)
def test_what_is_no_envelope_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        read_envelope(data)
