"""From an untrusted Hugging Face model directory, a clean one that transformers may open.

The clean directory holds only weights in safetensors, JSON that was parsed, reduced to known keys and written anew, and
vocabulary files. No file of it names code, and no link of it was made by the model.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import Any, Final

from quantguard.core.errors import EvidenceError, ModelLoadError, UnsafeCheckpointError
from quantguard.models.allowed import (
    DTYPES,
    allowed_config,
    allowed_generation_config,
    allowed_special_tokens,
    allowed_tokenizer_config,
)
from quantguard.models.quiet import quiet_libraries

_MEBIBYTE: Final = 1024 * 1024
_MAX_CONFIG: Final = 4 * _MEBIBYTE
_MAX_INDEX: Final = 64 * _MEBIBYTE
_MAX_VOCABULARY: Final = 256 * _MEBIBYTE
# Data files of the tokenizer classes in transformers; none of them is executed.
_VOCABULARY: Final = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "added_tokens.json",
)
_CHAT_TEMPLATE: Final = "chat_template.jinja"  # text; rendered in a sandbox, see generate.py


def rebuild(directory: Path, into: Path) -> Path:
    """Make the clean copy of `directory` in `into` (made if absent; must be empty) and return `into`.

    Weights are hard-linked where both lie on one mount, else copied; from a read-only mount, as a container is given
    them, a symbolic link of ours leads to them instead: nobody can exchange them there. The model's own symbolic links
    are never followed. Dropped:
    auto_map, quantization_config, names of files, repositories and code, every decoding setting but the token ids, and
    every file that is not listed here.

    Raises:
        UnsafeCheckpointError: a file that is needed is a symbolic link or no regular file.
        ModelLoadError: config.json, weights or tokenizer are missing, malformed or absurdly large, or the architecture
            is no causal language model that the installed transformers knows.
        EvidenceError: the copy cannot be written: the disk is full.
    """
    try:
        _rebuild(directory, into)
    except OSError as error:
        message = f"cannot write the clean copy: {error.strerror or error}"
        raise EvidenceError(message, path=into, remedy="free space there and run again") from error
    return into


def _rebuild(directory: Path, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    if any(into.iterdir()):
        raise ModelLoadError("the directory for the clean copy is not empty", path=into, remedy="use a new directory")
    raw = _read_json(directory / "config.json", _MAX_CONFIG)
    if raw is None:
        raise ModelLoadError("config.json is missing", path=directory, remedy="give a Hugging Face model directory")
    with quiet_libraries():
        _write_json(into / "config.json", _clean_config(raw, directory / "config.json"))
    for name in _weight_files(directory, into):
        _place(directory / name, into / name)
    _tokenizer(directory, into)
    generation = _read_json(directory / "generation_config.json", _MAX_CONFIG)
    if generation is not None:
        _write_json(into / "generation_config.json", allowed_generation_config(generation))


def _clean_config(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    remedy = "only causal language models built into the installed transformers can be measured"
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelLoadError(f"model_type {model_type!r:.80} is no known causal model", path=path, remedy=remedy)
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    if raw.get("architectures", [known]) not in ([known], None):
        message = f"architecture {raw['architectures']!r:.120} is not {known}, the causal model of {model_type}"
        raise ModelLoadError(message, path=path, remedy=remedy)
    if isinstance(raw.get("quantization_config"), dict):
        message = (
            "quantization_config: the checkpoint is quantized already, so there is nothing to quantize and compare"
        )
        raise ModelLoadError(message, path=path, remedy="gate the full-precision checkpoint it was made from")
    for key in ("dtype", "torch_dtype"):
        value = raw.get(key)
        if value is not None and value not in DTYPES:
            message = f"{key} {value!r:.80} is not float32, float16 or bfloat16"
            raise ModelLoadError(message, path=path, remedy="store the weights in one of these")
    kept = allowed_config(raw, CONFIG_MAPPING[model_type])
    kept["architectures"] = [known]
    return kept


def _weight_files(directory: Path, into: Path) -> tuple[str, ...]:
    """Names of the safetensors files transformers will read; writes the index anew where the model is sharded."""
    single = "model.safetensors"
    index_path = directory / f"{single}.index.json"
    index = _read_json(index_path, _MAX_INDEX)
    if _regular(directory / single) is not None:
        if index is not None:
            message = f"stands beside {single}: which of the two is loaded depends on the loader"
            raise ModelLoadError(message, path=index_path, remedy="remove the one that is not the model")
        return (single,)
    if index is None:
        remedy = "save the model with save_pretrained(safe_serialization=True)"
        raise ModelLoadError("neither model.safetensors nor its index", path=directory, remedy=remedy)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelLoadError("the shard index has no weight_map", path=index_path, remedy="save the model again")
    for name in weight_map.values():
        if not isinstance(name, str) or PurePosixPath(name).name != name or not name.endswith(".safetensors"):
            message = f"the shard index names {name!r:.120}, which is no safetensors file of this directory"
            raise UnsafeCheckpointError(message, path=index_path, remedy="save the model again")
    _write_json(into / index_path.name, {"metadata": {}, "weight_map": weight_map})
    return tuple(sorted(set(weight_map.values())))


def _tokenizer(directory: Path, into: Path) -> None:
    for name in (*_VOCABULARY, _CHAT_TEMPLATE):
        limit = _MAX_CONFIG if name == _CHAT_TEMPLATE else _MAX_VOCABULARY
        status = _regular(directory / name)
        if status is None:
            continue
        if status.st_size > limit:
            raise ModelLoadError(f"larger than {limit} bytes", path=directory / name, remedy="check the tokenizer")
        _place(directory / name, into / name)
    if not any((into / name).exists() for name in _VOCABULARY):
        remedy = "save the tokenizer beside the weights with tokenizer.save_pretrained"
        raise ModelLoadError("there is no tokenizer", path=directory, remedy=remedy)
    settings = _read_json(directory / "tokenizer_config.json", 16 * _MEBIBYTE)
    if settings is not None:
        _write_json(into / "tokenizer_config.json", allowed_tokenizer_config(settings))
    special = _read_json(directory / "special_tokens_map.json", _MAX_CONFIG)
    if special is not None:
        _write_json(into / "special_tokens_map.json", allowed_special_tokens(special))


def _regular(path: Path) -> os.stat_result | None:
    """The status of a regular file, None where nothing is there."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"cannot be read: {error}", path=path, remedy="check the directory") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
        raise UnsafeCheckpointError(f"{kind}", path=path, remedy="replace it by the file itself")
    return status


def _read_json(path: Path, limit: int) -> dict[str, Any] | None:
    status = _regular(path)
    if status is None:
        return None
    if status.st_size > limit:
        raise ModelLoadError(f"larger than {limit} bytes", path=path, remedy="this is not the file it claims to be")
    try:
        with open(path, "rb", opener=_no_follow) as stream:
            value = json.loads(stream.read(limit + 1))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"cannot be read as JSON: {error}", path=path, remedy="save the model again") from error
    if not isinstance(value, dict):
        raise ModelLoadError("this JSON is no object", path=path, remedy="save the model again")
    return value


def _no_follow(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _place(source: Path, target: Path) -> None:
    if _regular(source) is None:
        raise ModelLoadError("missing, although the shard index names it", path=source, remedy="save the model again")
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another mount, or one without hard links
        if os.statvfs(source).f_flag & os.ST_RDONLY:
            target.symlink_to(source.resolve())
            return
        try:
            with open(source, "rb", opener=_no_follow) as stream, target.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 16 * _MEBIBYTE)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise ModelLoadError(
                f"cannot be copied: {error}", path=source, remedy="free space and try again"
            ) from error
    if target.is_symlink():  # the source was exchanged for a link after it was checked
        target.unlink()
        raise UnsafeCheckpointError("a symbolic link", path=source, remedy="replace it by the file itself")
