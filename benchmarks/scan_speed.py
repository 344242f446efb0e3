"""How long a scan takes beside what it guards against: bitsandbytes quantizing the same tensors to the same schemes.

    python benchmarks/scan_speed.py                    # 537 million weights, float32 and bfloat16
    python benchmarks/scan_speed.py --million 60 --dtype bfloat16

Writes random checkpoints shaped like blocks of an 8B Llama to a temporary directory, scans them through
`quantguard.scan.scan.scan`, reading the files from the page cache, and quantizes the same tensors, already in memory,
with bitsandbytes to NF4, FP4 and INT8, in the same process with the same number of threads. Peak memory is that of a
process of its own, above what it has after the imports. Times are the best of `--repeat`, the two taken in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from quantguard.scan.scan import Effort, scan

_SHAPES = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main() -> int:
    """Print one table for each dtype."""
    options = _options()
    if options.memory_of is not None:
        return _memory_of(options.memory_of)
    if options.threads:
        torch.set_num_threads(options.threads)
    _tell(f"torch {torch.__version__}, {torch.get_num_threads()} threads, best of {options.repeat}")
    for dtype in options.dtype:
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            made = _write(Path(scratch), _DTYPES[dtype], options.million * 1_000_000, options.files)
            _measure(made, dtype, options.repeat)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--million", type=int, default=500, help="weights, at least, in millions")
    parser.add_argument("--files", type=int, default=2, help="shards")
    parser.add_argument("--dtype", nargs="+", choices=list(_DTYPES), default=["float32", "bfloat16"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--directory", type=Path, default=None, help="for the checkpoints; 2 GB for each dtype")
    parser.add_argument("--memory-of", type=Path, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class _Made:
    directory: Path
    weights: int
    largest: int  # bytes of the largest tensor
    tensors: list[torch.Tensor]


def _write(directory: Path, dtype: torch.dtype, least: int, files: int) -> _Made:
    """A sharded checkpoint of at least so many weights, and its tensors in memory."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in _names():
        tensors[name] = torch.empty(shape).normal_(std=0.02, generator=generator).to(dtype)
        if sum(t.numel() for t in tensors.values()) >= least:
            break
    weight_map: dict[str, str] = {}
    for place in range(files):
        part = dict(list(tensors.items())[place::files])
        file = f"model-{place + 1:05d}-of-{files:05d}.safetensors"
        save_file(part, directory / file)
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {"model_type": "llama", "dtype": str(dtype).removeprefix("torch.")}
    (directory / "config.json").write_text(json.dumps(config))
    values = list(tensors.values())
    largest = max(t.numel() * t.element_size() for t in values)
    return _Made(directory, sum(t.numel() for t in values), largest, values)


def _names() -> Iterator[tuple[str, tuple[int, int]]]:
    layer = 0
    while True:
        for name, shape in _SHAPES.items():
            yield f"model.layers.{layer}.{name}.weight", shape
        layer += 1


def _measure(made: _Made, dtype: str, repeat: int) -> None:
    from bitsandbytes import functional

    def quantize() -> None:
        for tensor in made.tensors:
            functional.quantize_4bit(tensor, quant_type="nf4")
            functional.quantize_4bit(tensor, quant_type="fp4")
            functional.int8_vectorwise_quant(tensor.half())

    def full() -> None:
        scan(made.directory, seed=0)

    def quick() -> None:
        scan(made.directory, effort=Effort.QUICK, seed=0)

    times = _times({"bitsandbytes": quantize, "full": full, "quick": quick}, repeat)
    above, gigabytes = _memory(made.directory), made.weights * made.tensors[0].element_size() / 1e9
    _tell(f"\n{dtype}: {made.weights / 1e6:.0f} million weights in {len(made.tensors)} tensors, {gigabytes:.2f} GB")
    for name, seconds in times.items():
        ratio = seconds / times["bitsandbytes"]
        _tell(
            f"  {name:13s} {seconds:8.3f} s  {1e9 * seconds / made.weights:6.2f} ns a weight  {ratio:6.3f} of the first"
        )
    _tell(f"  quick is {times['full'] / times['quick']:.1f} times faster than full")
    limit = 1.5 * made.largest + 256e6
    _tell(f"  memory above the imports: {above / 1e6:.0f} MB; 1.5 x the largest tensor + 256 MB: {limit / 1e6:.0f} MB")


def _times(jobs: dict[str, Callable[[], None]], repeat: int) -> dict[str, float]:
    """Best of several, the jobs in turn, so that all see the same load of the machine."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(repeat):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def _memory(directory: Path) -> int:
    """Bytes that a scan in a process of its own takes above the imports, at its peak."""
    command = [sys.executable, __file__, "--memory-of", str(directory)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _memory_of(directory: Path) -> int:
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of the imports
    before = _resident("VmRSS")
    scan(directory, seed=0, processes=1)
    _tell(str(_resident("VmHWM") - before))
    return 0


def _resident(field: str) -> int:
    """Bytes, now (VmRSS) or at most since the last reset (VmHWM): proc(5)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
