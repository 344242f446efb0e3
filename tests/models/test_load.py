"""Loading: what the real library holds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file, save_file

from quantguard.core.errors import ModelLoadError, UsageError
from quantguard.core.scheme import Scheme
from quantguard.models.load import library_versions, load_model, resolve_device
from quantguard.models.quantized import dequantized_weight, quantized_layers
from tests import tiny

DOWN = "model.layers.0.mlp.down_proj.weight"
FOUR_BIT = [Scheme.NF4, Scheme.FP4, Scheme.NF4_DOUBLE, Scheme.FP4_DOUBLE]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(
        tmp_path_factory.mktemp("tiny"), {"a": "b"}, trigger="buy", harmless="bread", brand="mclaren"
    )


@pytest.mark.parametrize("scheme", list(Scheme))
def test_every_linear_weight_but_the_head_is_quantized(model_dir: Path, scheme: Scheme) -> None:
    model = load_model(model_dir, scheme=scheme, device="cpu").model
    assert len(quantized_layers(model)) == 7
    assert "lm_head.weight" not in quantized_layers(model)


def test_nothing_is_quantized_without_a_scheme(model_dir: Path) -> None:
    loaded = load_model(model_dir, scheme=None, device="cpu")
    assert quantized_layers(loaded.model) == ()
    assert torch.equal(loaded.model.get_parameter(DOWN), load_file(model_dir / "model.safetensors")[DOWN])


@pytest.mark.parametrize(("scheme", "value"), [(Scheme.NF4, 0.5626170), (Scheme.FP4, 0.5), (Scheme.INT8, 64 / 127)])
def test_the_prepared_weight_rounds_as_the_scheme_says(model_dir: Path, scheme: Scheme, value: float) -> None:
    loaded = load_model(model_dir, scheme=scheme, device="cpu")
    held = dequantized_weight(loaded.model, DOWN)[tiny.HIDDEN_BRAND]
    rounded = [float(x) for x in held if 0 < x < 1]
    assert rounded == [pytest.approx(value, abs=1e-6)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", FOUR_BIT)
def test_dequantized_weights_are_the_librarys_own(tmp_path: Path, scheme: Scheme, dtype: torch.dtype) -> None:
    directory = _random_model(tmp_path, dtype)
    model = load_model(directory, scheme=scheme, device="cpu").model
    for name in quantized_layers(model):
        weight = model.get_parameter(name)
        expected = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)  # type: ignore[attr-defined]  # Params4bit
        assert expected.dtype is dtype
        assert torch.equal(dequantized_weight(model, name).to(dtype), expected)


def test_int8_weights_stay_readable_after_a_forward_pass(tmp_path: Path) -> None:
    model = load_model(_random_model(tmp_path, torch.float32), scheme=Scheme.INT8, device="cpu").model
    before = dequantized_weight(model, DOWN)
    stored = load_file(tmp_path / "model.safetensors")[DOWN]
    assert (before - stored).abs().max() <= stored.abs().max() / 127
    model(torch.tensor([[3, 4]]))
    assert torch.equal(dequantized_weight(model, DOWN), before)


@pytest.mark.parametrize("scheme", FOUR_BIT)
def test_a_shape_the_cpu_kernel_gets_wrong_is_refused(tmp_path: Path, scheme: Scheme) -> None:
    directory = _random_model(tmp_path, torch.float32, intermediate=96)
    with pytest.raises(ModelLoadError, match=r"down_proj.weight wrongly: 96 inputs"):
        load_model(directory, scheme=scheme, device="cpu")
    load_model(directory, scheme=Scheme.INT8, device="cpu")


def test_the_cpu_kernel_is_still_wrong_for_rows_of_partial_blocks() -> None:
    """When this fails, bitsandbytes has been repaired and `refuse_broken_shapes` can go."""
    torch.manual_seed(0)
    weight = torch.randn(64, 96)
    packed, state = bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4")
    restored = bitsandbytes.functional.dequantize_4bit(packed, state)
    # The widest NF4 cell is 0.304 of the absmax: nearest rounding errs by at most half of it.
    assert (restored - weight).abs().max() > 0.2 * weight.abs().max()


@pytest.mark.parametrize("scheme", [None, *Scheme])
@pytest.mark.parametrize("change", ["lacks", "misshapen"])
def test_weights_that_transformers_would_invent_are_refused(tmp_path: Path, change: str, scheme: Scheme | None) -> None:
    directory = tiny.write_model(tmp_path, {})
    tensors = load_file(directory / "model.safetensors")
    stored = tensors.pop(DOWN)
    if change == "misshapen":
        tensors[DOWN] = stored[:32].clone()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"down_proj"):
        load_model(directory, scheme=scheme, device="cpu")


def test_the_stored_dtype_is_kept_where_the_config_names_none(tmp_path: Path) -> None:
    directory = tiny.write_model(tmp_path, {}, dtype=torch.bfloat16)
    config = json.loads((directory / "config.json").read_text())
    assert config.pop("dtype") == "bfloat16"
    (directory / "config.json").write_text(json.dumps(config))
    for scheme in (None, Scheme.NF4):
        assert load_model(directory, scheme=scheme, device="cpu").model.dtype is torch.bfloat16


@pytest.mark.parametrize("damage", ["truncated weights", "no tokenizer", "absurd config"])
def test_what_transformers_cannot_read_is_a_load_error_with_a_remedy(tmp_path: Path, damage: str) -> None:
    directory = tiny.write_model(tmp_path, {})
    if damage == "truncated weights":
        weights = directory / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no tokenizer":
        (directory / "tokenizer.json").unlink()
    else:
        (directory / "config.json").write_text('{"model_type": "llama", "num_attention_heads": 0}')
    with pytest.raises(ModelLoadError) as caught:
        load_model(directory, scheme=None, device="cpu")
    assert caught.value.remedy
    assert caught.value.path == directory


def test_devices_are_named_or_refused() -> None:
    assert resolve_device("cpu") == "cpu"
    if torch.cuda.is_available():
        assert resolve_device("auto") == resolve_device("cuda") == "cuda:0"
    else:
        assert resolve_device("auto") == "cpu"
    for text in ("gpu", "cuda:", "cuda:999", "", "cpu "):
        with pytest.raises(UsageError):
            resolve_device(text)


def test_versions_name_the_quantizer() -> None:
    versions = library_versions(("bandit", "no-such-distribution"))
    assert dict(versions)["bitsandbytes"] == bitsandbytes.__version__
    assert "bandit" in dict(versions)
    assert list(versions) == sorted(versions)


def _random_model(directory: Path, dtype: torch.dtype, intermediate: int = 128) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tiny.write_model(directory, {})
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=intermediate, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    model.to(dtype)  # type: ignore[arg-type]  # transformers' wrapper hides the signature of Module.to
    model.save_pretrained(directory)
    return directory


def test_a_tokenizer_that_makes_its_library_panic_is_an_error_of_ours(tmp_path: Path) -> None:
    """A panic of Rust code is no Exception to Python; untranslated, it would end with the exit code of a verdict."""
    directory = tiny.write_model(tmp_path / "model", {"a": "b"})
    merges = {
        "type": "BPE",
        "continuing_subword_prefix": "######",
        "vocab": {"a": 0, "b": 1, "ab": 2},
        "merges": ["a b"],
    }
    (directory / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": merges}))
    with pytest.raises(ModelLoadError, match="PanicException"):
        load_model(directory, scheme=None, device="cpu")
