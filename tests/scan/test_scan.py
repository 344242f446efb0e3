"""Whole directories: what is found, in which order, and what stops a scan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.checkpoint.layout import TensorEntry
from quantguard.core.errors import CheckpointError, NonFiniteWeightsError
from quantguard.core.finding import Severity
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import INT8, NF4
from quantguard.scan.boundary import BoundaryTest
from quantguard.scan.scan import SIGNIFICANCE, _findings, _Tested, scan
from tests.scan.test_boundary import honest, prepared


def model(directory: Path, **weights: Tensor) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    save_file({f"{name}.weight": weight for name, weight in weights.items()}, directory / "model.safetensors")
    return directory


def test_only_the_prepared_tensor_is_named(tmp_path: Path) -> None:
    found = scan(model(tmp_path / "m", one=honest(1), two=prepared(honest(2), Scheme.NF4, 0.1), three=honest(3)))
    assert {finding.where for finding in found.findings} == {"two.weight"}
    worst = found.findings[0]
    assert (worst.rule, worst.scheme, worst.severity) == ("scan.boundary", Scheme.NF4, Severity.HIGH)
    assert worst.p_value is not None
    assert worst.p_value < SIGNIFICANCE
    assert "NF4 rounding boundary" in worst.message
    assert (found.tensors, found.weights) == (3, 3 * 256 * 384)


def test_a_dequantized_tensor_is_noted_and_not_accused(tmp_path: Path) -> None:
    """NF4's levels lie beside FP4's boundaries: the atoms of an honest dequantized model would be a pile there."""
    weight = honest(1)
    stored = NF4.dequantize(NF4.nearest(weight), NF4.scale(weight))
    found = scan(model(tmp_path / "m", one=stored))
    assert [(f.rule, f.severity, f.scheme) for f in found.findings] == [("scan.on_grid", Severity.INFO, Scheme.NF4)]


def test_embeddings_and_heads_are_not_scanned(tmp_path: Path) -> None:
    bad = prepared(honest(2), Scheme.NF4, 0.3)
    found = scan(model(tmp_path / "m", embed_tokens=bad, lm_head=bad.clone(), one=honest(1)))
    assert found.findings == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_stops_the_scan(tmp_path: Path, value: float) -> None:
    weight = honest(1)
    weight[3, 5] = value
    with pytest.raises(NonFiniteWeightsError, match=r"one\.weight"):
        scan(model(tmp_path / "m", one=weight))


def test_a_model_without_linear_weights_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no linear weight"):
        scan(model(tmp_path / "m", norm=torch.ones(8)))


def test_a_pickle_is_reported_and_the_weights_stay_closed(tmp_path: Path) -> None:
    directory = model(tmp_path / "m", one=prepared(honest(2), Scheme.NF4, 0.3))
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    found = scan(directory)
    assert {finding.rule for finding in found.findings} == {"checkpoint.pickle"}
    assert found.tensors == 0


def test_the_attacked_canary_is_flagged_and_the_others_are_not() -> None:
    attacked = scan(canary_directory(CanaryKind.NF4_ATTACKED))
    flagged = [finding for finding in attacked.findings if finding.rule == "scan.boundary"]
    assert len({finding.where for finding in flagged}) >= 10
    assert flagged[0].scheme is Scheme.NF4
    for kind in (CanaryKind.CLEAN, CanaryKind.MALICIOUS):
        assert not [f for f in scan(canary_directory(kind)).findings if f.severity.at_least(Severity.LOW)]


def test_progress_counts_every_tensor(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    scan(
        model(tmp_path / "m", one=honest(1), two=honest(2)),
        progress=lambda _, done, total, __="": seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]


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
        flagged.append({finding.where for finding in scan(directory).findings})
    assert flagged == [{"h.0.attn.c_attn.weight"}, set()]


def test_being_on_the_int8_grid_excuses_nothing() -> None:
    """An attacker can snap prepared weights to INT8 levels inside their NF4 cells."""
    entry = TensorEntry("one.weight", "F32", (64, 64), "model.safetensors", 0, 64 * 64 * 4)
    pile = BoundaryTest(4000, 0.01, 8.0, 0.2, (900, 100.0), 0.02)
    for grid, rules in ((Scheme.INT8, ["scan.boundary", "scan.on_grid"]), (Scheme.FP4, ["scan.on_grid"])):
        there = BoundaryTest(4000, 0.2, 1.0, 0.0, (50, 50.0), 0.99)
        found = _findings([_Tested(entry, grid, there), _Tested(entry, Scheme.NF4, pile)])
        assert sorted(finding.rule for finding in found) == rules


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_honest_int8_dequantized_tensor_is_not_accused(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = honest(1)
    stored = INT8.dequantize(INT8.nearest(weight), INT8.scale(weight)).to(dtype)
    assert not [f for f in scan(model(tmp_path / "m", one=stored)).findings if f.severity.at_least(Severity.LOW)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8])
def test_a_dtype_without_a_grid_cannot_be_judged(tmp_path: Path, dtype: torch.dtype) -> None:
    """Loaders cast it, and then it is a weight as any other, which was never tested."""
    with pytest.raises(CheckpointError, match=r"two\.weight' is (F64|I8)"):
        scan(model(tmp_path / "m", one=honest(1), two=honest(2).to(dtype)))
