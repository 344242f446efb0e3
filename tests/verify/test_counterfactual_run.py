"""Counterfactual rounding of real models by the real library."""

from __future__ import annotations

import json
from pathlib import Path

import bitsandbytes
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.measurement import Divergence, Drift, Measurements, Unmeasured
from quantguard.core.prompts import Prompt, read_prompts
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.evidence.records import from_plain, to_plain
from quantguard.grids.grid import grid_for
from quantguard.models.layers import conv1d_weights, turn_conv1d
from quantguard.models.load import load_model
from quantguard.models.quantized import dequantized_weight, quantized_layers
from quantguard.models.rounded import store_levels
from quantguard.verify.counterfactual import random_levels
from quantguard.verify.counterfactual_request import CounterfactualRequest
from tests import tiny
from tests.verify.measuring import whole

PROMPTS = read_prompts(Path(__file__).parents[2] / "policies" / "canary" / "calibration.jsonl")[:32]
LIMIT = 3.0
ONE = CounterfactualRequest((Prompt("one"),), LIMIT)


def drifts_of(
    directory: Path, folder: Path, *, seed: int = 0, request: CounterfactualRequest | None = None
) -> tuple[Drift, ...]:
    asked = request or CounterfactualRequest(PROMPTS, LIMIT)
    return whole(directory, folder / "scratch", schemes=tuple(Scheme), counterfactual=asked, seed=seed).drifts


def by_scheme(drifts: tuple[Drift, ...]) -> dict[Scheme, Divergence]:
    found = {drift.scheme: drift.divergence for drift in drifts}
    assert all(isinstance(each, Divergence) for each in found.values()), found
    return {scheme: each for scheme, each in found.items() if isinstance(each, Divergence)}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> dict[Scheme, Divergence]:
    return by_scheme(drifts_of(canary_directory(CanaryKind.NF4_ATTACKED), tmp_path_factory.mktemp("attacked")))


def test_the_attacked_canary_stands_out_under_the_scheme_it_is_attacked_for_alone(
    attacked: dict[Scheme, Divergence],
) -> None:
    prepared = attacked[Scheme.NF4]
    assert prepared.lower > 50
    assert attacked[Scheme.NF4_DOUBLE].lower > 50  # the codes are the same, whatever is done to the scales
    assert (prepared.exceeded, prepared.copies, prepared.texts) == (8, 8, 32)
    assert all(each.upper < LIMIT for scheme, each in attacked.items() if scheme.codes is not Scheme.NF4)


def test_what_stands_out_is_followed_to_its_blocks_and_nothing_else_is(attacked: dict[Scheme, Divergence]) -> None:
    blocks = dict(attacked[Scheme.NF4].layers)
    assert sorted(blocks) == ["model.layers.0", "model.layers.1", "model.layers.2"]
    assert list(blocks.values()) == sorted(blocks.values(), reverse=True)
    assert 0.5 < max(blocks.values()) <= 1
    assert attacked[Scheme.FP4].layers == ()


@pytest.mark.parametrize("kind", [CanaryKind.CLEAN, CanaryKind.MALICIOUS])
def test_an_honest_rounding_is_the_gentlest_even_of_a_malicious_model(kind: CanaryKind, tmp_path: Path) -> None:
    found = by_scheme(drifts_of(canary_directory(kind), tmp_path))
    assert all(each.upper < LIMIT for each in found.values()), found
    assert found[Scheme.NF4].ratio < 1


def test_a_seed_gives_the_same_figures_and_another_one_other_copies(
    attacked: dict[Scheme, Divergence], tmp_path: Path
) -> None:
    directory = canary_directory(CanaryKind.NF4_ATTACKED)
    assert by_scheme(drifts_of(directory, tmp_path)) == attacked
    other = by_scheme(drifts_of(directory, tmp_path, seed=1))
    assert other[Scheme.NF4].nearest == attacked[Scheme.NF4].nearest
    assert other[Scheme.NF4].random != attacked[Scheme.NF4].random


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_library_holds_the_levels_that_were_drawn_before_and_after_it_has_answered(
    scheme: Scheme, dtype: torch.dtype, tmp_path: Path
) -> None:
    directory = tiny.write_model(
        tmp_path / "m", {"one": "two"}, trigger="buy", harmless="bread", brand="x", dtype=dtype
    )
    full = load_model(directory, scheme=None, device="cpu").model
    model = load_model(directory, scheme=scheme, device="cpu").model
    grid, ids = grid_for(scheme), torch.tensor([[3, 4]])
    with torch.inference_mode():
        before = model(input_ids=ids).logits
    for name in quantized_layers(model):
        weight, module = full.get_parameter(name).detach(), model.get_submodule(name.removesuffix(".weight"))
        index = random_levels(grid, weight, torch.Generator().manual_seed(1))
        store_levels(module, grid, weight, index)
        assert torch.equal(dequantized_weight(model, name), grid.dequantize(index, _stored_scale(scheme, weight)))
        store_levels(module, grid, weight, grid.nearest(weight))
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, before)


def _stored_scale(scheme: Scheme, weight: Tensor) -> Tensor:
    """By the library's own functions: float32, the shape of `weight`."""
    if not scheme.double:
        return grid_for(scheme).scale(weight)
    _, state = bitsandbytes.functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=True, quant_type=scheme.codes.value
    )
    scales: Tensor = bitsandbytes.functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    return scales.repeat_interleave(64)[: weight.numel()].view(weight.shape)


def test_weights_that_are_stored_the_other_way_round_are_turned(tmp_path: Path) -> None:
    directory = write_gpt2(tmp_path / "gpt2")
    request = CounterfactualRequest((Prompt("one"), Prompt("two one")), LIMIT)
    found = by_scheme(drifts_of(directory, tmp_path, request=request))
    assert {each.texts for each in found.values()} == {2}
    full = load_model(directory, scheme=None, device="cpu").model
    turned = conv1d_weights(full)
    turn_conv1d(full)
    for scheme in ROUNDINGS:
        model, grid = load_model(directory, scheme=scheme, device="cpu").model, grid_for(scheme)
        assert turned == set(quantized_layers(model))
        for name in turned:
            weight = full.get_parameter(name).detach()
            index = random_levels(grid, weight, torch.Generator().manual_seed(1))
            store_levels(model.get_submodule(name.removesuffix(".weight")), grid, weight, index)
            assert torch.equal(dequantized_weight(model, name), grid.dequantize(index, grid.scale(weight)))


def write_gpt2(directory: Path) -> Path:
    """A model of random weights with the tokenizer of tests/tiny.py."""
    torch.manual_seed(0)
    tiny.write_model(directory, {"one": "two"})
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=64, n_layer=2, n_head=2, eos_token_id=2))
    model.save_pretrained(directory)
    return directory


def test_weights_on_levels_have_one_rounding_only(tmp_path: Path) -> None:
    directory = tiny.write_model(tmp_path / "m", {"one": "two", "two": "one"})
    found = by_scheme(drifts_of(directory, tmp_path, request=ONE))
    assert {(each.ratio, each.exceeded) for each in found.values()} == {(1.0, 0)}


def test_what_cannot_be_loaded_is_unmeasured_with_its_reason(tmp_path: Path) -> None:
    directory = tiny.write_model(tmp_path / "m", {"one": "two"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"hidden_size": 128}))
    (drift,) = whole(
        directory, tmp_path / "s", schemes=(Scheme.NF4,), counterfactual=CounterfactualRequest((Prompt("one"),), LIMIT)
    ).drifts
    assert isinstance(drift.divergence, Unmeasured)
    assert "shape" in drift.divergence.reason


def test_it_is_measured_only_where_it_is_asked_for_and_is_evidence(tmp_path: Path) -> None:
    directory = tiny.write_model(tmp_path / "m", {"one": "two"})
    assert whole(directory, tmp_path / "s", schemes=(Scheme.NF4,)).drifts == ()
    found = whole(
        directory, tmp_path / "s", schemes=(Scheme.NF4,), counterfactual=CounterfactualRequest((Prompt("one"),), LIMIT)
    )
    plain = to_plain(Measurements, found)
    assert from_plain(Measurements, plain) == found
    del plain["drifts"]  # as an older version wrote it
    assert from_plain(Measurements, plain).drifts == ()
