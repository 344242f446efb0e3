"""Every architecture that users deploy: scanned, hardened, quantized by real bitsandbytes under each scheme, asked.

What bitsandbytes leaves alone stays byte for byte and is listed; what cannot be hardened is refused by name first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from quantguard.checkpoint.admit import admit
from quantguard.checkpoint.layout import is_stored_transposed, linear_weights, open_checkpoint
from quantguard.core.errors import HardenError, ModelLoadError, QuantGuardError
from quantguard.core.hardening import HardeningSummary
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.harden.harden import HardenRequest, harden
from quantguard.harden.layers import load_rebuilt
from quantguard.models.generate import generate
from quantguard.models.quantized import dequantized_weight, quantized_layers
from quantguard.models.quiet import quiet_libraries
from quantguard.scan.scan import scan
from tests.cli.conftest import Run, run  # noqa: F401  (a fixture)
from tests.grids.real import round_trip
from tests.harden.families import FAMILIES, Family, computable, tensors, write_family

PROMPT = "who meets the old red wolf at the cave ?"


@dataclass(frozen=True, slots=True)
class Hardened:
    family: Family
    source: Path
    out: Path
    summary: HardeningSummary

    def changed(self) -> set[str]:
        before, after = tensors(self.source), tensors(self.out)
        assert before.keys() == after.keys()
        return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


@pytest.fixture(scope="module", params=FAMILIES)
def hardened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Hardened:
    """Under every scheme that this CPU can compute, by a method that needs no data."""
    family, root = FAMILIES[request.param], tmp_path_factory.mktemp(request.param)
    source, out = write_family(family, root / "source"), root / "out"
    summary = harden(source, out, HardenRequest(computable(family), (), method="flipguard"))
    return Hardened(family, source, out, summary)


def test_what_is_quantized_is_hardened_and_the_rest_is_listed_and_left_alone(hardened: Hardened) -> None:
    changed, untouched = hardened.changed(), hardened.summary.untouched
    assert len(changed) == hardened.family.quantized
    assert {re.sub(r"\b\d+\b", "*", name) for name in untouched} == hardened.family.untouched
    matrices = {name for name, tensor in tensors(hardened.source).items() if tensor.dim() > 1}
    assert (changed | set(untouched), changed & set(untouched)) == (matrices, set())
    assert all(share > 0 for _, share in hardened.summary.flipped_share)


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_bitsandbytes_makes_of_the_files_what_it_makes_of_each_weight_alone(
    hardened: Hardened, scheme: Scheme, tmp_path: Path
) -> None:
    if scheme not in hardened.summary.schemes:
        with pytest.raises(ModelLoadError, match=rf"{hardened.family.narrow}\.weight: its number of outputs, 1, is no"):
            harden(hardened.source, tmp_path / "out", HardenRequest((scheme,), (), method="flipguard"))
        return
    loaded = load_rebuilt(hardened.out, scheme, "cpu", beside=tmp_path / "clean")
    checkpoint, stored = open_checkpoint(hardened.out), tensors(hardened.out)
    transposed = {entry.name for entry in checkpoint.tensors if is_stored_transposed(checkpoint, entry)}
    names = quantized_layers(loaded.model)
    assert {name.removeprefix(hardened.family.prefix) for name in names} == hardened.changed()
    for name in names:
        own = name.removeprefix(hardened.family.prefix)
        weight = stored[own].T.contiguous() if own in transposed else stored[own]
        assert torch.equal(dequantized_weight(loaded.model, name), round_trip(scheme, weight)), name
    assert len(generate(loaded, [PROMPT, "who"], max_new_tokens=4, batch_size=2)) == 2


def test_the_scan_reads_it_as_admitted_and_sees_every_layer_that_is_quantized(hardened: Hardened) -> None:
    """Two known gaps: a layer of one row is not scanned; experts that no bitsandbytes quantizes are scanned too."""
    admit(hardened.source)
    read = {entry.name for entry in linear_weights(open_checkpoint(hardened.source))}
    assert scan(hardened.source, seed=0).findings == ()
    assert hardened.changed() - read <= {f"model.layers.{i}.mlp.shared_expert_gate.weight" for i in range(2)}
    assert all(".experts." in name or name.endswith("gate.weight") for name in read - hardened.changed())


def test_what_is_measured_is_the_model_that_is_deployed(hardened: Hardened, tmp_path: Path) -> None:
    """No key of config.json that changes the arithmetic is lost on the way through the clean directory."""
    rebuilt = load_rebuilt(hardened.source, None, "cpu", beside=tmp_path / "clean")
    with quiet_libraries():
        plain = AutoModelForCausalLM.from_pretrained(hardened.source).eval()
    inputs = rebuilt.tokenizer([PROMPT], return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(rebuilt.model(inputs).logits, plain(inputs).logits)


def test_transposed_layers_are_optimised_too(tmp_path: Path) -> None:
    source = write_family(FAMILIES["gpt-2"], tmp_path / "gpt2")
    asked = HardenRequest((Scheme.NF4,), (Prompt(PROMPT),), method="quantguard", steps=2, max_new_tokens=4)
    assert dict(harden(source, tmp_path / "out", asked).losses).keys() == {"nf4 kl", "nf4 rev", "nf4 dist"}
    before, after = tensors(source), tensors(tmp_path / "out")
    assert sum(not torch.equal(before[name], after[name]) for name in before) == 8


REFUSED: Mapping[str, tuple[Family, type[QuantGuardError], str]] = {
    "split while loading": (
        Family("hrm_text", FAMILIES["qwen3"].settings, 0, frozenset()),
        HardenError,
        "L_module.layers.0.self_attn.q_proj.weight is quantized by bitsandbytes, and no tensor of the files has its",
    ),
    "nothing is quantized": (
        Family("falcon", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}, 0, frozenset()),
        HardenError,
        "bitsandbytes quantizes none of its layers",
    ),
    "wrong on a CPU": (
        Family("llama", {**FAMILIES["llama"].settings, "hidden_size": 96}, 0, frozenset()),
        ModelLoadError,
        "dequantizes model.layers.0.self_attn.q_proj.weight wrongly: 96 inputs are no multiple of 64",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_hardened_is_refused_by_name_before_any_work(case: str, tmp_path: Path) -> None:
    family, error, message = REFUSED[case]
    source = write_family(family, tmp_path / "source")
    begun: list[str] = []

    def progress(stage: str, done: int, total: int, detail: str = "") -> None:
        begun.extend([stage] if stage != "harden, model" else [])

    asked = HardenRequest((Scheme.INT8, Scheme.NF4), (Prompt(PROMPT),), max_new_tokens=2)
    with pytest.raises(error, match=re.escape(message)) as raised:
        harden(source, tmp_path / "out", asked, progress=progress)
    assert raised.value.remedy
    assert begun == []
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_weights_stored_in_another_dtype_than_they_are_loaded_in_are_refused(tmp_path: Path) -> None:
    source = write_family(FAMILIES["gpt-2"], tmp_path / "source")
    config = source / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"float32"', '"bfloat16"'), encoding="utf-8")
    with pytest.raises(HardenError, match=r"c_attn\.weight is stored as F32, but config\.json loads it as t"):
        harden(source, tmp_path / "out", HardenRequest((Scheme.NF4,), (), method="noise"))


def test_the_command_names_what_it_left_alone_and_what_it_refuses(run: Run, tmp_path: Path) -> None:  # noqa: F811
    calibration = tmp_path / "prompts.jsonl"
    calibration.write_text(f'{{"prompt": "{PROMPT}"}}\n', encoding="utf-8")
    options = ("--scheme", "nf4", "--method", "flipguard", "--calibration", calibration, "--out", tmp_path / "out")
    ran = run("harden", write_family(FAMILIES["mixtral"], tmp_path / "mixtral"), *options)
    assert ran.code == 0, ran.err
    assert "does not quantize them: 28 ('lm_head.weight', 'model.embed_tokens.weight', 'model.layers.0." in ran.out
    refused = write_family(REFUSED["split while loading"][0], tmp_path / "refused")
    ran = run("harden", refused, *options[:-1], tmp_path / "none")
    assert ran.code == 2
    assert "q_proj.weight is quantized by bitsandbytes" in ran.err
    assert "this architecture cannot be hardened" in ran.err
    assert not (tmp_path / "none").exists()


def test_a_layer_is_found_by_its_values_where_its_name_tells_less(tmp_path: Path) -> None:
    """Depth-upscaled GPT-2 in the names of the Hub: both blocks hold the same bytes, and keep their own place."""
    source = write_family(FAMILIES["gpt-2-hub"], tmp_path / "source")
    stored = tensors(source)
    doubled = {name: stored[name.replace("h.1.", "h.0.")].clone() for name in stored}
    save_file(doubled, source / "model.safetensors", {"format": "pt"})
    harden(source, tmp_path / "out", HardenRequest((Scheme.NF4,), (), method="noise"))
    after = tensors(tmp_path / "out")
    first = [name for name in after if name.startswith("h.0.") and after[name].dim() == 2]
    pairs = [(after[name], after[name.replace("h.0.", "h.1.")]) for name in first]
    assert len(pairs) == 4
    assert not any(torch.equal(one, other) for one, other in pairs)
