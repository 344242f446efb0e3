"""What hardening costs, in units of a plain training step: forward and backward of the same model and batch.

    python benchmarks/harden_speed.py                        # 3 and 45 million linear weights on the CPU
    python benchmarks/harden_speed.py --shapes 8b --device cuda --dtypes bfloat16 --samples 1024 --tokens 512

Llamas with random weights and random tokens: behaviour is not looked at here. A plain step is timed after each step of
the paper's method, so that other work on the machine slows both, and a step is the median of the ratios of neighbours.
`auto` is timed as a whole, for NF4, FP4 and INT8 at once, with plain steps between its layers. What is done once
(constants, what the teacher says of each text, the final choice) is in the figures for the whole.
Memory is what a method takes at most, beside the model and what the process had before.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from quantguard.core.scheme import ROUNDINGS, Scheme
from quantguard.harden.auto import auto
from quantguard.harden.calibration import Batch, Corpus
from quantguard.harden.interface import Method, Task
from quantguard.harden.kept import Kept
from quantguard.harden.quantguard import quantguard
from quantguard.harden.turns import in_turn
from quantguard.models.load import LoadedModel
from quantguard.models.memory import free_memory

_SHAPES: Final = {  # hidden, intermediate, layers, heads, heads of keys, vocabulary
    "3m": (256, 704, 4, 4, 2, 2000),
    "45m": (640, 1728, 10, 10, 5, 8000),
    "1b": (2048, 8192, 16, 32, 8, 32_000),
    "8b": (4096, 14336, 32, 32, 8, 128_256),
}
_COLUMNS: Final = (
    "model", "dtype", "threads", "plain step, s", "step of `quantguard`", "`quantguard`, whole", "`auto`, whole",
    "MB: plain", "`quantguard`", "`auto`",
)  # fmt: skip


@dataclass(frozen=True)
class _Tokens(Corpus):
    """Texts that are tokens already."""

    rows: tuple[Tensor, ...] = ()

    def _encoded(self) -> list[Tensor]:
        return list(self.rows)


class _Plain:
    """The plain step."""

    def __init__(self, model: LlamaForCausalLM, weights: Sequence[str], tokens: Tensor) -> None:
        self.device = tokens.device.type
        self._model: Any = model
        self._batch = Batch(tokens, torch.ones_like(tokens))
        self._parameters = [model.get_parameter(name) for name in weights]

    def __call__(self) -> float:
        """Seconds."""
        tokens, mask = self._batch.tokens, self._batch.mask
        _synchronize(self.device)
        began = time.perf_counter()
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._model(input_ids=tokens, attention_mask=mask, labels=tokens, use_cache=False).loss.backward()
        for parameter in self._parameters:
            parameter.grad = None
            parameter.requires_grad_(False)
        _synchronize(self.device)
        return time.perf_counter() - began


@dataclass
class _Clock:
    """A progress that times what was done since it was last told and, if that is enough, a plain step."""

    plain: _Plain
    stage: str  # after whose steps plain ones are timed
    least: float  # seconds of work between them
    work: list[float] = field(default_factory=list)  # seconds before each plain step
    plains: list[float] = field(default_factory=list)  # seconds
    rest: float = 0.0  # seconds of work since the last one
    memory: int = 0  # bytes, the most beside `before`
    before: int = 0
    began: float = 0.0
    mode: str = ""

    def resume(self) -> None:
        _forget_peak(self.plain.device)
        self.began = time.perf_counter()

    def pause(self) -> None:
        _synchronize(self.plain.device)
        self.rest += time.perf_counter() - self.began
        self.memory = max(self.memory, _memory(self.plain.device, peak=True) - self.before)

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:  # noqa: ARG002
        self.mode = detail if stage == "harden, mode" else self.mode
        if stage != self.stage:
            return
        self.pause()
        if self.rest >= self.least:
            self.work.append(self.rest)
            self.plains.append(self.plain())
            self.rest = 0.0
        self.resume()

    @property
    def whole(self) -> float:
        """All of the work in plain steps, of which the mean counts: outliers are in the work too."""
        return (sum(self.work) + self.rest) / statistics.fmean(self.plains)


def main() -> int:
    """Print the table."""
    options = _options()
    where = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else "CPU"
    sys.stdout.write(
        f"torch {torch.__version__}, {where}; batches of {options.batch} x {options.tokens} tokens, {options.samples}"
        f" texts, {options.steps} steps of `quantguard` for {options.scheme}; medians [95 % interval]; the last three"
        " columns are the most memory\n\n"
        f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}\n"
    )
    for shape, dtype, threads in product(options.shapes, options.dtypes, options.threads):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        sys.stdout.write(f"| {' | '.join(_row(options, shape, dtype, threads))} |\n")
        sys.stdout.flush()
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", choices=list(_SHAPES), nargs="+", default=["3m", "45m"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", choices=["float32", "bfloat16", "float16"], nargs="+", default=["float32"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--samples", type=int, default=40, help="texts")
    parser.add_argument("--steps", type=int, default=25, help="optimizer steps of quantguard")
    parser.add_argument("--scheme", choices=[scheme.value for scheme in ROUNDINGS], default="nf4", help="of quantguard")
    parser.add_argument("--methods", choices=["quantguard", "auto"], nargs="+", default=["quantguard", "auto"])
    return parser.parse_args()


def _row(options: argparse.Namespace, shape: str, dtype: str, threads: int) -> list[str]:
    model = _model(shape, options.device, getattr(torch, dtype))
    rows = torch.randint(0, model.config.vocab_size, (options.samples, options.tokens))
    names = [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "head" not in n]
    plain = _Plain(model, names, rows[: options.batch].to(options.device))
    plain()
    before = _memory(options.device)
    _forget_peak(options.device)
    plains = [plain()]
    taken = {"plain": _memory(options.device, peak=True) - before}
    whole = dict.fromkeys(("quantguard", "auto"), "-")
    step = "-"
    for method in options.methods:
        clock = _timed(options, method, model, names, (rows, plain))
        plains += clock.plains
        whole[method], taken[method] = f"{clock.whole:.0f}", clock.memory
        if method == "quantguard":
            step = _median([work / other for work, other in zip(clock.work[1:], clock.plains[1:], strict=True)])
            sys.stderr.write(f"{clock.mode}\n")
    count = sum(model.get_parameter(name).numel() for name in names) / 1e6
    memory = [f"{taken[name] / 1e6:.0f}" if name in taken else "-" for name in ("plain", "quantguard", "auto")]
    seconds = f"{statistics.median(plains):.2f}"
    return [f"{count:.0f} M", dtype, f"{threads}", seconds, step, whole["quantguard"], whole["auto"], *memory]


def _timed(
    options: argparse.Namespace,
    method: str,
    model: LlamaForCausalLM,
    names: Sequence[str],
    given: tuple[Tensor, _Plain],
) -> _Clock:
    rows, plain = given
    run: Method = auto if method == "auto" else in_turn(quantguard)
    schemes = ROUNDINGS if method == "auto" else (Scheme(options.scheme),)
    stage = "harden, layers" if method == "auto" else f"harden {options.scheme}"
    clock = _Clock(plain, stage, plain() if method == "auto" else 0.0)
    loaded = LoadedModel(model, cast(PreTrainedTokenizerBase, None), None, options.device, chat=False)
    weights = {name: model.get_parameter(name).detach() for name in names}
    shapes = {name: (weight.shape[0], weight.shape[1]) for name, weight in weights.items()}
    corpus = _Tokens(loaded, tuple, options.batch, 0, tuple(rows))
    room = partial(free_memory, options.device)
    with tempfile.TemporaryDirectory() as scratch:
        kept = Kept(Path(scratch) / "kept", "speed")
        clock.before = _memory(options.device)
        clock.resume()
        run(Task(loaded, schemes, weights, shapes, corpus, kept, options.steps, 0, room), clock)
        clock.pause()
    return clock


def _median(values: Sequence[float]) -> str:
    """With the order statistics that hold the median with 95 % (of the normal approximation)."""
    ordered, count = sorted(values), len(values)
    reach = 0.98 * math.sqrt(count)
    low, high = max(0, math.floor(count / 2 - reach)), min(count - 1, math.ceil(count / 2 + reach))
    return f"{statistics.median(ordered):.2f} [{ordered[low]:.2f}, {ordered[high]:.2f}]"


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


def _memory(device: str, *, peak: bool = False) -> int:
    """Bytes that are taken now or, with `peak`, were at most since `_forget_peak`."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    if not peak:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else what was freed before still counts
    field_name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field_name))


def _forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
