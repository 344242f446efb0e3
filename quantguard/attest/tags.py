"""The two envelopes as tags of a registered version, so that a registry decides without an artifact store.

A tag holds base64 of the zlib-compressed envelope; a long one goes on in `KEY.1`, `KEY.2` and so on.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from quantguard.core.errors import EvidenceError
from quantguard.evidence.dsse import MOST_BYTES

MEASUREMENTS_TAG: Final = "quantguard.attestation.measurements"
DECISION_TAG: Final = "quantguard.attestation.decision"
PIECE: Final = 90_000  # characters, a multiple of four; MLflow keeps 100,000
MOST_PIECES: Final = 100
_REMEDY: Final = "gate the version again"


@dataclass(frozen=True, slots=True)
class SignedPair:
    """The two envelopes, as JSON."""

    measurements: bytes
    decision: bytes


def to_tags(pair: SignedPair) -> dict[str, str]:
    """The tags, the decision's last: whoever reads between two writes finds a pair that does not fit, not a half.

    Raises:
        EvidenceError: the measurements are larger than tags can hold.
    """
    return {**_written(MEASUREMENTS_TAG, pair.measurements), **_written(DECISION_TAG, pair.decision)}


def from_tags(tags: Mapping[str, str]) -> SignedPair | None:
    """The inverse of `to_tags`; None where a version has no evidence at all, or only one half of it.

    What an earlier, longer envelope left in further tags is not read.

    Raises:
        EvidenceError: the tags are not what was written, or unpack to more than 32 MiB.
    """
    if not {MEASUREMENTS_TAG, DECISION_TAG} <= tags.keys():
        return None
    return SignedPair(_read(MEASUREMENTS_TAG, tags), _read(DECISION_TAG, tags))


def _keys(key: str) -> Iterator[str]:
    return iter([key, *(f"{key}.{number}" for number in range(1, MOST_PIECES))])


def _written(key: str, data: bytes) -> dict[str, str]:
    text = base64.b64encode(zlib.compress(data, 9)).decode("ascii")
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    if len(pieces) > MOST_PIECES:
        remedy = "ask fewer probes, or texts without answers"
        raise EvidenceError(f"evidence of {len(data)} bytes does not fit in the tags of a version", remedy=remedy)
    return dict(zip(_keys(key), pieces, strict=False))


def _read(key: str, tags: Mapping[str, str]) -> bytes:
    unpack = zlib.decompressobj()
    found = b""
    for name in _keys(key):
        if name not in tags or unpack.eof:
            break
        try:
            packed = base64.b64decode(tags[name], validate=True)
            found += unpack.decompress(packed, max(1, MOST_BYTES + 1 - len(found)))
        except (binascii.Error, ValueError, zlib.error) as error:
            raise EvidenceError(f"the tag {name} is damaged", remedy=_REMEDY) from error
        if len(found) > MOST_BYTES or unpack.unconsumed_tail:
            raise EvidenceError(f"the tag {key} unpacks to more than {MOST_BYTES} bytes", remedy=_REMEDY)
    if not unpack.eof or unpack.unused_data:
        raise EvidenceError(f"the tag {key} is cut", remedy=_REMEDY)
    return found
