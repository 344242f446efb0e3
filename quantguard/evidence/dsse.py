"""DSSE, the envelope of signed statements: https://github.com/secure-systems-lab/dsse, version 1.

What is signed is the pre-authentication encoding of the payload and its type, so that a signature over one kind of
document is none over another. An envelope may have several signatures; one of a trusted key is needed. Its `keyid` is
a hint for finding the key, and says nothing of the algorithm: that is the key's.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final

from quantguard.core.errors import EvidenceError, ForgedEvidenceError
from quantguard.evidence.keys import Signer
from quantguard.evidence.records import canonical_json
from quantguard.evidence.trusted import TrustedKey, TrustedKeys

MOST_BYTES: Final = 32 * 1024 * 1024  # of an envelope
_MOST_SIGNATURES: Final = 16
_REMEDY: Final = "gate the version again"


@dataclass(frozen=True, slots=True)
class Signature:
    key_id: str  # of the key that signed, as `PublicKey.key_id`; empty where it is not told
    value: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def to_json(self) -> bytes:
        """The envelope as canonical JSON, with a newline at its end."""
        signatures = [{"keyid": found.key_id, "sig": _encode(found.value)} for found in self.signatures]
        document = {"payload": _encode(self.payload), "payloadType": self.payload_type, "signatures": signatures}
        return canonical_json(document) + b"\n"


@dataclass(frozen=True, slots=True)
class Verified:
    payload: bytes
    signers: tuple[TrustedKey, ...]  # whose signatures were verified, at least one

    @property
    def key(self) -> str:
        """The names of those who signed."""
        return ", ".join(signer.name for signer in self.signers)


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding, which is what is signed (protocol.md of the specification)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, signer: Signer) -> Envelope:
    """An envelope with one signature; the same payload and key give the same bytes."""
    signature = Signature(signer.public.key_id, signer.sign(pae(payload_type, payload)))
    return Envelope(payload_type, payload, (signature,))


def verify(envelope: Envelope, keys: TrustedKeys, *, payload_type: str) -> Verified:
    """The payload, and whose trusted keys signed it. What time it is the caller asks of the keys.

    Raises:
        ForgedEvidenceError: another type than expected, or no signature of a trusted key.
    """
    if envelope.payload_type != payload_type:
        told = envelope.payload_type[:100]
        raise ForgedEvidenceError(f"signed as {told!r}, expected {payload_type!r}", remedy=_REMEDY)
    message = pae(envelope.payload_type, envelope.payload)
    signers = tuple(
        key
        for signature in envelope.signatures
        for key in keys.with_id(signature.key_id)
        if key.public.accepts(signature.value, message)
    )
    if signers:
        return Verified(envelope.payload, tuple(dict.fromkeys(signers)))
    claimed = ", ".join(found.key_id[:16] or "a key without a name" for found in envelope.signatures)
    known = any(keys.with_id(found.key_id) for found in envelope.signatures)
    if known:
        raise ForgedEvidenceError(f"the signature of {claimed} does not fit what is signed", remedy=_REMEDY)
    remedy = "trust the public key of the gate that signed it, or gate the version with a key that is trusted"
    raise ForgedEvidenceError(f"signed by nobody who is trusted ({claimed})", remedy=remedy)


def read_envelope(data: bytes) -> Envelope:
    """An envelope from JSON. Unknown keys are ignored, as the specification asks.

    Raises:
        EvidenceError: it is none, or larger than 32 MiB.
    """
    if len(data) > MOST_BYTES:
        raise EvidenceError(f"an envelope of more than {MOST_BYTES} bytes", remedy=_REMEDY)
    try:
        document = json.loads(data)
        signatures = [Signature(_text(s.get("keyid", "")), _decode(s["sig"])) for s in _listed(document["signatures"])]
        return Envelope(_text(document["payloadType"]), _decode(document["payload"]), tuple(signatures))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvidenceError(f"not a DSSE envelope: {type(error).__name__}", remedy=_REMEDY) from error


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_SIGNATURES:
        raise ValueError("signatures")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    value.encode()  # a lone surrogate is no text
    return value


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(value: Any) -> bytes:
    """Standard or URL-safe base64, as the specification allows; the one spelling that encoding gives, no other."""
    text = _text(value)
    try:
        data = base64.b64decode(text.translate(_STANDARD), validate=True)
    except binascii.Error as error:
        raise ValueError("base64") from error
    if text not in (_encode(data), base64.urlsafe_b64encode(data).decode("ascii")):
        raise ValueError("base64")
    return data


_STANDARD: Final = str.maketrans("-_", "+/")
