"""A Hugging Face model directory: `config.json`, and `model.safetensors` or `model.safetensors.index.json` with shards.

Which file transformers would load is decided by name, so every other safetensors file in the directory, at any depth,
is refused: weights that nobody measures must not travel with weights that passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quantguard.checkpoint.files import Item, Kind, quote, read_bounded_json, walk
from quantguard.checkpoint.header import MAX_TENSORS, Shard, TensorEntry, read_shard
from quantguard.core.errors import CheckpointError, NothingToGateError, ShardIndexError

__all__ = ["CONFIG", "INDEX", "SINGLE", "Checkpoint", "Shard", "TensorEntry", "linear_weights", "open_checkpoint"]

CONFIG: Final = "config.json"
SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
_SUFFIX: Final = ".safetensors"
MAX_CONFIG: Final = 8 * 1024 * 1024  # bytes; the largest published ones list some 20,000 labels, about 1 MB
MAX_INDEX: Final = 16 * 1024 * 1024  # bytes; an index of 100,000 tensors has about 10 MB
MAX_SHARDS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model directory whose layout and headers have been checked. No tensor has been read."""

    root: Path
    shards: tuple[Shard, ...]  # by file name
    tensors: tuple[TensorEntry, ...]  # by file name, then by position in the file; no name twice
    config: Mapping[str, Any]  # config.json as parsed: attacker-controlled JSON


def open_checkpoint(directory: Path) -> Checkpoint:
    """Check layout, shard index and every header of a model directory.

    Raises:
        UsageError: not a directory.
        NothingToGateError: it holds no weights.
        ShardIndexError: the index and the files disagree, or weights lie beside the model.
        HeaderError: a safetensors header lies, is truncated or absurd.
        CheckpointError: config.json is absent, too large, or not a JSON object; or a file cannot be read.
    """
    items = {item.path: item for item in walk(directory)}
    weights = tuple(path for path in items if path.lower().endswith(_SUFFIX))
    if not weights and INDEX not in items:
        raise NothingToGateError(
            "holds no model.safetensors and no model.safetensors.index.json",
            path=directory,
            remedy="name the directory of a model saved with save_pretrained",
        )
    if INDEX in items:
        named = _index(directory)
        _check_shards(named, items, directory)
    else:
        _check_single(items, directory)
        named = {}
    files = sorted(set(named.values())) or [SINGLE]
    _check_foreign(weights, files, directory)
    config = read_bounded_json(directory, CONFIG, MAX_CONFIG)
    shards = _read_shards(directory, files, max(MAX_TENSORS, len(named)))
    if named:
        _check_placement(shards, named, directory)
    return Checkpoint(directory, shards, tuple(entry for shard in shards for entry in shard.tensors), config)


def _read_shards(root: Path, files: list[str], most: int) -> tuple[Shard, ...]:
    """Every header, as long as they do not describe more tensors together than the index can have named."""
    shards, tensors = [], 0
    for file in files:
        shards.append(read_shard(root, file))
        tensors += len(shards[-1].tensors)
        if tensors > most:
            raise _index_error(root, f"names fewer than the {tensors} tensors that the files up to {file} hold")
    return tuple(shards)


def _index(root: Path) -> dict[str, str]:
    """Tensor name -> file name, as the index has it; the file names are plain."""
    try:
        document = read_bounded_json(root, INDEX, MAX_INDEX)
    except CheckpointError as error:
        raise ShardIndexError(error.message, path=root, remedy=error.remedy) from error
    named = document.get("weight_map")
    if not isinstance(named, dict) or not named:
        raise _index_error(root, "has no weight_map that names tensors")
    for tensor, file in named.items():
        if not isinstance(file, str) or not _is_plain(file):
            shown = quote(file) if isinstance(file, str) else "no string"
            raise _index_error(root, f"places tensor {quote(tensor)} in {shown}, which is no plain *.safetensors name")
    return named


def _is_plain(file: str) -> bool:
    """A printable name of a safetensors file directly in the directory."""
    return file.isprintable() and file.endswith(_SUFFIX) and not file.startswith(".") and not set(file) & set("/\\:")


def _index_error(root: Path, message: str) -> ShardIndexError:
    return ShardIndexError(
        message, path=root / INDEX, remedy="save the model again with save_pretrained so that index and shards agree"
    )


def _check_shards(named: Mapping[str, str], items: Mapping[str, Item], root: Path) -> None:
    if SINGLE in items and SINGLE not in named.values():
        raise _index_error(root, f"stands beside {SINGLE}: which of the two is loaded depends on the loader")
    files = set(named.values())
    if len(files) > MAX_SHARDS:
        raise _index_error(root, f"names {len(files)} files; at most {MAX_SHARDS} are allowed")
    for file in sorted(files):
        if file not in items:
            raise _index_error(root, f"names {quote(file)}, which is not in the directory")
        if items[file].kind is not Kind.FILE:
            raise _index_error(root, f"names {quote(file)}, which is a {items[file].kind.value}")


def _check_single(items: Mapping[str, Item], root: Path) -> None:
    if SINGLE in items and items[SINGLE].kind is not Kind.FILE:
        raise ShardIndexError(
            f"{SINGLE} is a {items[SINGLE].kind.value}", path=root, remedy="register a copy of the file, not a link"
        )


def _check_foreign(weights: tuple[str, ...], files: list[str], root: Path) -> None:
    foreign = sorted(set(weights) - set(files))
    if foreign:
        shown = ", ".join(quote(path) for path in foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise ShardIndexError(
            f"{shown}: safetensors that are neither {SINGLE} nor named by {INDEX}",
            path=root,
            remedy=f"register only the model's own weights, with {SINGLE} or the index at the top of the directory",
        )


def _check_placement(shards: tuple[Shard, ...], named: Mapping[str, str], root: Path) -> None:
    """The files hold exactly the tensors that the index names, each where it says."""
    found: dict[str, str] = {}
    for shard in shards:
        for entry in shard.tensors:
            if entry.name in found:
                raise _index_error(root, f"tensor {quote(entry.name)} is in {found[entry.name]} and in {entry.file}")
            if named.get(entry.name) != entry.file:
                placed = named.get(entry.name, "no file")
                raise _index_error(root, f"tensor {quote(entry.name)} is in {entry.file}; the index says {placed}")
            found[entry.name] = entry.file
    missing = sorted(set(named) - set(found))
    if missing:
        raise _index_error(root, f"tensor {quote(missing[0])} is not in {named[missing[0]]}")


_FLOATING: Final = frozenset({"F32", "F16", "BF16"})
_EMBEDDINGS: Final = frozenset(
    {
        "embed",
        "embed_in",
        "embed_positions",
        "embed_tokens",
        "embed_tokens_per_layer",
        "embeddings",
        "position_embeddings",
        "relative_attention_bias",
        "shared",
        "tok_embeddings",
        "token_embedding",
        "token_type_embeddings",
        "word_embeddings",
        "wpe",
        "wte",
    }
)
_HEADS: Final = frozenset({"classifier", "embed_out", "lm_head", "score"})


def linear_weights(checkpoint: Checkpoint) -> tuple[TensorEntry, ...]:
    """The weights that bitsandbytes will quantize, as far as names and shapes tell, in the order of the files.

    Two-dimensional F32, F16 or BF16 tensors `*.weight` with both sizes above 1 whose module is not called like an
    embedding, an output head or a norm. It is by name because this room never builds the model: the real set is that
    of the `torch.nn.Linear` and `Conv1D` modules that transformers finds, less the output head and tied weights
    (`get_keys_to_not_convert`). A name that is not known is taken as a linear weight: one tensor too many is
    looked at rather than one too few. A known gap: experts stored apart may be joined into three-dimensional
    parameters that bitsandbytes leaves alone.
    """
    return tuple(entry for entry in checkpoint.tensors if _is_linear(entry))


_CONV1D_MODELS: Final = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
_CONV1D_LAYERS: Final = frozenset({"c_attn", "c_fc", "c_proj", "q_attn"})


def is_stored_transposed(checkpoint: Checkpoint, entry: TensorEntry) -> bool:
    """Whether a linear weight is stored (in, out), as transformers' Conv1D does (GPT-2).

    bitsandbytes transposes it before it makes blocks and rows, so that its grid runs the other way.
    """
    layer = entry.name.removesuffix(".weight").rpartition(".")[2]
    model_type = checkpoint.config.get("model_type")  # any JSON value, a list or an object too, which no set can hold
    return isinstance(model_type, str) and model_type in _CONV1D_MODELS and layer in _CONV1D_LAYERS


def _is_linear(entry: TensorEntry) -> bool:
    module, _, parameter = entry.name.rpartition(".")
    if parameter != "weight" or not module or entry.dtype not in _FLOATING:
        return False
    if len(entry.shape) != 2 or min(entry.shape) < 2:
        return False
    last = module.rpartition(".")[2].lower()
    is_norm = last.endswith("norm") or last.startswith(("ln_", "layernorm")) or last == "ln"
    return not (last in _EMBEDDINGS or last in _HEADS or is_norm)
