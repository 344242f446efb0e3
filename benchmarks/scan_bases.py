"""Weights to begin with, and what honest people do to them: a pretrained network and random ones of several shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.grids.grid import grid_for
from quantguard.grids.k_quant import SUPER_BLOCK, dequantize_q4_k, quantize_q4_k

Change = Callable[[Tensor, torch.Generator], Tensor]  # float32 (rows, columns) to the same
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PRETRAINED: Final = "all-minilm-l6-v2-float32"  # a member of the range
_STD: Final = 0.02


@dataclass(frozen=True, slots=True)
class Base:
    """`layers` random weights of one shape; the pretrained network where there are none."""

    layers: int = 0
    rows: int = 256
    columns: int = 256
    density: str = "gaussian"  # a key of DENSITIES
    conv1d: bool = False  # stored (in, out), as GPT-2 does

    def __str__(self) -> str:
        if not self.layers:
            return "MiniLM"
        stored = ", transposed" if self.conv1d else ""
        return f"{self.layers} x {self.rows} x {self.columns} {self.density}{stored}"


MINILM: Final = Base()


def _student(degrees: int) -> Callable[[tuple[int, int], torch.Generator], Tensor]:
    def drawn(shape: tuple[int, int], random: torch.Generator) -> Tensor:
        squares = sum((torch.randn(shape, generator=random) ** 2 for _ in range(degrees)), torch.zeros(shape))
        return torch.randn(shape, generator=random) / (squares / degrees).sqrt()

    return drawn


def _laplace(shape: tuple[int, int], random: torch.Generator) -> Tensor:
    u = torch.rand(shape, generator=random) - 0.5
    return -u.sign() * torch.log1p(-2 * u.abs().clamp(max=0.4999999))


def _skewed(shape: tuple[int, int], random: torch.Generator) -> Tensor:
    """Columns of different widths and means, as beside a norm with weights of its own."""
    scale = torch.exp(0.5 * torch.randn(1, shape[1], generator=random))
    return (torch.randn(shape, generator=random) + 0.2 * torch.randn(1, shape[1], generator=random)) * scale


DENSITIES: Final[Mapping[str, Callable[[tuple[int, int], torch.Generator], Tensor]]] = {
    "gaussian": lambda shape, random: torch.randn(shape, generator=random),
    "laplace": _laplace,
    "student-t(3)": _student(3),
    "student-t(5)": _student(5),
    "uniform": lambda shape, random: 2 * torch.rand(shape, generator=random) - 1,
    "skewed": _skewed,
}


def weights_of(base: Base, range_directory: Path, random: torch.Generator) -> dict[str, Tensor]:
    """Linear weights by name, float32, as bitsandbytes sees them: (out, in)."""
    if not base.layers:
        return dict(_pretrained(range_directory))
    drawn = DENSITIES[base.density]
    name = "transformer.h.{}.mlp.c_fc.weight" if base.conv1d else "model.layers.{}.mlp.up_proj.weight"
    return {name.format(layer): drawn((base.rows, base.columns), random) * _STD for layer in range(base.layers)}


@cache
def _pretrained(range_directory: Path) -> Mapping[str, Tensor]:
    stored = load_file(range_directory / PRETRAINED / "model" / "model.safetensors")
    return {n: w for n, w in stored.items() if w.dim() == 2 and n.endswith(".weight") and "embeddings" not in n}


def _dequantized(scheme: Scheme) -> Change:
    grid = grid_for(scheme)
    return lambda w, _: grid.dequantize(grid.nearest(w), grid.scale(w))


def _with_adapter(share: float, first: Change | None = None) -> Change:
    """A random low-rank delta (LoRA) of `share` of the standard deviation, on top of `first`."""

    def changed(w: Tensor, random: torch.Generator) -> Tensor:
        delta = torch.randn(w.shape[0], 8, generator=random) @ torch.randn(8, w.shape[1], generator=random)
        return (first(w, random) if first else w) + delta / delta.std() * w.std() * share

    return changed


def _pruned(share: float) -> Change:
    def changed(w: Tensor, _: torch.Generator) -> Tensor:
        least = w.abs().flatten().kthvalue(max(1, int(share * w.numel()))).values
        return torch.where(w.abs() <= least, 0, w)

    return changed


def _on_q4_k(w: Tensor, _: torch.Generator) -> Tensor:
    """As it is where the rows hold no whole super-blocks."""
    return w if w.shape[1] % SUPER_BLOCK else dequantize_q4_k(quantize_q4_k(w), w.shape)


def _in_groups(size: int, *, symmetric: bool) -> Change:
    def changed(w: Tensor, _: torch.Generator) -> Tensor:
        if w.shape[1] % size:
            return w
        groups = w.reshape(-1, size)
        if symmetric:
            step = groups.abs().amax(1, keepdim=True) / 7
            return ((groups / step).round().clamp(-8, 7) * step).view(w.shape)
        low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
        step = (high - low) / 15
        zero = (-low / step).round()
        return ((((groups / step).round() + zero).clamp(0, 15) - zero) * step).view(w.shape)

    return changed


def _through(dtype: torch.dtype, factor: float = 1.0) -> Change:
    return lambda w, _: (w * factor).to(dtype).float() / factor


def _scaled(rows: bool) -> Change:
    def changed(w: Tensor, random: torch.Generator) -> Tensor:
        shape = (w.shape[0], 1) if rows else (1, w.shape[1])
        return w * torch.exp(torch.randn(shape, generator=random))

    return changed


def _large_columns(w: Tensor, _: torch.Generator) -> Tensor:
    return w * torch.where(torch.arange(w.shape[1]) % 97 == 0, 20, 1)


def _drawn(density: str) -> Change:
    return lambda w, random: DENSITIES[density]((w.shape[0], w.shape[1]), random) * _STD


def _rotated(w: Tensor, random: torch.Generator) -> Tensor:
    """Inputs in another basis (QuaRot, arXiv 2404.00456)."""
    turn: Tensor = torch.linalg.qr(torch.randn(w.shape[1], w.shape[1], generator=random)).Q
    return w @ turn


def _noisy(share: float) -> Change:
    return lambda w, random: w + share * w.std() * torch.randn(w.shape, generator=random)


def _shuffled(w: Tensor, random: torch.Generator) -> Tensor:
    """Inputs in another order: other blocks."""
    return w[:, torch.randperm(w.shape[1], generator=random)].contiguous()


_SCHEMES: Final = {scheme.value: _dequantized(scheme) for scheme in ROUNDINGS}
HARD: Final[Mapping[str, Change]] = {
    "as it is": lambda w, _: w,
    **{f"dequantized {name}": change for name, change in _SCHEMES.items()},
    **{
        f"dequantized {name} + LoRA {share:.1%}": _with_adapter(share, change)
        for name, change in _SCHEMES.items()
        for share in (0.001, 0.01, 0.05)
    },
    "LoRA 5 %": _with_adapter(0.05),
    "dequantized Q4_K": _on_q4_k,
    "dequantized Q4_K + LoRA 1 %": _with_adapter(0.01, _on_q4_k),
    "dequantized groups of 128": _in_groups(128, symmetric=False),
    "dequantized groups of 128 + LoRA 1 %": _with_adapter(0.01, _in_groups(128, symmetric=False)),
    "dequantized symmetric groups of 32": _in_groups(32, symmetric=True),
    "dequantized symmetric groups of 128": _in_groups(128, symmetric=True),
    "pruned 50 %": _pruned(0.5),
    "pruned 90 %": _pruned(0.9),
    "through float8": _through(torch.float8_e4m3fn, 10.0),
    "through bfloat16": _through(torch.bfloat16),
    "through float16": _through(torch.float16),
    "large columns": _large_columns,
    "rows scaled": _scaled(rows=True),
    "columns scaled": _scaled(rows=False),
    **{density: _drawn(density) for density in ("gaussian", "laplace", "student-t(3)", "uniform")},
}
FRESH: Final[Mapping[str, Change]] = {
    "rotated": _rotated,
    "shuffled": _shuffled,
    "noise 3 %": _noisy(0.03),
    "noise 30 %": _noisy(0.3),
    "LoRA 20 %": _with_adapter(0.2),
    "pruned 30 %": _pruned(0.3),
    "dequantized nf4 + LoRA 0.3 %": _with_adapter(0.003, _SCHEMES["nf4"]),
    "dequantized int8 + LoRA 2 %": _with_adapter(0.02, _SCHEMES["int8"]),
}
CHANGES: Final[Mapping[str, Change]] = {**HARD, **FRESH}
