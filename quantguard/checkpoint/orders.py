"""Orders that data files give to loaders: which class to import, which kernel or other weights to fetch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from quantguard.checkpoint.files import Pairs, parse_json, quote, read_bounded
from quantguard.core.errors import CheckpointError

MAX_JSON: Final = 8 * 1024 * 1024  # bytes
MAX_MLMODEL: Final = 128 * 1024  # bytes; PyYAML reads some 100 kB a second of what is made to be slow


@dataclass(frozen=True, slots=True)
class Order:
    rule: Literal["remote_code", "redirect", "steering"]
    message: str


Orders = tuple[Order, ...]

# transformers merges an adapter into the base model that it names, and follows it alone where config.json is absent.
_ADAPTER: Final = Order("redirect", "makes transformers load an adapter over, or another model instead of, the weights")
ORDERED_BY_NAME: Final[Mapping[str, Order]] = {"adapter_config.json": _ADAPTER}


def json_members(root: Path, name: str) -> Pairs:
    """Every member of every object of a JSON file, those whose key occurs twice too: parsers differ in which they use.

    Raises:
        UnsafeCheckpointError: not a regular file.
        CheckpointError: absent, larger than MAX_JSON, not JSON, or nested too deep.
    """
    found: Pairs = []

    def note(members: Pairs) -> dict[str, Any]:
        found.extend(members)
        return dict(members)

    data = read_bounded(root, name, MAX_JSON)
    try:
        parse_json(data, pairs=note)
    except ValueError as error:
        raise CheckpointError(f"{quote(name)} is not valid JSON: {error}", path=root) from error
    return found


def json_orders(members: Pairs) -> Orders:
    """The orders among the members of a JSON file."""
    return tuple(dict.fromkeys(order for key, value in members for order in _json_order(key, value)))


def _json_order(key: str, value: Any) -> Iterator[Order]:
    check = _CHECKS.get(key)
    if check is not None and check.applies(value):
        yield check.order


def _is_set(value: Any) -> bool:
    return value not in (None, {}, [], "", False)


_MOST_KERNELS: Final = 1000  # values below one key; models have two or three parts


def _names_repository(value: Any) -> bool:
    """`owner/kernel`, alone or in a mapping: transformers fetches it from the hub and runs it.

    No recursion: JSON may be nested as deep as its parser goes, which leaves no room for more. And not without end: of
    such keys in one another, each would look at all that is below. More values than a model has parts count as yes.
    """
    pending, seen = [value], 0
    while pending:
        item = pending.pop()
        seen += 1
        if isinstance(item, dict):
            if seen + len(pending) + len(item) > _MOST_KERNELS:
                return True
            pending.extend(item.values())
        elif isinstance(item, str) and "/" in item:
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Check:
    applies: Callable[[Any], bool]
    order: Order


def _code(message: str, applies: Callable[[Any], bool] = _is_set) -> _Check:
    return _Check(applies, Order("remote_code", message))


_KERNEL: Final = _code(
    "its attention or experts implementation names a repository whose kernels transformers would fetch and run",
    _names_repository,
)


def _steering(key: str) -> _Check:
    return _Check(
        _is_set, Order("steering", f"{key} makes generate favour, force or forbid words, whatever the weights say")
    )


# Decoding settings that decide what is said. Temperature and the like change how often, not what.
_STEERING: Final = (
    "sequence_bias",
    "bad_words_ids",
    "force_words_ids",
    "constraints",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "forced_decoder_ids",
    "watermarking_config",
    "custom_generate",
    "stop_strings",
)
_CHECKS: Final[Mapping[str, _Check]] = {
    **{key: _steering(key) for key in _STEERING},
    "auto_map": _code("auto_map names Python classes that transformers would import from the model or a repository"),
    "auto_mapping": _code("auto_mapping names a library that PEFT would import"),
    "custom_pipelines": _code("custom_pipelines names Python classes that transformers would import"),
    "trust_remote_code": _code("trust_remote_code asks the loader to run code that comes with the model"),
    "attn_implementation": _KERNEL,
    "_attn_implementation": _KERNEL,
    "experts_implementation": _KERNEL,
    "_experts_implementation": _KERNEL,
    "transformers_weights": _Check(
        _is_set, Order("redirect", "transformers_weights names another file to load than model.safetensors")
    ),
}
ORDERED_BY_KEY: Final = frozenset(_CHECKS)

_OWN_LOADER: Final = re.compile(r"mlflow(\.[a-z_]+)*\Z")


def mlmodel_orders(root: Path, name: str) -> Orders:
    """The orders in an MLflow `MLmodel` file: code directories, model scripts, and loaders that are not MLflow's own.

    Raises:
        UnsafeCheckpointError: not a regular file.
        CheckpointError: absent, larger than MAX_MLMODEL, not YAML, or nested too deep.
    """
    data = read_bounded(root, name, MAX_MLMODEL)
    loader = None
    try:
        # BaseLoader makes strings, lists and dicts and nothing else: no objects, dates or numbers of a million digits.
        loader = yaml.BaseLoader(data)
        document = loader.get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:  # the last of "\UFFFFFFFF"
        raise CheckpointError(f"{quote(name)} is not valid YAML: {type(error).__name__}", path=root) from error
    finally:
        if loader is not None:
            loader.dispose()
    return tuple(
        dict.fromkeys(_mlmodel_order(key, value) for key, value in _members(document) if _is_order(key, value))
    )


def _is_order(key: str, value: Any) -> bool:
    if key == "loader_module":
        return not (isinstance(value, str) and _OWN_LOADER.match(value))
    # To BaseLoader `null` is a word.
    return key in ("code", "model_code_path") and _is_set(value) and value not in ("null", "~")


def _mlmodel_order(key: str, value: Any) -> Order:
    shown = quote(value) if isinstance(value, str) else "a structure"
    return Order("remote_code", f"{key} is {shown}: mlflow.load_model would run it")


def _members(document: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values at any depth; YAML aliases are visited once, so that ten lines cannot cost hours."""
    pending, seen = [document], set()
    while pending:
        value = pending.pop()
        if id(value) in seen or not isinstance(value, dict | list):
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            yield from ((key, below) for key, below in value.items() if isinstance(key, str))
            pending.extend(value.values())
        else:
            pending.extend(value)
