"""What a quantized checkpoint says of itself, in untrusted JSON: its quantization_config and each 4-bit weight's state.

Source: transformers 5.23, utils/quantization_config.py; bitsandbytes 0.50, functional.py QuantState.as_dict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from quantguard.checkpoint.files import distinct, parse_json, quote
from quantguard.core.errors import CheckpointError
from quantguard.core.scheme import Scheme

MAX_STATE: Final = 4096  # bytes; an honest one has some 170
DTYPES: Final = frozenset({"float32", "float16", "bfloat16"})
_STORAGE: Final = {"uint8": "U8", "int8": "I8", "float16": "F16", "bfloat16": "BF16", "float32": "F32"}
# transformers matches them as regular expressions. These cannot be made to run long, and nobody writes others.
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.\-]*(?:\*[A-Za-z0-9_.\-]*){0,2}")
_MAX_PATTERNS: Final = 1000
_MAX_PATTERN: Final = 200  # characters
_KEYS: Final = frozenset(
    {
        "_load_in_4bit",
        "_load_in_8bit",
        "bnb_4bit_compute_dtype",
        "bnb_4bit_quant_storage",
        "bnb_4bit_quant_type",
        "bnb_4bit_use_double_quant",
        "llm_int8_enable_fp32_cpu_offload",
        "llm_int8_has_fp16_weight",
        "llm_int8_skip_modules",
        "llm_int8_threshold",
        "load_in_4bit",
        "load_in_8bit",
        "quant_method",
    }
)
_DEFAULT_THRESHOLD: Final = 6.0
_FAR: Final = 1e9


@dataclass(frozen=True, slots=True)
class Claim:
    """The quantization_config of a bitsandbytes checkpoint, as far as it decides what is loaded."""

    scheme: Scheme
    nested: bool  # double quantization
    storage: str  # dtype that packed 4-bit codes are stored as, as safetensors names it; I8 for INT8
    skipped: tuple[str, ...] | None  # patterns of modules left in full precision; None: the loader's own choice
    dtype: str  # of the model, a word of DTYPES; empty where config.json names none
    notes: tuple[str, ...]  # settings that a reader should see
    unusual: tuple[str, ...]  # settings under which nobody measured the model


@dataclass(frozen=True, slots=True)
class NestedState:
    block_size: int
    dtype: str
    offset: float  # subtracted from each absmax before it is quantized; finite


@dataclass(frozen=True, slots=True)
class State:
    """The JSON that bitsandbytes packs beside each 4-bit weight."""

    quant_type: str
    block_size: int
    dtype: str
    shape: tuple[int, ...]
    nested: NestedState | None


def read_claim(config: Mapping[str, Any], root: Path) -> Claim:
    """The claim in a parsed config.json.

    Raises:
        CheckpointError: it is not quantized, not with bitsandbytes, or in a way that transformers would not write.
    """
    document = config.get("quantization_config")
    if not isinstance(document, dict):
        message = "its config.json has no quantization_config: this is no quantized checkpoint"
        raise CheckpointError(message, path=root, remedy="name what save_pretrained wrote of the quantized model")
    unknown = document.keys() - _KEYS
    four, eight = _flag(document, "load_in_4bit", root), _flag(document, "load_in_8bit", root)
    _require_bitsandbytes(document, root, flagged=four or eight)
    if unknown:
        _refuse(root, f"it has the unknown key {quote(sorted(unknown)[0], 40)}")
    if four is eight:
        _refuse(root, "load_in_4bit and load_in_8bit do not name one of the two")
    for name, value in (("_load_in_4bit", four), ("_load_in_8bit", eight)):
        if name in document and document[name] is not value:
            _refuse(root, f"{name} contradicts {name[1:]}")
    if _flag(document, "llm_int8_has_fp16_weight", root):
        _refuse(root, "llm_int8_has_fp16_weight leaves the weights unquantized")
    storage = _word(document, "bnb_4bit_quant_storage", "uint8", frozenset(_STORAGE), root)
    return Claim(
        scheme=Scheme.INT8 if eight else Scheme(_word(document, "bnb_4bit_quant_type", "fp4", _FOUR_BIT, root)),
        nested=four and _flag(document, "bnb_4bit_use_double_quant", root),
        storage="I8" if eight else _STORAGE[storage],
        skipped=_skipped(document, root),
        dtype=named_dtype(config, root),
        notes=_notes(document, root) if four else (),
        unusual=() if four else _unusual(document, root),
    )


_FOUR_BIT: Final = frozenset({Scheme.NF4.value, Scheme.FP4.value})


def _require_bitsandbytes(document: Mapping[str, Any], root: Path, *, flagged: bool) -> None:
    # Versions of transformers before 4.33 wrote no quant_method.
    method = document.get("quant_method", "bitsandbytes" if flagged else None)
    if method != "bitsandbytes":
        named = quote(method, 40) if isinstance(method, str) else "an unnamed method"
        raise CheckpointError(
            f"is quantized with {named}; only bitsandbytes' INT8, NF4 and FP4 can be proved",
            path=root,
            remedy="make the artefact from the vetted weights with transformers' BitsAndBytesConfig",
        )


def _refuse(root: Path, message: str) -> NoReturn:
    remedy = "load the vetted weights with BitsAndBytesConfig and save them again"
    raise CheckpointError(f"its quantization_config cannot be judged: {message}", path=root, remedy=remedy)


def _flag(document: Mapping[str, Any], key: str, root: Path) -> bool:
    value = document.get(key, False)
    if type(value) is not bool:
        _refuse(root, f"{key} is neither true nor false")
    return value


def _word(document: Mapping[str, Any], key: str, default: str, known: frozenset[str], root: Path) -> str:
    value = document.get(key, default)
    if not isinstance(value, str) or value not in known:
        _refuse(root, f"{key} is none of {', '.join(sorted(known))}")
    return value


def _skipped(document: Mapping[str, Any], root: Path) -> tuple[str, ...] | None:
    value = document.get("llm_int8_skip_modules")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > _MAX_PATTERNS:
        _refuse(root, f"llm_int8_skip_modules is no list of at most {_MAX_PATTERNS} names")
    for item in value:
        if not isinstance(item, str) or not _is_pattern(item):
            shown = quote(item, 60) if isinstance(item, str) else "no text"
            _refuse(root, f"llm_int8_skip_modules holds {shown}, which is no plain name of a module")
    return tuple(value)


def _is_pattern(text: str) -> bool:
    if len(text) > _MAX_PATTERN or not _PATTERN.fullmatch(text):
        return False
    try:
        re.compile(f"(?:{text})")
    except re.error:  # a star after nothing, or after another star
        return False
    return True


def named_dtype(config: Mapping[str, Any], root: Path) -> str:
    """The dtype that a parsed config.json names, a word of DTYPES; empty where it names none.

    Raises:
        CheckpointError: it names another, or two.
    """
    named = [config[key] for key in ("dtype", "torch_dtype") if config.get(key) is not None]
    if not named:
        return ""
    value = named[0]
    if named.count(value) != len(named) or not isinstance(value, str) or value not in DTYPES:
        raise CheckpointError(
            f"its config.json names no dtype of {', '.join(sorted(DTYPES))}, or two",
            path=root,
            remedy="load the vetted weights in one of these and save them again",
        )
    return value


def _notes(document: Mapping[str, Any], root: Path) -> tuple[str, ...]:
    compute = _word(document, "bnb_4bit_compute_dtype", "float32", DTYPES, root)
    return (f"its products are computed in {compute}",)


def _unusual(document: Mapping[str, Any], root: Path) -> tuple[str, ...]:
    threshold = document.get("llm_int8_threshold", _DEFAULT_THRESHOLD)
    if type(threshold) not in (int, float) or not -_FAR < threshold < _FAR:
        _refuse(root, "llm_int8_threshold is no number")
    if threshold == _DEFAULT_THRESHOLD:
        return ()
    return (f"llm_int8_threshold is {threshold:g}, and the model is measured with {_DEFAULT_THRESHOLD:g}",)


def parse_state(data: bytes) -> State:
    """The state in the bytes of a `quant_state` tensor.

    Raises:
        ValueError: what is wrong with it, as half a sentence: not JSON, other keys, or a value of another type.
    """
    document = parse_json(data, pairs=distinct)
    if not isinstance(document, dict):
        raise ValueError("its quantization state is no object")  # noqa: TRY004
    unknown = document.keys() - _PLAIN_KEYS - _NESTED_KEYS
    if unknown:
        raise ValueError(f"its quantization state has the unknown key {quote(sorted(unknown)[0], 40)}")
    shape = _of(document, "shape", list)
    if not 1 <= len(shape) <= 4 or any(type(size) is not int or size < 1 for size in shape):
        raise ValueError("the shape in its quantization state is none")
    quant_type, dtype = _of(document, "quant_type", str), _of(document, "dtype", str)
    return State(quant_type, _of(document, "blocksize", int), dtype, tuple(shape), _nested(document))


_PLAIN_KEYS: Final = frozenset({"quant_type", "blocksize", "dtype", "shape"})
_NESTED_KEYS: Final = frozenset({"nested_blocksize", "nested_dtype", "nested_offset"})


def _nested(document: Mapping[str, Any]) -> NestedState | None:
    if not document.keys() & _NESTED_KEYS:
        return None
    offset = _of(document, "nested_offset", float)
    if not math.isfinite(offset):
        raise ValueError("nested_offset in its quantization state is not finite")
    return NestedState(_of(document, "nested_blocksize", int), _of(document, "nested_dtype", str), offset)


def _of(document: Mapping[str, Any], key: str, kind: type) -> Any:
    value = document.get(key)
    if type(value) is not kind:  # true is an int to isinstance
        raise ValueError(f"{key} in its quantization state is absent or of another type")
    return value
