"""The words of transformers that files are judged by, and those that published models have beside them.

known_words.json is made from the installed transformers (`make schemas`); this room itself never imports it.
published_words.json is written by hand: what transformers 4 and the authors of architectures (`legacy`), the tools
around a model (`tools`), speech models' and servers' generation (`speech`) and programs that quantize (`quantizers`)
left in files that people publish and no program here reads.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from quantguard.checkpoint.orders import ORDERED_BY_KEY


@cache
def _words(*kinds: str) -> frozenset[str]:
    files = (resources.files("quantguard.checkpoint") / f"{name}_words.json" for name in ("known", "published"))
    known = {kind: words for file in files for kind, words in json.loads(file.read_text(encoding="utf-8")).items()}
    return frozenset().union(*(known[kind] for kind in kinds))


@cache
def config_words() -> frozenset[str]:
    """Keys that config.json may have at any depth, less those of a `quantization_config`."""
    # A key that gives orders has a rule of its own, which looks at its value.
    return _words("config", "generation", "legacy", "tools") | ORDERED_BY_KEY


@cache
def generation_words() -> frozenset[str]:
    """Keys that generation_config.json may have at any depth."""
    return config_words() | _words("speech")


@cache
def quantization_words() -> frozenset[str]:
    """Keys that a `quantization_config` may have."""
    return config_words() | _words("quantization", "quantizers")


@cache
def base_model_prefixes() -> frozenset[str]:
    """What model classes call their base model: the loader adds this to a tensor's name, or takes it away."""
    return _words("base_model_prefixes")
