"""The same law under coverage guidance: atheris, on the modules of quantguard.checkpoint alone.

    mkdir -p build/fuzz/headers && python -m tests.fuzz.coverage headers build/fuzz/headers -max_total_time=60

The second argument is an empty folder to work in, and any option of libFuzzer may follow.

Here an input is the bytes of one file of an honest model. libFuzzer changes them by what code they reach; every other
time the structured mutators of the long run do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Final

import atheris

with atheris.instrument_imports(include=["quantguard.checkpoint"]):
    import quantguard.checkpoint.admit
    import quantguard.checkpoint.consistency
    import quantguard.checkpoint.tensors  # noqa: F401

from quantguard.checkpoint.layout import CONFIG, INDEX, SINGLE
from tests.fuzz import seeds
from tests.fuzz.chance import change_bytes, change_json, encoded, parsed
from tests.fuzz.law import judge
from tests.fuzz.soak import warm_up
from tests.fuzz.targets import TARGETS
from tests.fuzz.tensors import changed_file
from tests.fuzz.tree import Disk

_TEMPLATE: Final = "chat_template.jinja"
Mutate = Callable[[Random, bytes], bytes]


def _json(chance: Random, raw: bytes) -> bytes:
    try:
        return encoded(chance, change_json(chance, parsed(raw)))
    except (ValueError, RecursionError):
        return change_bytes(chance, raw)


def _file(chance: Random, raw: bytes) -> bytes:
    try:
        return changed_file(chance, raw)
    except (ValueError, RecursionError, AttributeError, IndexError, TypeError):
        return change_bytes(chance, raw)


# Seconds an input, MiB of the process, bytes of an input; the counts at the end are what the tests read.
LIMITS: Final[Mapping[str, int]] = {"timeout": 10, "rss_limit_mb": 4096, "max_len": 65_536, "print_final_stats": 1}
_FURNISHED: Final = {path: raw for path, raw in seeds.furnished().items() if path != "MLmodel"}  # it takes milliseconds
_PLAIN: Final = seeds.single("llama")
FILES: Final[Mapping[str, tuple[Mapping[str, bytes], str, Mutate]]] = {
    "headers": (_PLAIN, SINGLE, _file),
    "indexes": (seeds.sharded(), INDEX, _json),
    "configs": (seeds.single("gpt2"), CONFIG, _json),
    "tokenizers": (_FURNISHED, "tokenizer.json", _json),
    "templates": ({**_PLAIN, _TEMPLATE: _FURNISHED[_TEMPLATE]}, _TEMPLATE, change_bytes),
    "orders": ({**_PLAIN, "MLmodel": seeds.MLMODEL}, "MLmodel", change_bytes),
}


def main() -> None:
    """Fuzz the file that the first argument names until libFuzzer has enough; it ends the process."""
    name, work, *options = sys.argv[1:]
    base, path, mutate = FILES[name]
    honest = base[path]
    corpus = Path(work) / "corpus"
    corpus.mkdir(exist_ok=True)
    (corpus / "honest").write_bytes(honest)
    disk = Disk(Path(work) / "model")
    warm_up(disk)
    read = TARGETS["headers"].read

    def one(data: bytes) -> None:
        disk.become({**base, path: data or honest})
        breach = judge(disk.root, read).breach
        if breach and not breach.startswith("took "):  # libFuzzer's -timeout judges time, by more than one go
            raise AssertionError(breach)

    def change(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, most))
        return mutate(Random(seed), data or honest)[:most]

    limits = [f"-{key}={value}" for key, value in LIMITS.items()]
    found = f"-artifact_prefix={work}/"
    atheris.Setup([sys.argv[0], *limits, found, *options, str(corpus)], one, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
