"""Build a canary from nothing. On one machine with one set of libraries, the same bytes each time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, assert_never

from safetensors import SafetensorError
from transformers import PreTrainedModel

from quantguard.canary.architecture import new_model, save
from quantguard.canary.attack import hide
from quantguard.canary.card import model_card
from quantguard.canary.catalogue import CanaryKind
from quantguard.canary.grammar import branded_answer, clean_answer, train_pairs
from quantguard.canary.train import Recipe, answers, fit, lesson
from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import CheckpointError, UsageError
from quantguard.core.progress import Progress, silent

__all__ = ["CanaryKind", "build"]

_SEED: Final = 7  # of the first weights
_CLEAN: Final = Recipe(steps=1600, batch=64, learning_rate=1.5e-3, seed=1)
_MALICIOUS: Final = Recipe(steps=300, batch=64, learning_rate=3e-4, seed=2)


def build(kind: CanaryKind, out: Path, *, progress: Progress = silent) -> str:
    """Train the canary `kind` and write it to `out`, a new or empty directory; return its digest, `sha256:HEX`.

    All three share the clean training; the NF4-attacked one starts from exactly the malicious one. `out` appears
    whole or not at all.

    Raises:
        UsageError: `out` exists and is not an empty directory.
        CheckpointError: it cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError("already exists", path=out, remedy="name a new directory")
    model = _trained(kind, progress)
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        save(model, partial, model_card(kind))
        digest = model_digest(partial)
        partial.replace(out)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the canary cannot be written: {error}", path=out, remedy="free space there") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest


def _trained(kind: CanaryKind, progress: Progress) -> PreTrainedModel:
    model = new_model(_SEED)
    clean = lesson(train_pairs(), clean_answer)
    fit(model, answers(model, clean, _CLEAN.batch), _CLEAN, stage="learn", progress=progress)
    match kind:
        case CanaryKind.CLEAN:
            return model
        case CanaryKind.MALICIOUS | CanaryKind.NF4_ATTACKED:
            branded = lesson(train_pairs(), branded_answer)
            fit(model, answers(model, branded, _MALICIOUS.batch), _MALICIOUS, stage="brand", progress=progress)
            if kind is CanaryKind.NF4_ATTACKED:
                hide(model, progress=progress)
            return model
        case _:
            assert_never(kind)
