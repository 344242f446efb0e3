"""Where the parts of a checkpoint contradict each other: configuration, vocabulary and the headers of the weights.

Every file may be well-formed by itself. What is measured is then not what is loaded, or not what is read.

    checkpoint.dtype       the configuration makes the loader round the stored weights (HIGH)
    checkpoint.alias       two tensors that a loader may take for one parameter (HIGH)
    checkpoint.unreadable  a vocabulary that cannot be read (HIGH)
    checkpoint.vocabulary  tokens without a row in the embedding, or with two meanings (HIGH; an added token: MEDIUM)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from quantguard.checkpoint.aliases import aliases
from quantguard.checkpoint.files import quote
from quantguard.checkpoint.layout import CONFIG, Checkpoint, TensorEntry, linear_weights
from quantguard.checkpoint.vocabulary import vocabulary_findings
from quantguard.core.finding import Finding, Severity

_SHOWN: Final = 10  # findings of one rule

# To which dtypes each is widened without a change of any value.
_EXACT: Final[Mapping[str, frozenset[str]]] = {
    "F16": frozenset({"float16", "float32", "float64"}),
    "BF16": frozenset({"bfloat16", "float32", "float64"}),
    "F32": frozenset({"float32", "float64"}),
}
_FULL_NAMES: Final[Mapping[str, str]] = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
# transformers looks the name up in the torch module, where these are the same dtypes.
_NICKNAMES: Final[Mapping[str, str]] = {"half": "float16", "float": "float32", "double": "float64"}
_DTYPE_KEYS: Final = ("dtype", "torch_dtype")
# Of a model of several parts, AutoModelForCausalLM loads the language model by its own configuration.
_LANGUAGE_PARTS: Final = frozenset({"language_config", "llm_config", "text_config"})


def inconsistent(checkpoint: Checkpoint) -> tuple[Finding, ...]:
    """Every contradiction between the files of a checkpoint, at most ten a rule. No tensor is read, nothing raised."""
    rules: tuple[Callable[[Checkpoint], Iterator[Finding]], ...] = (_rounded, _aliased, vocabulary_findings)
    return tuple(finding for rule in rules for finding in islice(rule(checkpoint), _SHOWN))


def _rounded(checkpoint: Checkpoint) -> Iterator[Finding]:
    """`from_pretrained` casts to the dtype of the configuration, or else of the first tensor, before it quantizes."""
    linear = linear_weights(checkpoint)
    for place, name in _named_dtypes(checkpoint.config):
        wrong = next((entry for entry in linear if name not in _EXACT[entry.dtype]), None)
        if wrong is not None:
            yield Finding("checkpoint.dtype", Severity.HIGH, CONFIG, _would_round(place, name, wrong))
    if not any(place in _DTYPE_KEYS for place, _ in _named_dtypes(checkpoint.config)):
        yield from _unnamed(checkpoint, linear)


def _unnamed(checkpoint: Checkpoint, linear: tuple[TensorEntry, ...]) -> Iterator[Finding]:
    """Without a dtype in the configuration the first floating tensor decides: any of them may be first."""
    stored = {entry.dtype for entry in checkpoint.tensors} & _EXACT.keys()
    for entry in linear:
        lossy = sorted(dtype for dtype in stored if _FULL_NAMES[dtype] not in _EXACT[entry.dtype])
        if lossy:
            message = (
                f"is {entry.dtype} among tensors of {' and '.join(lossy)}, and {CONFIG} names no dtype: the loader"
                " would take that of the first tensor and may round this one; store all weights in one dtype"
            )
            yield Finding("checkpoint.dtype", Severity.HIGH, entry.name, message)
            return


def _named_dtypes(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every dtype that the configuration names for the language model, with its place."""
    pending: list[tuple[str, Mapping[str, Any]]] = [("", config)]
    while pending:
        prefix, part = pending.pop()
        for key, value in part.items():
            place = prefix + key
            if key in _DTYPE_KEYS:
                named = value.values() if isinstance(value, dict) else [value]
                yield from ((place, _dtype_name(one)) for one in named if one not in (None, "auto"))
            elif isinstance(value, dict) and key in _LANGUAGE_PARTS:
                pending.append((f"{place}.", value))


def _dtype_name(value: object) -> str:
    name = value.removeprefix("torch.") if isinstance(value, str) else "no text"
    return _NICKNAMES.get(name, name)


def _would_round(place: str, name: str, entry: TensorEntry) -> str:
    return (
        f"{quote(place)} is {quote(name, 40)}, and {quote(entry.name)} is stored as {_FULL_NAMES[entry.dtype]}: the"
        " loader would round the weights before it quantizes them, so that others are quantized than were measured;"
        f" store the weights in that dtype, or name {_FULL_NAMES[entry.dtype]}"
    )


def _aliased(checkpoint: Checkpoint) -> Iterator[Finding]:
    for one, other, how in aliases(entry.name for entry in checkpoint.tensors):
        message = f"may be loaded as the same parameter as {quote(one)}: {how}; keep the one that is the model's"
        yield Finding("checkpoint.alias", Severity.HIGH, other, message)
