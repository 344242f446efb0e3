"""Tags give back the envelopes that were written, or nothing."""

from __future__ import annotations

import base64
import random
import zlib

import pytest

from quantguard.attest.tags import DECISION_TAG, MEASUREMENTS_TAG, PIECE, SignedPair, from_tags, to_tags
from quantguard.core.errors import EvidenceError

LONG = random.Random(7).randbytes(200_000)


@pytest.mark.parametrize("pair", [SignedPair(b"one", b"two"), SignedPair(LONG, b"{}"), SignedPair(b"", b"")])
def test_what_is_written_is_read(pair: SignedPair) -> None:
    tags = to_tags(pair)
    assert from_tags(tags) == pair
    assert max(map(len, tags.values())) <= PIECE


def test_what_a_longer_envelope_left_behind_is_not_read() -> None:
    before, after = SignedPair(LONG, b"long"), SignedPair(b"short", b"short")
    assert set(to_tags(before)) - set(to_tags(after)) == {f"{MEASUREMENTS_TAG}.{number}" for number in (1, 2)}
    assert from_tags({**to_tags(before), **to_tags(after)}) == after


def test_a_piece_that_is_missing_or_exchanged_is_noticed() -> None:
    tags = to_tags(SignedPair(LONG, b"{}"))
    first, second = f"{MEASUREMENTS_TAG}.1", f"{MEASUREMENTS_TAG}.2"
    exchanged = {**tags, first: tags[second], second: tags[first]}
    for spoilt in ({key: tags[key] for key in tags if key != second}, exchanged):
        with pytest.raises(EvidenceError):
            from_tags(spoilt)


def test_what_unpacks_without_end_is_not_unpacked() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(64 * 1024 * 1024))).decode()
    with pytest.raises(EvidenceError, match="more than"):
        from_tags({MEASUREMENTS_TAG: bomb, DECISION_TAG: bomb})


def test_evidence_that_no_tag_holds_is_refused() -> None:
    with pytest.raises(EvidenceError, match="does not fit"):
        to_tags(SignedPair(random.Random(1).randbytes(7_000_000), b""))
