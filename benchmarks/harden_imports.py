"""What every run of `harden.py` imports, imported once, and quietly: a run's memory is then counted without it."""

from __future__ import annotations

import importlib

import harden_work  # noqa: F401

from quantguard.models.quiet import quiet_libraries

with quiet_libraries():
    for name in ("bitsandbytes", *(f"transformers.models.{m}.modeling_{m}" for m in ("llama", "gpt_neox"))):
        importlib.import_module(name)
