"""Whole directories: what is found, in which order, and what stops a scan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from quantguard.checkpoint.layout import open_checkpoint
from quantguard.core.errors import CheckpointError, NonFiniteWeightsError
from quantguard.core.finding import Finding, Severity
from quantguard.core.layer import ALL_WEIGHTS
from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.scan.examine import SIGNIFICANCE
from quantguard.scan.plan import Effort
from quantguard.scan.scan import Scan, scan
from tests.checkpoint.build import write_model
from tests.scan.weights import DTYPES, MARGIN, adapted, crowded, dequantized, generator, honest, laplacian, prepared

LOUD = Severity.LOW


def model(directory: Path, **weights: Tensor) -> Path:
    tensors = {f"{name}.weight": weight for name, weight in weights.items()}
    return write_model(directory, tensors, config={"model_type": "llama"})


def loud(found: Scan) -> list[Finding]:
    return [finding for finding in found.findings if finding.severity.at_least(LOUD)]


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_only_the_prepared_tensor_is_named(tmp_path: Path, scheme: Scheme) -> None:
    bad = prepared(honest(2), scheme, 0.1)
    found = scan(model(tmp_path / "m", one=honest(1), two=bad, three=honest(3)), seed=0)
    assert {finding.where for finding in found.findings} == {"two.weight"}
    worst = next(finding for finding in found.findings if finding.scheme is scheme)
    assert (worst.rule, worst.grid, worst.severity) == ("scan.boundary", scheme.value.upper(), Severity.HIGH)
    assert worst.p_value is not None
    assert worst.p_value < SIGNIFICANCE
    assert worst.share is not None
    assert 0.04 < worst.share < 0.12
    assert f"{worst.share:.1%} of" in worst.message
    assert f"{scheme.value.upper()} rounding boundary" in worst.message
    assert (found.tensors, found.weights) == (3, 3 * 256 * 384)
    row = next(row for row in found.layers if (row.name, row.grid) == ("two.weight", scheme.value.upper()))
    assert row.suspicious
    assert abs(row.distance - MARGIN[scheme]) < 0.01


@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_a_dequantized_tensor_is_noted_and_not_accused(tmp_path: Path, scheme: Scheme) -> None:
    """NF4's levels lie beside FP4's boundaries: the atoms of an honest dequantized model would be a pile there."""
    found = scan(model(tmp_path / "m", one=dequantized(honest(1), scheme)), seed=0)
    assert [(f.rule, f.severity, f.scheme) for f in found.findings] == [("scan.on_grid", Severity.INFO, scheme)]


@pytest.mark.parametrize("scheme", [Scheme.NF4, Scheme.FP4])
def test_a_dequantized_tensor_that_was_adapted_is_not_accused_either(tmp_path: Path, scheme: Scheme) -> None:
    found = scan(model(tmp_path / "m", one=adapted(honest(1), scheme, 5e-4)), seed=0)
    assert not loud(found)
    assert "changed since" in found.findings[0].message


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_honest_int8_dequantized_tensor_is_not_accused(tmp_path: Path, dtype: torch.dtype) -> None:
    assert not loud(scan(model(tmp_path / "m", one=dequantized(honest(1, dtype), Scheme.INT8)), seed=0))


@pytest.mark.parametrize("scheme", [Scheme.NF4, Scheme.FP4])
def test_being_on_the_int8_grid_excuses_nothing(tmp_path: Path, scheme: Scheme) -> None:
    """An attacker can snap prepared weights to INT8 levels inside their 4-bit cells."""
    bad = dequantized(prepared(honest(1), scheme, 0.3, margin=0.1), Scheme.INT8)
    found = scan(model(tmp_path / "m", one=bad), seed=0)
    assert scheme in {finding.scheme for finding in found.findings if finding.severity is Severity.HIGH}
    assert "scan.on_grid" in {finding.rule for finding in found.findings}


def test_known_gap_a_margin_finer_than_int8_on_its_levels_is_called_crowded(tmp_path: Path) -> None:
    bad = dequantized(prepared(honest(1), Scheme.NF4, 0.3, margin=0.05), Scheme.INT8)
    assert {finding.rule for finding in scan(model(tmp_path / "m", one=bad), seed=0).findings} == {
        "scan.crowded",
        "scan.on_grid",
    }


@pytest.mark.parametrize("bits", [3, 4])
def test_groups_of_128_with_few_values_are_noted_and_not_accused(tmp_path: Path, bits: int) -> None:
    """Another quantizer's model, dequantized: its atoms lie anywhere in the cells of bitsandbytes."""
    groups = honest(1).view(-1, 128)
    step = (groups.amax(1, keepdim=True) - groups.amin(1, keepdim=True)) / (2**bits - 1)
    found = scan(model(tmp_path / "m", one=((groups / step).round() * step).view(256, 384)), seed=0)
    assert {finding.severity for finding in found.findings} == {Severity.INFO}


def test_crowded_boundaries_are_told_quietly(tmp_path: Path) -> None:
    found = scan(model(tmp_path / "m", one=crowded(honest(1), Scheme.NF4)), seed=0)
    mine = [finding for finding in found.findings if finding.scheme is Scheme.NF4]
    assert [(f.rule, f.severity) for f in mine] == [("scan.crowded", Severity.LOW)]


def test_a_trace_too_faint_in_any_weight_is_seen_in_all_of_them_together(tmp_path: Path) -> None:
    weights = {f"layers.{n}": prepared(honest(n, size=(64, 64)), Scheme.NF4, 0.008) for n in range(16)}
    found = scan(model(tmp_path / "m", **weights), seed=0)
    high = [finding for finding in found.findings if finding.severity is Severity.HIGH]
    assert [(finding.where, finding.scheme) for finding in high] == [(ALL_WEIGHTS, Scheme.NF4)]


def test_sixteen_honest_weights_together_show_nothing(tmp_path: Path) -> None:
    weights = {f"layers.{n}": honest(n, size=(64, 64)) for n in range(16)}
    assert scan(model(tmp_path / "m", **weights), seed=0).findings == ()


def test_the_worst_comes_first(tmp_path: Path) -> None:
    faint, strong = prepared(honest(1), Scheme.NF4, 0.05), prepared(honest(2), Scheme.NF4, 0.4)
    found = scan(model(tmp_path / "m", a=faint, b=strong, c=dequantized(honest(3), Scheme.NF4)), seed=0)
    ranks = [finding.severity.rank for finding in found.findings]
    assert ranks == sorted(ranks, reverse=True)
    assert found.findings[0].where == "b.weight"
    assert next(row.name for row in found.layers if row.suspicious) == "b.weight"


def test_embeddings_and_heads_are_not_scanned(tmp_path: Path) -> None:
    bad = prepared(honest(2), Scheme.NF4, 0.3)
    found = scan(model(tmp_path / "m", embed_tokens=bad, lm_head=bad.clone(), one=honest(1)), seed=0)
    assert found.findings == ()
    assert found.tensors == 1


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "one.bias", "one.weight", "scale"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_value_that_is_no_number_stops_the_scan_wherever_it_is(
    tmp_path: Path, name: str, value: float, dtype: torch.dtype
) -> None:
    tensors = {"one.weight": honest(1, dtype), "model.embed_tokens.weight": honest(2, dtype)}
    tensors |= {"one.bias": torch.ones(100, dtype=dtype), "scale": torch.ones(3, 4, 5, dtype=dtype)}
    tensors[name].view(-1)[37] = value
    index = {"one.bias": "37", "scale": "1, 3, 2"}.get(name, "0, 37")
    with pytest.raises(NonFiniteWeightsError, match=rf"{name}.*{value}.*\[{index}\]"):
        scan(write_model(tmp_path / "m", tensors))


def test_an_imaginary_part_that_is_no_number_stops_the_scan(tmp_path: Path) -> None:
    imaginary = torch.ones(40)
    imaginary[7] = float("nan")
    turned = torch.complex(torch.ones(40), imaginary)
    with pytest.raises(NonFiniteWeightsError, match=r"freqs.*\[7\]"):
        scan(write_model(tmp_path / "m", {"one.weight": honest(1), "freqs": turned}))


def test_finite_values_whose_sum_overflows_are_numbers(tmp_path: Path) -> None:
    huge = torch.full((200,), 3e38)
    tensors = {"one.weight": honest(1), "two.weight": torch.full((64, 128), 3e38), "one.bias": huge}
    assert scan(write_model(tmp_path / "m", tensors), seed=0).tensors == 2


def test_a_model_without_linear_weights_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no linear weight"):
        scan(model(tmp_path / "m", norm=torch.ones(8)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8])
def test_a_dtype_without_a_grid_cannot_be_judged(tmp_path: Path, dtype: torch.dtype) -> None:
    """Loaders cast it, and then it is a weight as any other, which was never tested."""
    with pytest.raises(CheckpointError, match=r"two\.weight' is (F64|I8)"):
        scan(model(tmp_path / "m", one=honest(1), two=honest(2).to(dtype)))


def test_a_pickle_is_reported_and_the_weights_stay_closed(tmp_path: Path) -> None:
    directory = model(tmp_path / "m", one=prepared(honest(2), Scheme.NF4, 0.3))
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    found = scan(directory)
    assert {finding.rule for finding in found.findings} == {"checkpoint.pickle"}
    assert found.tensors == 0


@pytest.mark.parametrize("effort", list(Effort))
@pytest.mark.parametrize("shards", [1, 3])
def test_progress_is_in_bytes_never_goes_back_and_ends_at_the_total(
    tmp_path: Path, effort: Effort, shards: int
) -> None:
    seen: list[tuple[int, int]] = []
    weights = {f"layers.{n}.weight": honest(n, size=(300, 200)) for n in range(4)} | {"norm.weight": torch.ones(99)}
    directory = write_model(tmp_path / "m", weights, shards=shards)
    scan(directory, effort=effort, progress=lambda _, done, total, __="": seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    (total,) = {total for _, total in seen}
    assert seen[-1][0] == total
    stored = sum(entry.end - entry.begin for entry in open_checkpoint(directory).tensors)
    assert total == stored if effort is Effort.FULL else total < stored


def test_conv1d_weights_are_scanned_the_way_the_quantizer_sees_them(tmp_path: Path) -> None:
    """GPT-2 stores (in, out); bitsandbytes transposes before it makes blocks: the piles lie on the transposed grid."""
    bad = prepared(honest(2), Scheme.NF4, 0.2)
    weights = {"h.0.attn.c_attn.weight": bad.T.contiguous(), "h.0.mlp.c_fc.weight": honest(3).T.contiguous()}
    directory = tmp_path / "m"
    directory.mkdir()
    save_file(weights, directory / "model.safetensors")
    flagged = []
    for model_type in ("gpt2", "llama"):
        (directory / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
        flagged.append({finding.where for finding in scan(directory, seed=0).findings})
    assert flagged == [{"h.0.attn.c_attn.weight"}, set()]


@pytest.mark.parametrize("effort", list(Effort))
def test_the_same_seed_gives_the_same_scan(tmp_path: Path, effort: Effort) -> None:
    weights = {f"layers.{n}": prepared(honest(n), Scheme.NF4, 0.1 * n) for n in range(3)}
    directory = model(tmp_path / "m", **weights)
    assert scan(directory, seed=5, effort=effort) == scan(directory, seed=5, effort=effort)


def test_a_quick_scan_sees_a_strong_pile_in_a_part_of_the_rows(tmp_path: Path) -> None:
    bad = prepared(honest(2, size=(2048, 512)), Scheme.NF4, 0.3)
    found = scan(model(tmp_path / "m", one=bad), effort=Effort.QUICK, seed=1)
    assert found.weights < bad.numel() / 16
    high = [finding for finding in found.findings if finding.severity is Severity.HIGH]
    assert Scheme.NF4 in {finding.scheme for finding in high}


ODD = {
    "2 x 2": honest(1, size=(2, 2)),
    "long rows": honest(2, torch.bfloat16, (3, 1_000_003)),
    "long columns": honest(3, torch.float16, (100_003, 2)),
    "zeros": torch.zeros(64, 64),
    "ones": torch.ones(64, 64),
    "one weight": torch.nn.functional.pad(torch.ones(1, 1), (0, 63, 0, 63)),
    "denormals": torch.full((64, 64), 1e-40) * torch.arange(64),
    "signs": honest(4).sign(),
}


@pytest.mark.parametrize("effort", list(Effort))
@pytest.mark.parametrize("name", ODD)
def test_odd_tensors_are_scanned_without_alarm(tmp_path: Path, name: str, effort: Effort) -> None:
    found = scan(model(tmp_path / "m", one=ODD[name]), effort=effort, seed=0)
    assert not loud(found)
    assert found.tensors == 1
    assert all(0 <= row.share <= 1 and 0 <= row.p_value <= 1 for row in found.layers)


def test_thousands_of_tiny_tensors_take_seconds(tmp_path: Path) -> None:
    weights = {f"layers.{n}": torch.randn(4, 8, generator=generator(n)) for n in range(5000)}
    found = scan(model(tmp_path / "m", **weights), seed=0)
    assert found.tensors == 5000
    assert not loud(found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheme", ROUNDINGS)
def test_a_wholly_prepared_tensor_is_not_taken_for_one_of_few_values(
    tmp_path: Path, scheme: Scheme, dtype: torch.dtype
) -> None:
    """Its blocks hold two values a cell, as another format might leave them; but at one place in every cell."""
    found = scan(model(tmp_path / "m", one=prepared(laplacian(1).to(dtype), scheme, 1.0)), seed=0)
    assert ("scan.boundary", scheme) in {(finding.rule, finding.scheme) for finding in found.findings}
