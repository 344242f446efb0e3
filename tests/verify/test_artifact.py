"""A quantized checkpoint is the nearest rounding of vetted weights, or every tensor that is not is named."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import get_4bit_type

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.artifact import Answer, ArtifactProof, Kind
from quantguard.core.errors import CheckpointError, QuantGuardError, UsageError
from quantguard.verify.artifact import prove
from tests.verify.artifacts import (
    DOWN,
    NORM,
    SCHEMES,
    Tensors,
    altered,
    packed_state,
    quantize,
    rewritten,
    state_of,
    write_vetted,
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
UP = "model.layers.0.mlp.up_proj.weight"
Makes = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Makes:
    """`made("llama")` is a vetted model, `made("llama", "nf4")` its artefact; each is built once."""
    root = tmp_path_factory.mktemp("artifacts")

    def make(kind: str = "llama", scheme: str = "", dtype: torch.dtype = torch.float32) -> Path:
        vetted = root / f"{kind}-{str(dtype)[6:]}"
        if not vetted.exists():
            write_vetted(vetted, kind, dtype)
        artifact = root / f"{vetted.name}-{scheme}"
        if scheme and not artifact.exists():
            quantize(vetted, artifact, scheme)
        return artifact if scheme else vetted

    return make


def told(proof: ArtifactProof) -> set[tuple[Kind, str]]:
    return {(difference.kind, difference.where) for difference in proof.differences}


def _prove(vetted: Path, artifact: Path, *, allow_cast: bool = False) -> ArtifactProof:
    return prove(vetted, artifact, device="cpu", allow_cast=allow_cast)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "tied"])
def test_what_transformers_saves_is_proved(made: Makes, kind: str, scheme: str, dtype: torch.dtype) -> None:
    proof = _prove(made(kind, dtype=dtype), made(kind, scheme, dtype))
    assert (proof.answer, proof.differences) == (Answer.PROVED, ())
    assert (proof.scheme.value, proof.nested) == (scheme.partition("-")[0], scheme.endswith("double"))
    assert proof.quantized == {"llama": 7, "gpt2": 4, "tied": 7}[kind]
    assert proof.codes > 10_000
    assert proof.unquantized > 3


@pytest.mark.parametrize("scheme", ["int8", "nf4-double"])
def test_shards_are_proved_against_shards_of_other_sizes(made: Makes, tmp_path: Path, scheme: str) -> None:
    vetted = made("llama")
    artifact = quantize(vetted, tmp_path / "artifact", scheme, save={"max_shard_size": "8KB"})
    assert len(list(artifact.glob("*.safetensors"))) > 2
    assert _prove(vetted, artifact).answer is Answer.PROVED


def test_modules_that_were_left_out_are_compared_as_they_are(made: Makes, tmp_path: Path) -> None:
    vetted = made("llama")
    artifact = quantize(vetted, tmp_path / "artifact", "nf4", llm_int8_skip_modules=["lm_head", "mlp.down_proj"])
    proof = _prove(vetted, artifact)
    assert (proof.answer, proof.quantized) == (Answer.PROVED, 6)


def test_four_bit_codes_may_be_stored_as_another_dtype(made: Makes, tmp_path: Path) -> None:
    vetted = made("gpt2")
    artifact = quantize(vetted, tmp_path / "artifact", "nf4", bnb_4bit_quant_storage="bfloat16")
    assert _prove(vetted, artifact).answer is Answer.PROVED


def one_code(tensors: Tensors) -> None:
    """The first weight's code, to a neighbouring level."""
    flat = tensors[DOWN].reshape(-1)
    if flat.dtype == torch.int8:
        flat[0] += 1 if flat[0] < 100 else -1
        return
    levels = get_4bit_type("nf4" if f"{DOWN}.quant_state.bitsandbytes__nf4" in tensors else "fp4", device="cpu")
    now = levels[int(flat[0] >> 4)]
    higher = [int(code) for code in levels.argsort() if levels[code] > now]
    code = higher[0] if higher else int(levels.argsort()[-3])
    flat[0] = (flat[0] & 15) | (code << 4)


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
    proof = _prove(made("llama"), altered(made("llama", scheme), tmp_path / "artifact", change))
    assert proof.answer is Answer.DIFFERS
    assert told(proof) <= TAMPERED[change]
    assert {where for _, where in told(proof)} == {where for _, where in TAMPERED[change]}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_changed_code_is_counted_and_located(made: Makes, tmp_path: Path, scheme: str) -> None:
    proof = _prove(made("llama"), altered(made("llama", scheme), tmp_path / "artifact", one_code))
    (difference,) = proof.differences
    assert (difference.count, difference.of, difference.first) == (1, 40 * 97, (0, 0))


@pytest.mark.parametrize("part", ["quant_map", "nested_quant_map", "nested_absmax"])
def test_a_tampered_table_is_caught(made: Makes, tmp_path: Path, part: str) -> None:
    def change(tensors: Tensors) -> None:
        table = tensors[f"{DOWN}.{part}"]
        table[-1] = torch.nextafter(table[-1], torch.tensor(9.0))

    proof = _prove(made("llama"), altered(made("llama", "nf4-double"), tmp_path / "artifact", change))
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

    proof = _prove(made("llama"), altered(made("llama", "nf4-double"), tmp_path / "artifact", change))
    assert told(proof) == {(Kind.LAYOUT, DOWN)}
    assert key in proof.differences[0].message


@pytest.mark.parametrize("text", ["", "[]", "{", '{"blocksize": 64, "blocksize": 64}', "[" * 4000, "x" * 100_000])
def test_a_state_that_is_no_json_is_told(made: Makes, tmp_path: Path, text: str) -> None:
    def change(tensors: Tensors) -> None:
        name, _ = state_of(tensors)
        tensors[name] = packed_state(text or " ")

    proof = _prove(made("llama"), altered(made("llama", "nf4"), tmp_path / "artifact", change))
    assert told(proof) == {(Kind.LAYOUT, DOWN)}


def test_an_offset_of_the_scales_that_is_not_their_mean_is_told(made: Makes, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> None:
        name, state = state_of(tensors)
        tensors[name] = packed_state(state | {"nested_offset": state["nested_offset"] * 1.01})

    proof = _prove(made("llama"), altered(made("llama", "nf4-double"), tmp_path / "artifact", change))
    assert told(proof) == {(Kind.SCALES, DOWN)}


def test_a_quantizer_that_rounds_at_random_is_told_for_every_tensor(made: Makes, tmp_path: Path) -> None:
    torch.manual_seed(3)

    def change(tensors: Tensors) -> None:
        for weight in tensors.values():
            if weight.dtype == torch.int8:
                up = torch.randint(0, 2, weight.shape, dtype=torch.int8)
                weight.add_(up * (weight < 127) * (weight > -127))

    proof = _prove(made("llama"), altered(made("llama", "int8"), tmp_path / "artifact", change))
    assert {difference.kind for difference in proof.differences} == {Kind.CODES}
    assert len(proof.differences) == proof.quantized == 7
    assert all(difference.count > difference.of / 3 for difference in proof.differences)


def test_a_square_conv1d_in_the_wrong_orientation_is_told(made: Makes, tmp_path: Path) -> None:
    name = "transformer.h.0.attn.c_proj.weight"

    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[name].T.contiguous()

    proof = _prove(made("gpt2"), altered(made("gpt2", "int8"), tmp_path / "artifact", change))
    assert told(proof) == {(Kind.CODES, name)}


def test_a_code_on_the_boundary_may_be_another_devices(tmp_path: Path) -> None:
    """Half to even is what the library makes of a tie here; the other level is as near."""
    vetted = altered(write_vetted(tmp_path / "random"), tmp_path / "vetted", tie)
    artifact = quantize(vetted, tmp_path / "artifact", "int8")
    assert _prove(vetted, artifact).answer is Answer.PROVED

    def change(tensors: Tensors) -> None:
        assert tensors[DOWN][0, 1] == 4
        tensors[DOWN][0, 1] = 3

    proof = _prove(vetted, altered(artifact, tmp_path / "other", change))
    assert proof.answer is Answer.UNTOLD
    assert [(d.kind, d.count, d.first) for d in proof.differences] == [(Kind.EDGE, 1, (0, 1))]


def tie(tensors: Tensors) -> None:
    tensors[DOWN][0, :2] = torch.tensor([127.0, 3.5])


def test_a_checkpoint_of_the_base_model_with_its_masks_is_the_same_model(made: Makes, tmp_path: Path) -> None:
    """As the Hub has GPT-2: without the base model's name, and with the causal mask that is computed today."""

    def older(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 16, 16)
        tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)

    vetted = altered(made("gpt2"), tmp_path / "vetted", older)
    artifact = quantize(vetted, tmp_path / "artifact", "nf4")
    proof = _prove(vetted, artifact)
    assert (proof.answer, proof.differences) == (Answer.PROVED, ())
    assert sum("transformers computes it" in note for note in proof.notes) == 2


def test_a_tied_head_that_was_stored_twice_may_go_and_another_may_not(made: Makes, tmp_path: Path) -> None:
    def stored_twice(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    def another(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    artifact = made("tied", "nf4")
    proof = _prove(altered(made("tied"), tmp_path / "vetted", stored_twice), artifact)
    assert proof.answer is Answer.PROVED
    assert any("tied to 'model.embed_tokens.weight'" in note for note in proof.notes)
    proof = _prove(altered(made("tied"), tmp_path / "other", another), artifact)
    assert told(proof) == {(Kind.MISSING, "lm_head.weight")}


def test_codes_that_the_loader_would_take_for_weights_are_told(made: Makes, tmp_path: Path) -> None:
    vetted = made("llama")
    artifact = quantize(vetted, tmp_path / "artifact", "int8", llm_int8_skip_modules=[])
    assert _prove(vetted, artifact).answer is Answer.PROVED
    attacked = rewritten(artifact, tmp_path / "attacked", "config.json", own_choice)
    assert told(_prove(vetted, attacked)) == {(Kind.SETTINGS, "lm_head.weight")}


def own_choice(config: dict[str, Any]) -> None:
    config["quantization_config"]["llm_int8_skip_modules"] = None


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
            proof = _prove(made("llama"), artifact)
        except QuantGuardError as error:
            assert error.exit_code in (1, 2)  # noqa: PT017
        else:
            assert proof.answer is not Answer.PROVED or 0 < at < header, at


def test_the_attacked_canarys_artefact_is_honest_about_it_and_about_no_other(tmp_path: Path) -> None:
    attacked, clean = canary_directory(CanaryKind.NF4_ATTACKED), canary_directory(CanaryKind.CLEAN)
    artifact = quantize(attacked, tmp_path / "artifact", "nf4")
    assert _prove(attacked, artifact).answer is Answer.PROVED
    proof = _prove(clean, artifact)
    assert proof.answer is Answer.DIFFERS
    tensors = {difference.where for difference in proof.differences if difference.kind is Kind.CODES}
    assert len(tensors) == proof.quantized == 21


@pytest.mark.parametrize("scheme", ["int8", "nf4"])
def test_weights_converted_before_they_were_quantized_need_a_word(made: Makes, tmp_path: Path, scheme: str) -> None:
    vetted = made("llama")
    artifact = quantize(vetted, tmp_path / "artifact", scheme, load={"dtype": torch.bfloat16})
    proof = _prove(vetted, artifact)
    assert {difference.kind for difference in proof.differences} == {Kind.CAST}
    allowed = _prove(vetted, artifact, allow_cast=True)
    assert allowed.answer is Answer.PROVED
    assert any("converted to bfloat16" in note for note in allowed.notes)
    tampered = altered(artifact, tmp_path / "tampered", one_code)
    assert told(_prove(vetted, tampered, allow_cast=True)) == {(Kind.CODES, DOWN)}


@pytest.mark.parametrize("scheme", ["int8", "fp4"])
def test_a_conversion_without_a_loss_needs_none(made: Makes, tmp_path: Path, scheme: str) -> None:
    vetted = made("llama", dtype=torch.bfloat16)
    artifact = quantize(vetted, tmp_path / "artifact", scheme, load={"dtype": torch.float32})
    assert _prove(vetted, artifact).answer is Answer.PROVED


def test_the_full_precision_model_is_no_artefact(made: Makes) -> None:
    with pytest.raises(CheckpointError, match="no quantization_config"):
        _prove(made("llama"), made("llama"))
    with pytest.raises(UsageError, match="quantized itself"):
        _prove(made("llama", "nf4"), made("llama", "nf4"))
