"""Codes against the library's: which differences are wrong, which another device may make, which are none."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.functional import quantize_4bit

from quantguard.core.scheme import Scheme
from quantguard.verify.artifact_codes import (
    Tally,
    compare_four_bit,
    compare_int8,
    compare_nested,
    four_bit,
    int8,
    is_mean,
    nested,
)

FOUR_BIT = [Scheme.NF4, Scheme.FP4]


def weight(rows: int = 7, columns: int = 65, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def with_code(packed: torch.Tensor, at: int, code: int) -> torch.Tensor:
    changed = packed.clone()
    old = int(changed[at // 2])
    changed[at // 2] = (old & 15) | (code << 4) if at % 2 == 0 else (old & 0xF0) | code
    return changed


@pytest.mark.parametrize("at", [0, 1, 63, 64, 454])
@pytest.mark.parametrize("scheme", FOUR_BIT, ids=lambda scheme: scheme.value)
def test_any_other_level_is_wrong_and_found_where_it_is(scheme: Scheme, at: int) -> None:
    w = weight()
    truth = four_bit(w, scheme)
    packed = truth.packed
    own = int(packed[at // 2] >> 4 if at % 2 == 0 else packed[at // 2] & 15)
    for code in range(16):
        tally = compare_four_bit(with_code(packed, at, code), truth, w)
        same = truth.levels[code] == truth.levels[own]
        assert tally == (Tally(0, 0, -1) if same else Tally(1, 0, at))


def test_the_second_half_of_the_last_byte_is_padding() -> None:
    w = weight(3, 3)
    truth = four_bit(w, Scheme.NF4)
    assert compare_four_bit(with_code(truth.packed, 9, 12), truth, w) == Tally(0, 0, -1)
    assert compare_four_bit(with_code(truth.packed, 8, 12), truth, w).wrong == 1


def test_both_zeros_of_fp4_are_one() -> None:
    w = torch.zeros(2, 64)
    w[:, 0], w[:, 1] = 1, -0.001
    truth = four_bit(w, Scheme.FP4)
    for code in (0, 8):
        assert compare_four_bit(with_code(truth.packed, 1, code), truth, w) == Tally(0, 0, -1)


@pytest.mark.parametrize("scheme", FOUR_BIT, ids=lambda scheme: scheme.value)
def test_every_code_of_a_block_of_zeros_is_zero(scheme: Scheme) -> None:
    w = torch.zeros(2, 64)
    truth = four_bit(w, scheme)
    assert compare_four_bit(torch.full_like(truth.packed, 0x3C), truth, w) == Tally(0, 0, -1)


@pytest.mark.parametrize(("distance", "tally"), [(0, Tally(0, 1, 1)), (8e-7, Tally(0, 1, 1)), (3e-6, Tally(1, 0, 1))])
@pytest.mark.parametrize("scheme", FOUR_BIT, ids=lambda scheme: scheme.value)
def test_only_beside_the_boundary_may_a_code_be_another_devices(scheme: Scheme, distance: float, tally: Tally) -> None:
    levels = four_bit(torch.ones(1, 64), scheme).levels
    ascending = levels.sort().values
    low, high = ascending[-3:-1].tolist()
    w = torch.zeros(1, 64)
    w[0, 0], w[0, 1] = 1, (low + high) / 2 + distance
    truth = four_bit(w, scheme)
    own = float(levels[int(truth.packed[0] & 15)])
    other = int((levels == (low if own == high else high)).nonzero()[0])
    assert compare_four_bit(with_code(truth.packed, 1, other), truth, w) == tally
    two_away = int((levels == ascending[2]).nonzero()[0])
    assert compare_four_bit(with_code(truth.packed, 1, two_away), truth, w) == Tally(1, 0, 1)


def test_what_lies_between_is_counted_across_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantguard.verify.artifact_codes._CHUNK", 64)
    w = weight(50, 40)
    for scheme in FOUR_BIT:
        truth, other = four_bit(w, scheme), four_bit(-w, scheme)
        ours, theirs = (
            side.levels[torch.stack((side.packed >> 4, side.packed & 15), dim=1).reshape(-1).long()]
            for side in (truth, other)
        )
        assert compare_four_bit(other.packed, truth, w).wrong == int((ours != theirs).sum())
    codes, absmax = int8(w)
    assert compare_int8(-codes, (codes, absmax), w).wrong == int((codes != 0).sum())


def test_int8_knows_wrong_codes_edges_and_rows_of_zeros() -> None:
    w = torch.zeros(3, 4)
    w[0, 0], w[0, 1], w[0, 2] = 127, 3.5, 9
    w[1, 0] = 1
    codes, absmax = int8(w)
    assert codes[0, 1] == 4  # half to even

    def changed(row: int, column: int, code: int) -> Tally:
        other = codes.clone()
        other[row, column] = code
        return compare_int8(other, (codes, absmax), w)

    assert changed(0, 1, 3) == Tally(0, 1, 1)
    assert changed(0, 1, 5) == Tally(1, 0, 1)
    assert changed(0, 2, 8) == Tally(1, 0, 2)
    assert changed(2, 3, 7) == Tally(0, 0, -1)


@pytest.mark.parametrize("rows", [3, 700])
def test_nested_scales_follow_from_the_offset(rows: int) -> None:
    w = weight(rows, 64)
    _, state = quantize_4bit(w, compress_statistics=True, quant_type="nf4")
    absmax = four_bit(w, Scheme.NF4).absmax
    offset = float(state.offset)
    assert is_mean(offset, absmax)
    assert not is_mean(offset * 1.00001, absmax)
    assert not is_mean(offset + 1e-12, absmax)  # no float32
    truth = nested(absmax, offset, "cpu")
    assert torch.equal(truth.codes, state.absmax)
    assert torch.equal(truth.absmax, state.state2.absmax)
    assert torch.equal(truth.levels, state.state2.code)
    assert compare_nested(state.absmax, truth, absmax, offset) == Tally(0, 0, -1)
    wrong = state.absmax.clone()
    wrong[2] = 255 - wrong[2]
    assert compare_nested(wrong, truth, absmax, offset) == Tally(1, 0, 2)


def test_the_nearest_nested_level_is_right_although_the_cpu_kernel_takes_another() -> None:
    """Fails on the day the library is mended: then the tolerance of `compare_nested` may go."""
    generator = torch.Generator().manual_seed(5)
    absmax = torch.rand(100_000, generator=generator) * 0.1 + 0.02
    offset = float(absmax.mean())
    truth = nested(absmax, offset, "cpu")
    x = (absmax - offset) / truth.absmax.repeat_interleave(256)[: absmax.numel()]
    bounds = (truth.levels[1:] + truth.levels[:-1]) / 2
    nearest = torch.bucketize(x, bounds).to(torch.uint8)
    assert 20 < int((nearest != truth.codes).sum()) < 1000
    assert compare_nested(nearest, truth, absmax, offset) == Tally(0, 0, -1)
    # A device whose kernel takes the nearest cannot tell what the table of another did.
    other_device = type(truth)(nearest, truth.absmax, truth.levels)
    tally = compare_nested(truth.codes, other_device, absmax, offset)
    assert tally.wrong == 0
    assert tally.edge > 20
