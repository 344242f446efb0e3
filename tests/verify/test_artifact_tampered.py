"""What somebody changed in a quantized checkpoint is named, and nothing else is."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quantguard.core.artifact import Answer, Kind
from quantguard.core.errors import QuantGuardError
from tests.verify.artifacts import (
    DOWN,
    NORM,
    SCHEMES,
    Makes,
    Tensors,
    altered,
    maker,
    one_code,
    packed_state,
    proved,
    quantize,
    rewritten,
    state_of,
    told,
)

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Makes:
    return maker(tmp_path_factory.mktemp("artifacts"))


def one_scale(tensors: Tensors) -> None:
    scales = tensors[DOWN.replace(".weight", ".SCB") if tensors[DOWN].dtype == torch.int8 else f"{DOWN}.absmax"]
    if scales.dtype == torch.uint8:
        scales[0] = (int(scales[0]) + 4) % 256
    else:
        scales[0] = torch.nextafter(scales[0], torch.tensor(9.0))


def one_ulp(tensors: Tensors) -> None:
    tensors[NORM][2] = torch.nextafter(tensors[NORM][2], torch.tensor(9.0))


def swapped(tensors: Tensors) -> None:
    """Two weights of one shape, with all that lies beside them."""
    gate = UP.replace("up_proj", "gate_proj")
    stem = UP.removesuffix("weight")
    for name in [name for name in tensors if name.startswith(stem)]:
        other = name.replace("up_proj", "gate_proj")
        tensors[name], tensors[other] = tensors[other], tensors[name]
    assert gate in tensors


def extra(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.down_proj.bias"] = torch.ones(40)


def missing(tensors: Tensors) -> None:
    del tensors[NORM]


def unscaled(tensors: Tensors) -> None:
    del tensors[DOWN.replace(".weight", ".SCB") if tensors[DOWN].dtype == torch.int8 else f"{DOWN}.absmax"]


TAMPERED: dict[Callable[[Tensors], None], set[tuple[Kind, str]]] = {
    one_code: {(Kind.CODES, DOWN)},
    one_scale: {(Kind.SCALES, DOWN)},
    one_ulp: {(Kind.VALUES, NORM)},
    swapped: {(kind, UP.replace("up", name)) for kind in (Kind.CODES, Kind.SCALES) for name in ("up", "gate")},
    extra: {(Kind.EXTRA, "model.layers.0.mlp.down_proj.bias")},
    missing: {(Kind.MISSING, NORM)},
    unscaled: {(Kind.LAYOUT, DOWN)},
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("change", TAMPERED, ids=lambda change: change.__name__)
def test_what_was_changed_is_named_and_nothing_else(
    made: Makes, tmp_path: Path, change: Callable[[Tensors], None], scheme: str
) -> None:
    proof = proved(made("llama"), altered(made("llama", scheme), tmp_path / "artifact", change))
    assert proof.answer is Answer.DIFFERS
    assert told(proof) <= TAMPERED[change]
    assert {where for _, where in told(proof)} == {where for _, where in TAMPERED[change]}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_changed_code_is_counted_and_located(made: Makes, tmp_path: Path, scheme: str) -> None:
    proof = proved(made("llama"), altered(made("llama", scheme), tmp_path / "artifact", one_code))
    (difference,) = proof.differences
    assert (difference.count, difference.of, difference.first) == (1, 40 * 97, (0, 0))


@pytest.mark.parametrize("part", ["quant_map", "nested_quant_map", "nested_absmax"])
def test_a_tampered_table_is_caught(made: Makes, tmp_path: Path, part: str) -> None:
    def change(tensors: Tensors) -> None:
        table = tensors[f"{DOWN}.{part}"]
        table[-1] = torch.nextafter(table[-1], torch.tensor(9.0))

    proof = proved(made("llama"), altered(made("llama", "nf4-double"), tmp_path / "artifact", change))
    kind = Kind.LEVELS if part.endswith("map") else Kind.SCALES
    assert told(proof) == {(kind, DOWN)}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quant_type", "fp4"),
        ("blocksize", 128),
        ("blocksize", 64.0),
        ("blocksize", True),
        ("dtype", "float16"),
        ("dtype", "__class__"),
        ("shape", [97, 40]),
        ("shape", []),
        ("shape", [40, 97, -1]),
        ("nested_blocksize", 64),
        ("nested_offset", 1),
        ("nested_offset", float("nan")),
        ("nested_dtype", "float64"),
        ("more", 1),
    ],
)
def test_a_state_that_is_not_the_stock_one_is_told(made: Makes, tmp_path: Path, key: str, value: object) -> None:
    def change(tensors: Tensors) -> None:
        name, state = state_of(tensors)
        tensors[name] = packed_state(state | {key: value})

    proof = proved(made("llama"), altered(made("llama", "nf4-double"), tmp_path / "artifact", change))
    assert told(proof) == {(Kind.LAYOUT, DOWN)}
    assert key in proof.differences[0].message


@pytest.mark.parametrize("text", ["", "[]", "{", '{"blocksize": 64, "blocksize": 64}', "[" * 4000, "x" * 100_000])
def test_a_state_that_is_no_json_is_told(made: Makes, tmp_path: Path, text: str) -> None:
    def change(tensors: Tensors) -> None:
        name, _ = state_of(tensors)
        tensors[name] = packed_state(text or " ")

    proof = proved(made("llama"), altered(made("llama", "nf4"), tmp_path / "artifact", change))
    assert told(proof) == {(Kind.LAYOUT, DOWN)}


def test_an_offset_of_the_scales_that_is_not_their_mean_is_told(made: Makes, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        name, state = state_of(tensors)
        tensors[name] = packed_state(state | {"nested_offset": state["nested_offset"] * 1.01})

    proof = proved(made("llama"), altered(made("llama", "nf4-double"), tmp_path / "artifact", change))
    assert told(proof) == {(Kind.SCALES, DOWN)}


def test_a_quantizer_that_rounds_at_random_is_told_for_every_tensor(made: Makes, tmp_path: Path) -> None:
    torch.manual_seed(3)

    def change(tensors: Tensors) -> None:
        for weight in tensors.values():
            if weight.dtype == torch.int8:
                up = torch.randint(0, 2, weight.shape, dtype=torch.int8)
                weight.add_(up * (weight < 127) * (weight > -127))

    proof = proved(made("llama"), altered(made("llama", "int8"), tmp_path / "artifact", change))
    assert {difference.kind for difference in proof.differences} == {Kind.CODES}
    assert len(proof.differences) == proof.quantized == 7
    assert all(difference.count > difference.of / 3 for difference in proof.differences)


@pytest.mark.parametrize("name", [NORM, DOWN])
def test_a_tensor_that_was_hidden_from_the_loader_is_told(made: Makes, tmp_path: Path, name: str) -> None:
    def change(tensors: Tensors) -> None:
        for key in [key for key in tensors if key.startswith(name.removesuffix("weight"))]:
            tensors[f"transformer.{key}"] = tensors.pop(key)

    proof = proved(made("llama"), altered(made("llama", "int8"), tmp_path / "artifact", change))
    assert {(Kind.EXTRA, f"transformer.{name}"), (Kind.MISSING, name)} <= told(proof)


@pytest.mark.parametrize("threshold", [0, 5.5])
def test_a_threshold_that_nobody_measured_is_told(made: Makes, tmp_path: Path, threshold: float) -> None:
    def change(config: dict[str, Any]) -> None:
        config["quantization_config"]["llm_int8_threshold"] = threshold

    proof = proved(made("llama"), rewritten(made("llama", "int8"), tmp_path / "artifact", "config.json", change))
    assert told(proof) == {(Kind.SETTINGS, "config.json")}


def test_any_byte_of_the_artefact_counts(made: Makes, tmp_path: Path) -> None:
    """Random bytes are overwritten: every run ends in a typed error or in a difference, but for padding and zeros."""
    chance = random.Random(7)
    artifact = shutil.copytree(made("llama", "nf4-double"), tmp_path / "artifact")
    weights = artifact / "model.safetensors"
    whole = weights.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for trial in range(40):
        data = bytearray(whole)
        at = chance.randrange(header) if trial % 2 else chance.randrange(header, len(data))
        data[at] ^= 1 << chance.randrange(8)
        weights.write_bytes(data)
        try:
            proof = proved(made("llama"), artifact)
        except QuantGuardError as error:
            assert error.exit_code in (1, 2)  # noqa: PT017
        else:
            assert proof.answer is not Answer.PROVED or 0 < at < header, at


def test_a_square_conv1d_in_the_wrong_orientation_is_told(made: Makes, tmp_path: Path) -> None:
    name = "transformer.h.0.attn.c_proj.weight"

    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[name].T.contiguous()

    proof = proved(made("gpt2"), altered(made("gpt2", "int8"), tmp_path / "artifact", change))
    assert told(proof) == {(Kind.CODES, name)}


def test_codes_that_the_loader_would_take_for_weights_are_told(made: Makes, tmp_path: Path) -> None:
    vetted = made("llama")
    artifact = quantize(vetted, tmp_path / "artifact", "int8", llm_int8_skip_modules=[])
    assert proved(vetted, artifact).answer is Answer.PROVED
    attacked = rewritten(artifact, tmp_path / "attacked", "config.json", own_choice)
    assert told(proved(vetted, attacked)) == {(Kind.SETTINGS, "lm_head.weight")}


def own_choice(config: dict[str, Any]) -> None:
    config["quantization_config"]["llm_int8_skip_modules"] = None
