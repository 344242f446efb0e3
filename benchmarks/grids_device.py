"""Whether a device's own quantization kernels store the codes that our grids say, code by code.

    python benchmarks/grids_device.py --device cuda
    python benchmarks/grids_device.py --device cuda --model quantguard/canary/models/nf4-attacked --model ./hardened

The laws of tests/grids hold our arithmetic against the library's on a CPU, bit for bit. A deployed model is rounded by
the kernels of its GPU, which may divide otherwise or keep other constants. Random weights (normal, 4096 x 4096) and
those of models are rounded there by real bitsandbytes, and every code is compared. For codes that differ: how far
from its boundary the weight lies at most, in cells.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from torch import Tensor

from quantguard.core.scheme import ROUNDINGS
from quantguard.grids.grid import Grid, grid_for
from quantguard.models.quantized import quantized_alone

_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)
_SIDE: Final = 4096


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a directory; again for more")
    options = parser.parse_args()
    where = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else "CPU"
    sys.stdout.write(
        f"{where}, torch {torch.__version__}\n\n| weights | scheme | codes | differ | share | farthest |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for name, weights in _cases(options.model):
        for scheme in ROUNDINGS:
            grid = grid_for(scheme)
            counts = [_differing(grid, weight, options.device) for weight in weights]
            codes, differ = sum(weight.numel() for weight in weights), sum(count for count, _ in counts)
            farthest = max(distance for _, distance in counts)
            cells = (name, scheme.value, f"{codes:,}", f"{differ:,}", f"{differ / codes:.1e}", f"{farthest:.1e}")
            sys.stdout.write(f"| {' | '.join(cells)} |\n")
            sys.stdout.flush()
    return 0


def _cases(models: list[Path]) -> Iterator[tuple[str, list[Tensor]]]:
    for dtype in _DTYPES:
        generator = torch.Generator().manual_seed(0)
        yield f"normal, {dtype}".replace("torch.", ""), [torch.randn(_SIDE, _SIDE, generator=generator).to(dtype)]
    for model in models:
        yield model.name, list(_linear_weights(model))


def _linear_weights(model: Path) -> Iterator[Tensor]:
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (it is no mapping)
                if name.endswith("proj.weight"):
                    yield opened.get_tensor(name)


def _differing(grid: Grid, weight: Tensor, device: str) -> tuple[int, float]:
    """How many codes of the (rows, columns) `weight` differ, and the farthest of them from its boundary, in cells."""
    values = quantized_alone(weight.to(device), grid.scheme).cpu()  # (rows, columns)
    units = grid.unit(weight)
    midpoints = grid.boundaries
    there = torch.bucketize(torch.where(units > 0, values / units, torch.zeros(())), midpoints)
    differ = there != grid.nearest(weight)
    if not bool(differ.any()):
        return 0, 0.0
    place = grid.position_in_cell(weight)[differ]
    return int(differ.sum()), float(torch.minimum(place, 1 - place).max())


if __name__ == "__main__":
    sys.exit(main())
