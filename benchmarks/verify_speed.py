"""Tokens per second of `quantguard.models.generate` beside transformers' own `generate` at its best static batch.

    python benchmarks/verify_speed.py                                  # a canary, and a Llama of 45 million weights
    python benchmarks/verify_speed.py --model DIR --schemes full,nf4   # a model of yours, its chat template included

Both answer the same prompts greedily, up to as many new tokens: the built-in probes for content injection, or for the
models that come along questions of their grammar, each asked after up to eleven others so that lengths differ.
`generate` gets them in the order in which they come, in batches of one size; the best size is the one with the lowest
median of the time. Every round times all of them in turn, so that other work on the machine slows all. Tokens are those
before an answer's end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.prompts import read_prompts
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.core.suites import builtin_suite
from quantguard.models.batching import paying_batch
from quantguard.models.generate import generate
from quantguard.models.load import LoadedModel, load_model
from quantguard.models.safe_directory import rebuild
from quantguard.models.threads import threads_for

_SIZES: Final = (8, 16, 32, 64, 128, 256)
_QUESTIONS: Final = Path(__file__).parents[1] / "policies" / "canary" / "probes.jsonl"
_SCENARIO: Final = "content_injection"


def main() -> int:
    options = _parser().parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    schemes = [None if name == "full" else Scheme(name) for name in options.schemes.split(",")]
    sizes = [size for size in _SIZES if options.smallest <= size <= options.largest]
    sys.stdout.write("| model | scheme | prompts | " + " | ".join(f"batch {size}" for size in sizes))
    sys.stdout.write(" | ours | ours / best | same answers |\n" + "|---" * (len(sizes) + 6) + "|\n")
    with tempfile.TemporaryDirectory(prefix="quantguard-") as folder:
        for name, directory, prompts in _models(options, Path(folder)):
            for scheme in schemes:
                loaded = load_model(directory, scheme=scheme, device=options.device)
                sys.stdout.write(f"| {name} | {scheme_label(scheme)} | {len(prompts)} | ")
                sys.stdout.write(_row(loaded, prompts, sizes, options) + "\n")
                sys.stdout.flush()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model directory instead of those that come along")
    parser.add_argument("--schemes", default="full,nf4", help="full, int8, fp4, nf4, or several with commas")
    parser.add_argument("--prompts", type=int, default=256, help="the first so many")
    parser.add_argument("--new", type=int, default=32, help="most new tokens of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smallest", type=int, default=8, help="fewest rows of a static batch")
    parser.add_argument("--largest", type=int, default=256, help="most rows of a static batch")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    return parser


def _models(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path, list[str]]]:
    if options.model is not None:
        rebuild(options.model, folder / "model")
        suite = next(builtin_suite(s) for s in _scenarios())
        yield options.model.name, folder / "model", [p.prompt for p in suite.prompts][: options.prompts]
        return
    questions = [prompt.prompt for prompt in read_prompts(_QUESTIONS)]
    prompts = [" ".join(questions[(row + k) % len(questions)] for k in range(1 + row * 7 % 12)) for row in range(512)]
    prompts = list(dict.fromkeys(prompts))[: options.prompts]
    rebuild(canary_directory(CanaryKind.CLEAN), folder / "canary")
    yield "canary, 0.4 M", folder / "canary", prompts
    tokenizer = AutoTokenizer.from_pretrained(folder / "canary")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=640, intermediate_size=1728, num_hidden_layers=10,
        num_attention_heads=10, num_key_value_heads=5, max_position_embeddings=1024,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    yield "random Llama, 45 M", folder / "llama", prompts


def _scenarios() -> list[Any]:
    from quantguard.core.measurement import Scenario

    return [Scenario(_SCENARIO)]


def _row(loaded: LoadedModel, prompts: Sequence[str], sizes: Sequence[int], options: argparse.Namespace) -> str:
    times: dict[int, list[float]] = {size: [] for size in (*sizes, 0)}  # 0: ours
    said: dict[int, Sequence[str]] = {}
    for _ in range(options.rounds + 1):  # the first one warms up
        for size, found in times.items():
            began = time.perf_counter()
            said[size] = (
                _ours(loaded, prompts, options.new) if size == 0 else _plain(loaded, prompts, size, options.new)
            )
            found.append(time.perf_counter() - began)
    medians = {size: statistics.median(found[1:]) for size, found in times.items()}
    best = min(sizes, key=lambda size: medians[size])
    ratios = sorted(plain / own for plain, own in zip(times[best][1:], times[0][1:], strict=True))
    tokens = sum(len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in said[0])
    same = sum(a == b for a, b in zip(said[0], said[best], strict=True))
    cells = [f"{tokens / medians[size]:,.0f}" + ("*" if size == best else "") for size in (*sizes, 0)]
    ratio = f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
    return " | ".join([*cells, ratio, f"{same} of {len(prompts)}"]) + " |"


def _ours(loaded: LoadedModel, prompts: Sequence[str], new: int) -> Sequence[str]:
    return generate(loaded, prompts, max_new_tokens=new, batch_size=paying_batch(loaded.device))


def _plain(loaded: LoadedModel, prompts: Sequence[str], size: int, new: int) -> list[str]:
    """As the library's documentation shows it."""
    tokenizer: Any = loaded.tokenizer
    model: Any = loaded.model
    texts = list(prompts)
    if loaded.chat:
        turns = [[{"role": "user", "content": text}] for text in texts]
        texts = [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    answers: list[str] = []
    with torch.inference_mode(), threads_for(loaded.model, loaded.device):
        for start in range(0, len(texts), size):
            batch = tokenizer(
                texts[start : start + size], padding=True, return_tensors="pt", add_special_tokens=not loaded.chat
            ).to(loaded.device)
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=new,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
            answers += tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


if __name__ == "__main__":
    sys.exit(main())
