"""The files beside the weights, against the vetted ones: configuration, generation, tokenizer, chat template.

save_pretrained writes them anew, so that bytes may differ while nothing is said differently. What loaders read is
compared as they read it; any other file must be the vetted one, byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from quantguard.checkpoint.digest import GIT_FILES
from quantguard.checkpoint.files import PIECE, distinct, open_regular, parse_json, quote, read_bounded, walk
from quantguard.checkpoint.files import Kind as FileKind
from quantguard.checkpoint.layout import CONFIG, INDEX, Checkpoint
from quantguard.core.artifact import Difference, Kind
from quantguard.core.errors import CheckpointError
from quantguard.models.allowed import allowed_config
from quantguard.models.quiet import quiet_libraries

GENERATION: Final = "generation_config.json"
_TOKENIZER: Final = "tokenizer_config.json"
_TEMPLATE: Final = "chat_template.jinja"
_OLD_TEMPLATE: Final = "chat_template.json"
_SLACK: Final = 1024 * 1024  # bytes that a JSON file may be longer than the vetted one and still be parsed
# What an artefact may say differently: how it is quantized, its dtype, and where it comes from.
_FREE_CONFIG: Final = frozenset(
    {"_name_or_path", "dtype", "name_or_path", "quantization_config", "torch_dtype", "transformers_version"}
)
_DTYPES: Final = frozenset({"dtype", "torch_dtype"})
_FREE_GENERATION: Final = frozenset({"_from_model_config", "transformers_version"})
_TOKEN_IDS: Final = frozenset({"bos_token_id", "eos_token_id", "pad_token_id"})
# Bookkeeping of save_pretrained. The chat template is compared wherever it stands.
_FREE_TOKENIZER: Final = frozenset(
    {"_commit_hash", "chat_template", "is_local", "local_files_only", "name_or_path", "transformers_version"}
)
_BACKEND: Final = "tokenizers"
_GENERIC_CLASSES: Final = frozenset({"PreTrainedTokenizer", "TokenizersBackend"})
_SHOWN: Final = 80  # characters of a value


def compare_files(vetted: Checkpoint, artifact: Checkpoint) -> tuple[tuple[Difference, ...], tuple[str, ...]]:
    """Every file of the artefact but its weights: what differs, and notes on what it lacks.

    Raises:
        CheckpointError: a directory cannot be listed, or a file of the vetted model not be read.
    """
    theirs, ours = _files(artifact.root), _files(vetted.root)
    differences = [*_config(vetted.config, artifact.config), *_generation(vetted, artifact, theirs, ours)]
    handled = {CONFIG, GENERATION, INDEX, *(shard.file for shard in artifact.shards)}
    for name in theirs:
        if name not in handled and not _is_prose(name):
            differences += _other(name, vetted.root, artifact.root, ours)
    differences += _template(vetted.root, artifact.root, theirs)
    weights = {CONFIG, INDEX, *(shard.file for shard in vetted.shards)}
    absent = [name for name in ours if name not in theirs and name not in weights and not _is_prose(name)]
    notes = [f"not in the artefact, to be taken from the vetted model: {', '.join(map(quote, absent[:9]))}"]
    return tuple(differences), tuple(notes) if absent else ()


def ties_embeddings(config: Mapping[str, Any]) -> bool:
    """Whether a configuration ties the output head to the embedding; False where transformers does not know it."""
    settled = _settled(config)
    return bool((config if settled is None else settled).get("tie_word_embeddings") is True)


def _files(root: Path) -> dict[str, int]:
    """Size of every regular file by its path; links and special files are told by `unsafe_files`."""
    items = (item for item in walk(root) if item.kind is FileKind.FILE)
    return {item.path: item.size for item in items if item.path.split("/", 1)[0] not in GIT_FILES}


def _is_prose(name: str) -> bool:
    """Text that no loader reads."""
    return name.lower().endswith(".md") or name.split(".", 1)[0].upper() in {"LICENSE", "LICENCE", "NOTICE"}


def _config(vetted: Mapping[str, Any], artifact: Mapping[str, Any]) -> Iterator[Difference]:
    ours, theirs = _pruned(vetted), _pruned(artifact)
    unlike = {key for key in ours.keys() | theirs.keys() if not _alike(ours.get(key), theirs.get(key))}
    if unlike:
        unlike = _really(unlike, vetted, artifact)
    for key in sorted(unlike):
        message = f"{quote(key, 60)} is {_said(theirs, key)}, and {_said(ours, key)} in the vetted model"
        yield Difference(Kind.SETTINGS, CONFIG, message)


def _pruned(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what an artefact may say differently; of its parts, without the dtype of the whole."""
    dtypes = [config[key] for key in _DTYPES if isinstance(config.get(key), str)]
    kept = {key: value for key, value in config.items() if key not in _FREE_CONFIG}
    for key, part in config.items():
        if key.endswith("_config") and key in kept and isinstance(part, dict):
            kept[key] = {k: v for k, v in part.items() if not (k in _DTYPES and v in dtypes)}
    return kept


def _really(unlike: set[str], vetted: Mapping[str, Any], artifact: Mapping[str, Any]) -> set[str]:
    """Of keys that differ as text, those that differ once transformers has read both files.

    It writes defaults out or leaves them out, and gives old keys new names. A value of the artefact that is not plain
    enough to be read here counts as different.
    """
    ours, theirs = _settled(vetted), _settled(artifact)
    if ours is None or theirs is None or vetted.get("model_type") != artifact.get("model_type"):
        return unlike
    settled, plain = _pruned(ours), _pruned(theirs)
    changed = {key for key in settled.keys() | plain.keys() if not _alike(settled.get(key), plain.get(key))}
    read = _allowed(artifact)
    unread = {key for key in unlike & artifact.keys() if not _alike(read.get(key), artifact[key])}
    return changed | (unread - {"architectures"}) | (unlike & {"architectures"})


def _settled(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration as transformers has it once it is loaded; None where transformers does not know it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        return None
    try:
        with quiet_libraries():
            document: dict[str, Any] = CONFIG_MAPPING[model_type].from_dict(_allowed(config)).to_dict()
    except Exception:  # noqa: BLE001  a hostile value may raise anything; the stricter comparison, of text, stands
        return None
    return {key: value for key, value in document.items() if key != "architectures"}


def _allowed(config: Mapping[str, Any]) -> dict[str, Any]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return allowed_config(_pruned(config), CONFIG_MAPPING[config["model_type"]])


def _alike(one: Any, other: Any) -> bool:
    """Equality of JSON values in which true is not 1; absent and null are one."""
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def _said(document: Mapping[str, Any], key: str) -> str:
    if key not in document:
        return "absent"
    return quote(json.dumps(document[key], default=str), _SHOWN)


def _generation(
    vetted: Checkpoint, artifact: Checkpoint, theirs: Mapping[str, int], ours: Mapping[str, int]
) -> Iterator[Difference]:
    if GENERATION not in theirs:
        return
    told = _json(artifact.root, GENERATION, ours.get(GENERATION, 0) + _SLACK)
    if told is None:
        yield Difference(Kind.SETTINGS, GENERATION, "is no JSON object of a usual size")
        return
    if GENERATION in ours:
        known = _json(vetted.root, GENERATION, ours[GENERATION]) or {}
    else:  # save_pretrained makes one of the token ids in config.json
        known = {key: vetted.config[key] for key in _TOKEN_IDS & vetted.config.keys()}
    for key in sorted((told.keys() | known.keys()) - _FREE_GENERATION):
        if not _alike(told.get(key), known.get(key)) and (key in told or GENERATION in ours):
            message = f"{quote(key, 60)} is {_said(told, key)}, and {_said(known, key)} in the vetted model"
            yield Difference(Kind.SETTINGS, GENERATION, message)


def _other(name: str, vetted: Path, artifact: Path, ours: Mapping[str, int]) -> Iterator[Difference]:
    if name in {_TEMPLATE, _OLD_TEMPLATE}:
        return  # compared by what they say, wherever the vetted model says it
    if name not in ours:
        yield Difference(Kind.FILE, name, "the vetted model has no such file")
    elif name == _TOKENIZER:
        yield from _tokenizer(vetted, artifact, ours[name])
    elif not _same_bytes(vetted, artifact, name):
        limit = ours[name] + _SLACK
        told = _json(artifact, name, limit) if name.endswith(".json") else None
        if told is None or not _alike(told, _json(vetted, name, limit)):
            yield Difference(Kind.FILE, name, "is not the vetted file")


def _tokenizer(vetted: Path, artifact: Path, size: int) -> Iterator[Difference]:
    told, known = _json(artifact, _TOKENIZER, size + _SLACK), _json(vetted, _TOKENIZER, size)
    if told is None or known is None:
        yield Difference(Kind.FILE, _TOKENIZER, "is no JSON object of a usual size")
        return
    for key in sorted((told.keys() | known.keys()) - _FREE_TOKENIZER):
        if key == "added_tokens_decoder" and key not in told:
            continue  # it repeats what tokenizer.json says, which is compared
        one, other = told.get(key), known.get(key)
        if key == "tokenizer_class":
            one, other = _class(one), _class(other)
        elif key == "backend":  # the library that has tokenized all along; transformers 5 names it
            one, other = one or _BACKEND, other or _BACKEND
        if not _alike(one, other):
            message = f"{quote(key, 60)} is {_said(told, key)}, and {_said(known, key)} in the vetted model"
            yield Difference(Kind.FILE, _TOKENIZER, message)


def _class(name: Any) -> Any:
    """transformers 5 has one class for what were two, plain and fast, and another name for the generic one."""
    if not isinstance(name, str):
        return name
    plain = name.removesuffix("Fast")
    return "TokenizersBackend" if plain in _GENERIC_CLASSES else plain


def _template(vetted: Path, artifact: Path, theirs: Mapping[str, int]) -> Iterator[Difference]:
    """The chat template that applies, wherever it stands; none is expected where there is no tokenizer either."""
    places = {_TEMPLATE, _OLD_TEMPLATE, _TOKENIZER}
    if not places & theirs.keys():
        return
    told, known = _templates(artifact), _templates(vetted)
    for name in sorted(told.keys() | known.keys()):
        if told.get(name) != known.get(name):
            if name not in told:
                message = f"lacks the vetted chat template {quote(name, 40)}"
            else:
                known_as = "is not the vetted one" if name in known else "is one that the vetted model lacks"
                message = f"the chat template {quote(name, 40)} {known_as}"
            yield Difference(Kind.FILE, _place(theirs), message)


def _place(theirs: Mapping[str, int]) -> str:
    return next(name for name in (_TEMPLATE, _OLD_TEMPLATE, _TOKENIZER) if name in theirs)


def _templates(root: Path) -> dict[str, str]:
    """Chat templates by name, as transformers picks them: its own file before the settings of the tokenizer."""
    found: Any = (_json(root, _TOKENIZER, _LARGEST) or {}).get("chat_template")
    found = (_json(root, _OLD_TEMPLATE, _LARGEST) or {}).get("chat_template", found)
    listed = found if isinstance(found, list) else [{"name": "default", "template": found}]
    named = {str(item.get("name")): item.get("template") for item in listed if isinstance(item, dict)}
    if (root / _TEMPLATE).exists():
        named["default"] = read_bounded(root, _TEMPLATE, _LARGEST).decode("utf-8", errors="replace")
    return {name: str(text) for name, text in named.items() if text is not None}


_LARGEST: Final = 16 * 1024 * 1024  # bytes of a file with a chat template


def _json(root: Path, name: str, limit: int) -> dict[str, Any] | None:
    """The JSON object in a file of at most `limit` bytes; None where it is none, or not there."""
    try:
        document = parse_json(read_bounded(root, name, limit), pairs=distinct)
    except (CheckpointError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _same_bytes(one: Path, other: Path, name: str) -> bool:
    with open_regular(one, name) as first, open_regular(other, name) as second:
        while True:
            left, right = first.read(PIECE), second.read(PIECE)
            if left != right:
                return False
            if not left:
                return True
