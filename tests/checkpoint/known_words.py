"""The words of transformers that `quantguard.checkpoint` judges by, told by the installed transformers itself.

`make schemas` writes them to quantguard/checkpoint/known_words.json; a test says whether that is current. They are
checked in because that room never imports transformers: hostile files are judged before it starts.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import transformers
from transformers import GenerationConfig, PreTrainedConfig, configuration_utils, modeling_rope_utils
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import quantization_config

from quantguard.checkpoint.config_keys import KEYED_BY_USERS

_ROOT = Path(transformers.__file__).parent


def known_words_text() -> str:
    """What known_words.json should hold: one word a line, so that an upgrade can be read as a difference."""
    for model_type in CONFIG_MAPPING:
        CONFIG_MAPPING[model_type]  # imported, so that it is among the subclasses
    words = {
        "transformers": transformers.__version__,
        "config": sorted(_config_words()),
        "generation": sorted(GenerationConfig().to_dict().keys() | _members(_tree(inspect.getfile(GenerationConfig)))),
        "quantization": sorted(_quantization_words()),
        "base_model_prefixes": sorted(_prefixes()),
    }
    return json.dumps(words, indent=0) + "\n"


def _config_words() -> set[str]:
    words = set(configuration_utils.ALLOWED_LAYER_TYPES)  # the keys of rope_parameters where layers differ
    words |= set(modeling_rope_utils.RopeParameters.__annotations__)
    for each in {PreTrainedConfig, *_below(PreTrainedConfig)}:
        words |= _arguments(each) | set(each.attribute_map) | set(each.sub_configs)
    for model_type in CONFIG_MAPPING:
        with suppress(Exception):  # a few configurations have no valid default
            words |= set(_keys(json.loads(CONFIG_MAPPING[model_type]().to_json_string(use_diff=False))))
    for path in (_ROOT / "configuration_utils.py", *_ROOT.glob("models/*/configuration_*.py")):
        words |= _members(_tree(path))
    return words


def _keys(value: Any) -> Iterator[str]:
    """What a configuration writes of its own accord, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from _keys(item)
    elif isinstance(value, dict):
        for key, below in value.items():
            yield key
            if key not in KEYED_BY_USERS:
                yield from _keys(below)


def _quantization_words() -> set[str]:
    classes = {c for _, c in inspect.getmembers(quantization_config, inspect.isclass) if hasattr(c, "to_dict")}
    words = {word for each in classes for word in _arguments(each)}
    return words | _members(_tree(inspect.getfile(quantization_config)))


def _below(parent: type) -> Iterator[Any]:
    children: list[type] = parent.__subclasses__()
    for child in children:
        if child.__module__.startswith("transformers."):  # whatever else a test run has defined
            yield child
            yield from _below(child)


def _arguments(each: type) -> set[str]:
    named = {f.name for f in fields(each)} if is_dataclass(each) else set()
    return (named | set(inspect.signature(each).parameters)) - {"args", "kwargs"}


def _tree(path: str | Path) -> ast.Module:
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def _members(tree: ast.AST) -> set[str]:
    """What a configuration sets on itself, and what it takes out of its keyword arguments by name."""
    words = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=word, ctx=ast.Store()):
                words.add(word)
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="kwargs"), attr="pop" | "get" | "setdefault"),
                args=[ast.Constant(value=str(word)), *_],
            ):
                words.add(word)
            case ast.Compare(left=ast.Constant(value=str(word)), comparators=[ast.Name(id="kwargs")]):
                words.add(word)
    return words


def _prefixes() -> set[str]:
    """First components of what a model class may call its base model: the loader adds and strips that name."""
    names = set()
    for path in _ROOT.glob("models/*/modeling_*.py"):
        for node in ast.walk(_tree(path)):
            match node:
                case ast.Assign(targets=[ast.Name(id="base_model_prefix")], value=ast.Constant(value=str(name))):
                    names.add(name)
    return names - {""}


if __name__ == "__main__":
    print(known_words_text(), end="")  # noqa: T201  a command of make
