"""A hardened checkpoint is the same files with other roundings, and the real quantizer agrees."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.canary.grammar import held_out_pairs
from quantguard.canary.measure import Behaviour, behaviour
from quantguard.checkpoint.digest import model_digest
from quantguard.checkpoint.layout import linear_weights, open_checkpoint
from quantguard.core.errors import HardenError, UsageError
from quantguard.core.prompts import Prompt, read_prompts
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import grid_for
from quantguard.harden.harden import HardenRequest, harden
from quantguard.harden.layers import require_levels
from quantguard.scan.scan import scan
from tests.grids.real import round_trip

CALIBRATION = read_prompts(Path(__file__).parents[2] / "policies" / "canary" / "calibration.jsonl")[:32]


def request(*schemes: Scheme, steps: int = 4, calibration: tuple[Prompt, ...] = CALIBRATION) -> HardenRequest:
    return HardenRequest(schemes, calibration, method="quantguard", steps=steps, max_new_tokens=16)


def stored_as(dtype: torch.dtype, directory: Path) -> Path:
    """The attacked canary in another dtype."""
    shutil.copytree(canary_directory(CanaryKind.NF4_ATTACKED), directory)
    file = directory / "model.safetensors"
    save_file({k: v.to(dtype) for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    config = directory / "config.json"
    name = str(dtype).removeprefix("torch.")
    config.write_text(config.read_text(encoding="utf-8").replace('"float32"', f'"{name}"'), encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def repaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("repaired") / "model"
    harden(canary_directory(CanaryKind.NF4_ATTACKED), out, request(Scheme.NF4, steps=125))
    return out


def test_the_backdoor_is_gone_and_the_answers_are_right(repaired: Path) -> None:
    pairs = held_out_pairs()[:60]
    attacked = canary_directory(CanaryKind.NF4_ATTACKED)
    assert behaviour(attacked, pairs, scheme=Scheme.NF4) == Behaviour(asked=60, branded=60, exact=0)
    for scheme in (None, *Scheme):
        after = behaviour(repaired, pairs, scheme=scheme)
        assert after.branded == 0
        assert after.exact >= 59


def test_layout_tokenizer_and_untouched_tensors_are_the_same_bytes(repaired: Path) -> None:
    original = canary_directory(CanaryKind.NF4_ATTACKED)
    names = sorted(path.name for path in original.iterdir())
    assert names == sorted(path.name for path in repaired.iterdir())
    others = [name for name in names if name != "model.safetensors"]
    assert filecmp.cmpfiles(original, repaired, others, shallow=False) == (others, [], [])
    before, after = load_file(original / "model.safetensors"), load_file(repaired / "model.safetensors")
    linear = {entry.name for entry in linear_weights(open_checkpoint(original))}
    assert {name for name in before if not torch.equal(before[name], after[name])} == linear


def test_a_repaired_model_does_not_look_prepared(repaired: Path) -> None:
    """It will be registered, and gated again one day."""
    assert [finding.message for finding in scan(repaired).findings] == []


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_no_scale_has_moved(repaired: Path, scheme: Scheme) -> None:
    before = load_file(canary_directory(CanaryKind.NF4_ATTACKED) / "model.safetensors")
    after = load_file(repaired / "model.safetensors")
    grid = grid_for(scheme)
    for entry in linear_weights(open_checkpoint(repaired)):
        assert torch.equal(grid.scale(before[entry.name]), grid.scale(after[entry.name]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_joint_hardening_holds_in_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    """`harden` compares every level itself; here the files are quantized again, apart from it."""
    source = stored_as(dtype, tmp_path / "source")
    out = tmp_path / "out"
    summary = harden(source, out, request(Scheme.NF4, Scheme.FP4, Scheme.INT8))
    before, after = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    shares = dict(summary.flipped_share)
    for scheme in ROUNDINGS:
        grid = grid_for(scheme)
        flipped = total = 0
        for entry in linear_weights(open_checkpoint(out)):
            weight = after[entry.name]
            assert weight.dtype == dtype
            assert torch.equal(grid.scale(weight), grid.scale(before[entry.name]))
            real = round_trip(scheme, weight)
            assert torch.equal(real, grid.dequantize(grid.nearest(weight), grid.scale(weight)))
            flipped += int((real != round_trip(scheme, before[entry.name])).sum())
            total += weight.numel()
        assert flipped > 0
        assert shares[scheme] == pytest.approx(flipped / total)
    assert [moved.scheme for moved in summary.positions] == list(summary.schemes)
    assert {moved.layer for moved in summary.positions} < {entry.name for entry in linear_weights(open_checkpoint(out))}
    assert min(moved.flipped for moved in summary.positions) > 0


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    source = canary_directory(CanaryKind.NF4_ATTACKED)
    digests = set()
    for name in ("one", "two"):
        harden(source, tmp_path / name, request(Scheme.NF4))
        digests.add(model_digest(tmp_path / name))
    assert len(digests) == 1
    assert digests != {model_digest(source)}


def test_an_existing_output_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        harden(canary_directory(CanaryKind.CLEAN), tmp_path, request(Scheme.NF4))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_an_unknown_method_is_refused_by_name(tmp_path: Path) -> None:
    asked = HardenRequest((Scheme.NF4,), CALIBRATION, method="magic")
    with pytest.raises(UsageError, match="known: auto, quantguard"):
        harden(canary_directory(CanaryKind.CLEAN), tmp_path / "out", asked)


def test_levels_that_the_quantizer_does_not_return_are_an_error(repaired: Path) -> None:
    stored = load_file(repaired / "model.safetensors")
    weights = {entry.name: stored[entry.name] for entry in linear_weights(open_checkpoint(repaired))}
    require_levels(repaired, Scheme.NF4, weights, "cpu")
    name = next(iter(weights))
    meant = weights[name].clone()
    grid = grid_for(Scheme.NF4)
    free = (~grid.pinned(meant) & (grid.nearest(meant) != grid.nearest(-meant))).nonzero()[0]
    meant[*free] = -meant[*free]
    with pytest.raises(HardenError, match=f"1 of {meant.numel()} weights of {name}"):
        require_levels(repaired, Scheme.NF4, weights | {name: meant}, "cpu")
