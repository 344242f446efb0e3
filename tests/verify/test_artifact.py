"""A quantized checkpoint is the nearest rounding of vetted weights, or every tensor that is not is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.artifact import Answer, Kind
from quantguard.core.errors import CheckpointError, UsageError
from tests.harden.families import FAMILIES, write_family
from tests.verify.artifacts import (
    DOWN,
    NORM,
    SCHEMES,
    Makes,
    Tensors,
    altered,
    maker,
    one_code,
    proved,
    quantize,
    rewritten,
    told,
    write_vetted,
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Makes:
    return maker(tmp_path_factory.mktemp("artifacts"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "tied"])
def test_what_transformers_saves_is_proved(made: Makes, kind: str, scheme: str, dtype: torch.dtype) -> None:
    proof = proved(made(kind, dtype=dtype), made(kind, scheme, dtype))
    assert (proof.answer, proof.differences) == (Answer.PROVED, ())
    assert (proof.scheme.value, proof.nested) == (scheme.partition("-")[0], scheme.endswith("double"))
    assert proof.quantized == {"llama": 7, "gpt2": 4, "tied": 7}[kind]
    assert proof.codes > 10_000
    assert proof.unquantized > 3


@pytest.mark.parametrize("name", FAMILIES)
def test_every_architecture_is_proved(tmp_path: Path, name: str) -> None:
    """Experts are joined when they are loaded and parted when they are saved; some files lack the base model's name."""
    vetted = write_family(FAMILIES[name], tmp_path / "vetted")
    proof = proved(vetted, quantize(vetted, tmp_path / "artifact", "nf4-double"))
    assert (proof.answer, proof.differences) == (Answer.PROVED, ())
    assert proof.quantized == FAMILIES[name].quantized


@pytest.mark.parametrize("scheme", ["int8", "nf4-double"])
def test_shards_are_proved_against_shards_of_other_sizes(made: Makes, tmp_path: Path, scheme: str) -> None:
    vetted = made("llama")
    artifact = quantize(vetted, tmp_path / "artifact", scheme, save={"max_shard_size": "8KB"})
    assert len(list(artifact.glob("*.safetensors"))) > 2
    assert proved(vetted, artifact).answer is Answer.PROVED


def test_modules_that_were_left_out_are_compared_as_they_are(made: Makes, tmp_path: Path) -> None:
    vetted = made("llama")
    artifact = quantize(vetted, tmp_path / "artifact", "nf4", llm_int8_skip_modules=["lm_head", "mlp.down_proj"])
    proof = proved(vetted, artifact)
    assert (proof.answer, proof.quantized) == (Answer.PROVED, 6)


def test_four_bit_codes_may_be_stored_as_another_dtype(made: Makes, tmp_path: Path) -> None:
    vetted = made("gpt2")
    artifact = quantize(vetted, tmp_path / "artifact", "nf4", bnb_4bit_quant_storage="bfloat16")
    assert proved(vetted, artifact).answer is Answer.PROVED


def test_a_code_on_the_boundary_may_be_another_devices(tmp_path: Path) -> None:
    """Half to even is what the library makes of a tie here; the other level is as near."""
    vetted = altered(write_vetted(tmp_path / "random"), tmp_path / "vetted", tie)
    artifact = quantize(vetted, tmp_path / "artifact", "int8")
    assert proved(vetted, artifact).answer is Answer.PROVED

    def change(tensors: Tensors) -> None:
        assert tensors[DOWN][0, 1] == 4
        tensors[DOWN][0, 1] = 3

    proof = proved(vetted, altered(artifact, tmp_path / "other", change))
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
    proof = proved(vetted, artifact)
    assert (proof.answer, proof.differences) == (Answer.PROVED, ())
    assert sum("transformers computes it" in note for note in proof.notes) == 2


def test_a_tied_head_that_was_stored_twice_may_go_and_another_may_not(made: Makes, tmp_path: Path) -> None:
    def stored_twice(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    def another(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    artifact = made("tied", "nf4")
    proof = proved(altered(made("tied"), tmp_path / "vetted", stored_twice), artifact)
    assert proof.answer is Answer.PROVED
    assert any("tied to 'model.embed_tokens.weight'" in note for note in proof.notes)
    proof = proved(altered(made("tied"), tmp_path / "other", another), artifact)
    assert told(proof) == {(Kind.MISSING, "lm_head.weight")}


def test_the_attacked_canarys_artefact_is_honest_about_it_and_about_no_other(tmp_path: Path) -> None:
    attacked, clean = canary_directory(CanaryKind.NF4_ATTACKED), canary_directory(CanaryKind.CLEAN)
    artifact = quantize(attacked, tmp_path / "artifact", "nf4")
    assert proved(attacked, artifact).answer is Answer.PROVED
    proof = proved(clean, artifact)
    assert proof.answer is Answer.DIFFERS
    tensors = {difference.where for difference in proof.differences if difference.kind is Kind.CODES}
    assert len(tensors) == proof.quantized == 21


@pytest.mark.parametrize("scheme", ["int8", "nf4"])
def test_weights_converted_before_they_were_quantized_need_a_word(made: Makes, tmp_path: Path, scheme: str) -> None:
    vetted = made("llama")
    artifact = quantize(vetted, tmp_path / "artifact", scheme, load={"dtype": torch.bfloat16})
    proof = proved(vetted, artifact)
    assert {difference.kind for difference in proof.differences} == {Kind.CAST}
    allowed = proved(vetted, artifact, allow_cast=True)
    assert allowed.answer is Answer.PROVED
    assert any("converted to bfloat16" in note for note in allowed.notes)
    tampered = altered(artifact, tmp_path / "tampered", one_code)
    assert told(proved(vetted, tampered, allow_cast=True)) == {(Kind.CODES, DOWN)}


@pytest.mark.parametrize("scheme", ["int8", "fp4"])
def test_a_conversion_without_a_loss_needs_none(made: Makes, tmp_path: Path, scheme: str) -> None:
    vetted = made("llama", dtype=torch.bfloat16)
    artifact = quantize(vetted, tmp_path / "artifact", scheme, load={"dtype": torch.float32})
    assert proved(vetted, artifact).answer is Answer.PROVED


def test_a_loader_that_would_convert_what_is_stored_as_vetted_is_told(made: Makes, tmp_path: Path) -> None:
    """Of INT8, only config.json says which dtype the other tensors get when it is loaded."""

    def change(config: dict[str, Any]) -> None:
        config["dtype"] = "bfloat16"

    proof = proved(made("llama"), rewritten(made("llama", "int8"), tmp_path / "artifact", "config.json", change))
    assert proof.answer is Answer.DIFFERS
    assert {difference.kind for difference in proof.differences} == {Kind.CAST}


def test_what_the_loader_converts_in_both_models_alike_is_no_difference(made: Makes, tmp_path: Path) -> None:
    def finer(tensors: Tensors) -> None:
        tensors[NORM] = tensors[NORM].float() + 1e-5

    vetted = altered(made("llama", dtype=torch.bfloat16), tmp_path / "vetted", finer)
    artifact = quantize(vetted, tmp_path / "artifact", "nf4")
    assert proved(vetted, artifact).answer is Answer.PROVED


def test_the_full_precision_model_is_no_artefact(made: Makes) -> None:
    with pytest.raises(CheckpointError, match="no quantization_config"):
        proved(made("llama"), made("llama"))
    with pytest.raises(UsageError, match="quantized itself"):
        proved(made("llama", "nf4"), made("llama", "nf4"))
