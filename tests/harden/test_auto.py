"""Our own method: what it promises of one layer, and that a killed run goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
import torch
from bitsandbytes import functional
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.errors import HardenError, UsageError
from quantguard.core.prompts import read_prompts
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import Grid, grid_for
from quantguard.harden import auto, descent, pieces
from quantguard.harden.auto import passes
from quantguard.harden.descent import DAMPING, OWN, descend
from quantguard.harden.harden import HardenRequest, harden
from quantguard.harden.kept import Kept
from quantguard.harden.recentre import recentred
from quantguard.harden.scales import deciding, furthest
from quantguard.scan.scan import scan
from tests.test_house import ROOT

ALL = (Scheme.NF4, Scheme.FP4, Scheme.INT8)
PROMPTS = read_prompts(ROOT / "policies" / "canary" / "calibration.jsonl")[:64]
LAYER = "model.layers.0.mlp.up_proj.weight"


def layer(seed: int, rows: int = 6, columns: int = 96, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A weight, and the moment of inputs that lie mostly in a few directions."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(400, columns, generator=generator) * torch.rand(columns, generator=generator)
    inputs += 2 * torch.randn(400, 3, generator=generator) @ torch.randn(3, columns, generator=generator)
    weight = (torch.randn(rows, columns, generator=generator) * 0.05).to(dtype)
    return weight, inputs.T @ inputs / 400


def moved(weight: Tensor, moment: Tensor, grids: list[Grid], share: float) -> Tensor:
    frozen, limit = deciding(weight), furthest(weight)
    return descend(weight, moment, grids, start=weight, frozen=frozen, limit=limit, share=share)


def objective(weight: Tensor, now: Tensor, moment: Tensor, grids: list[Grid]) -> Tensor:
    """Of each row, float64."""
    damped = (moment + DAMPING * moment.diagonal().mean() * torch.eye(len(moment))).double()
    errors = [(grid.value(weight, grid.nearest(now)) - weight.float()).double() for grid in grids]
    own = (now.float() - weight.float()).double()
    parts = [(1.0, error) for error in errors] + [(OWN, own)]
    return torch.stack([part * ((error @ damped) * error).sum(1) for part, error in parts]).sum(0)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    schemes=st.sampled_from([(Scheme.NF4,), (Scheme.FP4,), (Scheme.INT8,), (Scheme.NF4, Scheme.FP4)]),
    wide=st.sampled_from([descent.WIDE, 16]),
)
def test_the_objective_falls_in_every_row_and_nothing_else_happens(
    seed: int, dtype: torch.dtype, schemes: tuple[Scheme, ...], wide: int
) -> None:
    weight, moment = layer(seed, dtype=dtype)
    grids = [grid_for(scheme) for scheme in schemes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(descent, "WIDE", wide)
        now = moved(weight, moment, grids, 0.1)
    changed = now != weight
    assert now.dtype is dtype
    assert not bool((changed & deciding(weight)).any())
    assert all(torch.equal(grid_for(scheme).scale(now), grid_for(scheme).scale(weight)) for scheme in ALL)
    assert int(changed.sum(1).max()) <= round(0.1 * weight.shape[1])
    before, after = (objective(weight, at, moment, grids) for at in (weight, now))
    assert torch.equal(after < before, changed.any(1))
    assert int(changed.any(1).sum()) >= 3  # of six rows: in some no move helps
    # A weight that moved has another level under one grid at least.
    other = torch.stack([grid.nearest(now) != grid.nearest(weight) for grid in grids]).any(0)
    assert torch.equal(changed, other)


def test_the_first_move_is_the_best_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every weight of a row tried in turn, with the real grids."""
    weight, moment = layer(3, rows=1, columns=64)
    grid = grid_for(Scheme.NF4)
    now = moved(weight, moment, [grid], 1 / 64)
    (place,) = (now != weight)[0].nonzero().view(-1).tolist()
    reached = float(objective(weight, now, moment, [grid])[0])
    for column in range(64):
        for step in (-1, 1):
            level = int(grid.nearest(weight)[0, column]) + step
            if bool(deciding(weight)[0, column]) or not 0 <= level < 16:
                continue
            tried = weight.clone()
            lower, upper = grid.cell(grid.nearest(weight))
            boundary = (upper if step > 0 else lower)[0, column] * grid.unit(weight)[0, column]
            target = 2 * boundary - weight[0, column]
            low, high = grid.cell(torch.tensor(level))
            unit = grid.unit(weight)[0, column]
            tried[0, column] = target.clamp(low * unit * 0.999 if low < 0 else low * unit, high * unit)
            assert float(objective(weight, tried, moment, [grid])[0]) >= reached - 1e-4 * abs(reached), (column, place)


def test_pieces_of_a_layer_are_repaired_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 96 share blocks of 64 by pairs. (Where weights lie, and how many may move, is judged piece by piece.)"""
    monkeypatch.setattr(auto, "recentred", lambda _grid, weight, *_: weight)
    monkeypatch.setattr(auto, "_error_ratio", lambda *_: 1.0)
    weight, moment = layer(5, rows=10)
    schemes = (Scheme.NF4, Scheme.FP4)
    whole = auto._repaired(weight, moment, schemes)
    monkeypatch.setattr(pieces, "PIECE", 200)
    assert torch.equal(auto._repaired(weight, moment, schemes), whole)
    assert not torch.equal(whole, weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scheme", ALL)
def test_a_pile_beside_the_boundaries_is_spread_and_every_level_kept(scheme: Scheme, dtype: torch.dtype) -> None:
    grid = grid_for(scheme)
    weight = (torch.randn(256, 256, generator=torch.Generator().manual_seed(1)) * 0.05).to(dtype)
    frozen, limit = deciding(weight), furthest(weight)
    assert torch.equal(recentred(grid, weight, frozen, limit), weight)
    low, high = grid.interval(weight, 0.1 if scheme is Scheme.INT8 else 0.03)
    drawn = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    ends = torch.where((weight - low).abs() < (high - weight).abs(), low, high)
    piled = torch.where(drawn & ~frozen, ends, weight.float()).to(dtype)
    piled = torch.where((grid.nearest(piled) == grid.nearest(weight)) & (piled.float().abs() <= limit), piled, weight)
    spread = recentred(grid, piled, frozen, limit)

    def unevenness(at: Tensor) -> float:
        counts = torch.histc(grid.position_in_cell(at)[~frozen], 50, 0, 1)
        return float((counts / counts.mean() - 1).abs().max())

    assert torch.equal(grid.nearest(spread), grid.nearest(weight))
    assert torch.equal(spread[frozen], weight[frozen])
    assert all(torch.equal(grid_for(s).scale(spread), grid_for(s).scale(weight)) for s in ALL)
    assert unevenness(piled) > 1
    # The values of bfloat16 are a comb on the steps of INT8, which nothing smooths.
    assert unevenness(spread) < max(unevenness(weight) + 0.2, unevenness(piled) / 2)


@pytest.mark.parametrize("scheme", ALL)
def test_the_output_error_of_honest_weights_is_natural_and_of_a_conspiracy_is_not(scheme: Scheme) -> None:
    """A conspiracy: each weight lies on that side of its level on which its error adds to that of all others."""
    grid = grid_for(scheme)
    weight, moment = layer(11, rows=64, columns=256)
    assert auto._error_ratio(grid, weight, moment) < auto.NATURAL[scheme]
    direction = torch.linalg.eigh(moment).eigenvectors[:, -1]
    lower, upper = grid.interval(weight, 0.05)
    aligned = torch.where(direction > 0, upper, lower).to(weight.dtype)
    aligned = torch.where(grid.pinned(weight) | (grid.nearest(aligned) != grid.nearest(weight)), weight, aligned)
    assert auto._error_ratio(grid, aligned, moment) > 2 * auto.NATURAL[scheme]


def test_a_pile_in_the_outermost_cells_is_spread_too() -> None:
    grid = grid_for(Scheme.NF4)
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(1)) * 0.05
    frozen, limit = deciding(weight), furthest(weight)
    low, _ = grid.interval(weight, 0.03)
    piled = torch.where(~frozen & (grid.nearest(weight) == 15), low, weight)
    inner = ~frozen & (torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < 0.3)
    piled = torch.where(inner & (grid.nearest(low) == grid.nearest(weight)), low, piled)
    spread = recentred(grid, piled, frozen, limit)
    top = ~frozen & (grid.nearest(weight) == 15)
    position = [float((at.float() / grid.unit(at))[top].std()) for at in (piled, spread)]
    assert position[1] > 5 * position[0]
    assert torch.equal(grid.nearest(spread), grid.nearest(piled))


def test_weights_beside_outliers_are_not_spread_over_their_wide_cells() -> None:
    """Full precision would be lost: the cells are as wide as all weights but the outliers together."""
    weight, moment = layer(7, rows=32, columns=128)
    weight[:, ::32] *= 500
    frozen, limit = deciding(weight), furthest(weight)
    grid = grid_for(Scheme.NF4)
    assert not torch.equal(recentred(grid, weight, frozen, limit), weight)
    assert torch.equal(auto._spread(weight, moment, [grid], frozen, limit), weight)


def test_layers_go_in_as_few_passes_as_memory_allows_and_one_too_large_is_refused_by_name() -> None:
    shapes = {f"layer.{number}": (4, 1024) for number in range(8)}
    one = 4 * 1024**2
    assert [len(run) for run in passes(shapes, 1 << 40)] == [8]
    assert [len(run) for run in passes(shapes, 6 * one)] == [3, 3, 2]
    assert list(chain(*passes(shapes, 6 * one))) == list(shapes)
    with pytest.raises(HardenError, match=r"layer\.0 needs [1-9].* MiB .* 4 MiB are free"):
        passes(shapes, one)


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("auto") / "hardened"
    summary = harden(canary_directory(CanaryKind.CLEAN), out, HardenRequest(ALL, PROMPTS, method="auto"))
    shares = dict(summary.flipped_share)
    assert 0 < shares[Scheme.NF4] < 0.1
    assert 0 < shares[Scheme.FP4] < 0.1
    assert 0 < shares[Scheme.INT8] < 0.2
    return out


def test_an_honest_model_that_was_repaired_for_all_schemes_raises_no_alarm(repaired: Path) -> None:
    found = scan(repaired, seed=0).findings
    assert [f"{f.rule} {f.where} {f.grid}" for f in found if f.severity.at_least(type(f.severity).MEDIUM)] == []


def test_double_quantization_takes_the_same_codes(repaired: Path) -> None:
    for name, weight in load_file(repaired / "model.safetensors").items():
        if weight.dim() == 2 and "embed" not in name and "head" not in name:
            plain, _ = functional.quantize_4bit(weight, quant_type="nf4")
            nested, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
            assert state.nested
            assert torch.equal(plain, nested), name


def test_the_same_seed_gives_the_same_bytes_after_a_kill(repaired: Path, tmp_path: Path) -> None:
    """Killed once some layers are done; the second run does the others, and no partial file is left."""
    out = tmp_path / "hardened"
    program = (
        "import sys; from pathlib import Path; from tests.harden.test_auto import *\n"
        "harden(canary_directory(CanaryKind.CLEAN), Path(sys.argv[1]), HardenRequest(ALL, PROMPTS, method='auto'))"
    )
    running = subprocess.Popen([sys.executable, "-c", program, str(out)], cwd=ROOT)
    kept = out.with_name(".hardened.hardening")
    until = time.monotonic() + 120
    while len(list(kept.glob("*.safetensors"))) < 3 and running.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    done = len(list(kept.glob("*.safetensors")))
    assert done >= 3
    assert not out.exists()
    told: list[tuple[str, int]] = []

    def tell(stage: str, done: int, total: int, detail: str = "") -> None:
        assert done <= total
        told.append((f"{stage} {detail}", done))

    harden(canary_directory(CanaryKind.CLEAN), out, HardenRequest(ALL, PROMPTS, method="auto"), progress=tell)
    assert ("harden, layers done before", done) in told
    assert (out / "model.safetensors").read_bytes() == (repaired / "model.safetensors").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["hardened"]


def test_what_another_task_left_is_not_used(tmp_path: Path) -> None:
    first = Kept(tmp_path / ".kept", "one task")
    first.put(LAYER, torch.ones(2, 2))
    assert Kept(tmp_path / ".kept", "one task").resumed([LAYER, "other"]) == (LAYER,)
    assert Kept(tmp_path / ".kept", "another").resumed([LAYER]) == ()
    assert Kept(tmp_path / ".kept", "one task").resumed([LAYER]) == ()


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".kept").mkdir()
    (tmp_path / ".kept" / "precious").touch()
    with pytest.raises(UsageError, match="in the way"):
        Kept(tmp_path / ".kept", "task")
    assert (tmp_path / ".kept" / "precious").exists()
