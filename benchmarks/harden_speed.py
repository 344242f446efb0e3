"""What hardening costs, in units of a plain training step: forward and backward of the same model and batch.

    python benchmarks/harden_speed.py                        # 3 million linear weights on the CPU
    python benchmarks/harden_speed.py --shape 8b --device cuda --dtype bfloat16 --samples 1024 --tokens 512

A Llama with random weights and random tokens: behaviour is not looked at here. `quantguard` is timed by the step,
`auto` as a whole: one pass over the text, and the descent of every layer, for NF4, FP4 and INT8 at once. Times are the
best of `--repeat`, all taken in turn in one process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from quantguard.core.progress import silent
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.harden.auto import auto
from quantguard.harden.calibration import Batch, Corpus
from quantguard.harden.interface import Task
from quantguard.harden.kept import Kept
from quantguard.harden.quantguard import quantguard
from quantguard.harden.scales import deciding
from quantguard.harden.turns import Problem
from quantguard.models.load import LoadedModel
from quantguard.models.memory import free_memory

_SHAPES = {  # hidden, intermediate, layers, heads, heads of keys, vocabulary
    "small": (256, 704, 4, 4, 2, 2000),
    "1b": (2048, 8192, 16, 32, 8, 32_000),
    "8b": (4096, 14336, 32, 32, 8, 128_256),
}


@dataclass(frozen=True)
class _Given(Corpus):
    """Batches that are there already."""

    given: tuple[Batch, ...] = ()

    def once(self) -> tuple[Batch, ...]:
        return self.given


def main() -> int:
    """Print the figures."""
    options = _options()
    torch.manual_seed(0)
    model = _model(options.shape, options.device, getattr(torch, options.dtype))
    batches = tuple(_batch(model, options) for _ in range(-(-options.samples // options.batch)))
    weights = {
        f"{n}.weight": m.weight for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "head" not in n
    }
    count = sum(weight.numel() for weight in weights.values())
    sys.stdout.write(
        f"{options.shape}: {count / 1e6:.0f} million linear weights, {options.dtype}, {_device(options.device)};"
        f" batch of {options.batch} x {options.tokens} tokens, {len(batches)} batches; torch {torch.__version__},"
        f" {torch.get_num_threads()} threads, best of {options.repeat}\n\n| | seconds | plain steps |\n|---|---|---|\n"
    )
    jobs: dict[str, Callable[[], None]] = {"plain step": lambda: _plain(model, weights, batches[0])}
    for scheme in () if options.auto_only else Scheme:
        jobs[f"`quantguard` step, {scheme.value}"] = _step(model, weights, batches[0], scheme, options.device)
    jobs[f"`auto`, all of it, {len(batches)} batches"] = lambda: _auto(model, weights, batches, options.device)
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(options.repeat):
        for name, job in jobs.items():
            best[name] = min(best[name], _seconds(job, options.device))
    for name, seconds in best.items():
        sys.stdout.write(f"| {name} | {seconds:.2f} | {seconds / best['plain step']:.2f} |\n")
    if options.device.startswith("cuda"):
        sys.stdout.write(f"\nmost memory: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=list(_SHAPES), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--samples", type=int, default=64, help="texts that auto reads once")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--auto-only", action="store_true", help="leave the quantguard steps out")
    return parser.parse_args()


def _model(shape: str, device: str, dtype: torch.dtype) -> LlamaForCausalLM:
    hidden, intermediate, layers, heads, keys, vocabulary = _SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        vocab_size=vocabulary,
        dtype=dtype,
    )
    with torch.device(device):
        made: Any = LlamaForCausalLM(config)
        made = made.to(dtype)
    made.requires_grad_(False)
    return made  # type: ignore[no-any-return]


def _batch(model: LlamaForCausalLM, options: argparse.Namespace) -> Batch:
    tokens = torch.randint(0, model.config.vocab_size, (options.batch, options.tokens), device=options.device)
    return Batch(tokens, torch.ones_like(tokens))


def _plain(model: LlamaForCausalLM, weights: dict[str, Tensor], batch: Batch) -> None:
    for weight in weights.values():
        weight.requires_grad_(True)
    loss = model(input_ids=batch.tokens, attention_mask=batch.mask, labels=batch.tokens, use_cache=False).loss
    loss.backward()
    for weight in weights.values():
        weight.grad = None
        weight.requires_grad_(False)


def _step(
    model: LlamaForCausalLM, weights: dict[str, Tensor], batch: Batch, scheme: Scheme, device: str
) -> Callable[[], None]:
    """Four steps less one, a third each: what is done once for all steps is left out."""
    frozen = {name: deciding(weight) for name, weight in weights.items()}
    loaded = _loaded(model, device)

    def several(steps: int) -> float:
        began = time.perf_counter()
        quantguard(Problem(loaded, grid_for(scheme), weights, frozen, [batch] * steps, steps, 0), silent)
        _synchronize(device)
        return time.perf_counter() - began

    def job() -> None:
        job.seconds = (several(4) - several(1)) / 3  # type: ignore[attr-defined]

    return job


def _loaded(model: LlamaForCausalLM, device: str) -> LoadedModel:
    return LoadedModel(model, cast(PreTrainedTokenizerBase, None), None, device, chat=False)  # no text is read


def _auto(model: LlamaForCausalLM, weights: dict[str, Tensor], batches: tuple[Batch, ...], device: str) -> None:
    loaded = _loaded(model, device)
    corpus = _Given(loaded, tuple, 0, 0, batches)
    with tempfile.TemporaryDirectory() as scratch:
        kept = Kept(Path(scratch) / "kept", "speed")
        shapes = {name: (len(weight), weight.shape[1]) for name, weight in weights.items()}
        room = partial(free_memory, device)
        auto(Task(loaded, tuple(Scheme), weights, shapes, corpus, kept, 0, 0, room), silent)


def _seconds(job: Callable[[], None], device: str) -> float:
    _synchronize(device)
    began = time.perf_counter()
    job()
    _synchronize(device)
    return float(getattr(job, "seconds", time.perf_counter() - began))


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _device(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


if __name__ == "__main__":
    sys.exit(main())
