"""Which layers of a checkpoint are hardened: as its files hold them, and as the real quantizer holds them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quantguard.checkpoint.layout import Checkpoint, TensorEntry
from quantguard.checkpoint.tensors import TORCH_DTYPES, read_tensor
from quantguard.core.errors import HardenError
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.harden.pieces import row_pieces
from quantguard.models.layers import conv1d_weights, planned_layers, turn_conv1d
from quantguard.models.load import LoadedModel, load_model
from quantguard.models.placement import parameter_value
from quantguard.models.quantized import dequantized_weight, quantized_alone, quantized_layers
from quantguard.models.safe_directory import rebuild

_FLOATING = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class StoredLayers:
    """The weights that the quantizer touches, as it takes them; and where the files hold them."""

    checkpoint: Checkpoint
    weights: Mapping[str, Tensor]  # parameter -> (out_features, in_features), dtype of the file, on the device
    shapes: Mapping[str, tuple[int, int]]  # of `weights`
    stored: Mapping[str, str]  # parameter -> name in the files, which is another one in some checkpoints
    transposed: frozenset[str]  # parameters that the files hold as (in_features, out_features)
    untouched: tuple[str, ...]  # names in the files of the matrices that the quantizer does not touch

    def as_stored(self, name: str, weight: Tensor) -> Tensor:
        """The weight of parameter `name` in the shape of the files."""
        return weight.T if name in self.transposed else weight


class FileWeights(Mapping[str, Tensor]):
    """Parameter -> (out_features, in_features) on `device`, read from the files each time that it is asked for."""

    def __init__(
        self, checkpoint: Checkpoint, stored: Mapping[str, str], transposed: frozenset[str], device: str
    ) -> None:
        self._checkpoint, self._transposed, self._device = checkpoint, transposed, device
        entries = {entry.name: entry for entry in checkpoint.tensors}
        self._entries = {name: entries[own] for name, own in stored.items()}

    def __getitem__(self, name: str) -> Tensor:
        tensor = read_tensor(self._checkpoint, self._entries[name])
        return (tensor.T.contiguous() if name in self._transposed else tensor).to(self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def load_rebuilt(directory: Path, scheme: Scheme | None, device: str, *, beside: Path) -> LoadedModel:
    """Load through a rebuilt directory, made beside `beside` so that the weights can be linked instead of copied."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quantguard-", dir=beside.parent) as scratch:
        clean = Path(scratch) / "model"
        rebuild(directory, clean)
        return load_model(clean, scheme=scheme, device=device)


def stored_layers(
    checkpoint: Checkpoint, loaded: LoadedModel, schemes: Sequence[Scheme], *, streamed: bool = False
) -> StoredLayers:
    """What bitsandbytes will quantize under `schemes`.

    Puts Linear layers in the place of `loaded.model`'s Conv1D, unless it is streamed.

    Args:
        loaded: the checkpoint in full precision.
        streamed: parts of it are still in the files; the weights are then read from there, one at a time.

    Raises:
        HardenError: nothing is quantized; or a weight that is quantized is not one tensor of the files, or has
            another dtype there.
        ModelLoadError: a scheme cannot be computed correctly on the model's device.
    """
    planned = dict.fromkeys(name for s in schemes for name in planned_layers(loaded.model, s, loaded.device))
    if not planned:
        raise HardenError(
            "bitsandbytes quantizes none of its layers",
            path=checkpoint.root,
            remedy="nothing is to be hardened: its layers are fused or of a kind that bitsandbytes does not know",
        )
    stored = {name: _source(checkpoint, name, parameter_value(loaded.model, name)) for name in planned}
    transposed = conv1d_weights(loaded.model) & planned.keys()
    touched = frozenset(stored.values())
    untouched = tuple(entry.name for entry in checkpoint.tensors if _is_matrix(entry) and entry.name not in touched)
    weights: Mapping[str, Tensor]
    if streamed:
        weights = FileWeights(checkpoint, stored, transposed, loaded.device)
    else:
        turn_conv1d(loaded.model)
        weights = {name: loaded.model.get_parameter(name).detach() for name in planned}
    shapes = {
        name: _shape(loaded.model.get_parameter(name), turned=streamed and name in transposed) for name in planned
    }
    return StoredLayers(checkpoint, weights, shapes, stored, transposed, untouched)


def _shape(parameter: Tensor, *, turned: bool) -> tuple[int, int]:
    rows, columns = parameter.shape
    return (columns, rows) if turned else (rows, columns)


def _source(checkpoint: Checkpoint, name: str, parameter: Tensor) -> str:
    """The stored tensor with the shape and the values of a parameter; of several, the one whose name is nearest.

    Names alone do not tell: a loader renames, and splits, joins or permutes what it loads.
    """
    held = parameter.detach().cpu()
    alike = [entry for entry in checkpoint.tensors if entry.shape == tuple(held.shape) and entry.dtype in _FLOATING]
    for entry in sorted(alike, key=lambda entry: _common_end(entry.name, name), reverse=True):
        if not torch.equal(read_tensor(checkpoint, entry).to(held.dtype), held):
            continue
        if held.dtype is not TORCH_DTYPES[entry.dtype]:
            raise HardenError(
                f"{entry.name} is stored as {entry.dtype}, but config.json loads it as {held.dtype}",
                path=checkpoint.root,
                remedy="save the model again, in one dtype",
            )
        return entry.name
    raise HardenError(
        f"{name} is quantized by bitsandbytes, and no tensor of the files has its values",
        path=checkpoint.root,
        remedy="this architecture cannot be hardened: its layers are split, joined or permuted while they are loaded",
    )


def _common_end(one: str, other: str) -> int:
    """How many dotted parts two names share at their ends."""
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(one.count("."), other.count(".")) + 1)


def _is_matrix(entry: TensorEntry) -> bool:
    """A matrix or a stack of them."""
    return entry.dtype in _FLOATING and len(entry.shape) in (2, 3)


def require_levels(out: Path, scheme: Scheme, weights: Mapping[str, Tensor], device: str) -> None:
    """Load what was written with the real quantizer and compare the level of every weight with the one chosen for it.

    Args:
        weights: parameter -> (out_features, in_features), where a method put them: each in the cell that it chose.
            One that decides a scale, or whose dtype has no better value, may lie on a boundary, where either is right.

    Raises:
        HardenError: it quantizes a layer that was not planned, or returned another level.
    """
    loaded = load_rebuilt(out, scheme, device, beside=out)
    quantized = set(quantized_layers(loaded.model))
    if left_out := sorted(quantized - set(weights)):
        raise HardenError(
            f"{scheme.value}: bitsandbytes quantizes {len(left_out)} layers that were not hardened, the first is"
            f" {left_out[0]}",
            path=out,
            remedy="report this with the versions of torch, transformers and bitsandbytes",
        )
    for name in weights:
        if name in quantized:  # else it leaves this layer in full precision, and its rounding does not exist
            _require(out, scheme, name, weights[name].to(device), dequantized_weight(loaded.model, name))


def require_levels_one_by_one(
    out: Path, schemes: Sequence[Scheme], weights: Mapping[str, Tensor], written: Mapping[str, Tensor]
) -> None:
    """`require_levels` for a model that does not fit: the real quantizer is given one written layer after the other.

    Args:
        written: as `weights`, read from the files of `out`.

    Raises:
        HardenError: it returned another level than chosen.
    """
    for name in weights:
        layer = written[name]
        for scheme in schemes:
            _require(out, scheme, name, weights[name].to(layer.device), quantized_alone(layer, scheme))


def _require(out: Path, scheme: Scheme, name: str, weight: Tensor, returned: Tensor) -> None:
    grid, wrong = grid_for(scheme), 0
    for rows in row_pieces(*weight.shape):
        piece = weight[rows]
        other = returned[rows] != grid.dequantize(grid.nearest(piece), grid.scale(piece))
        wrong += int((other & ~grid.on_boundary(piece)).sum())  # there devices differ by themselves (`settled`)
    if wrong:
        raise HardenError(
            f"{scheme.value}: bitsandbytes returned other levels than chosen for {wrong} of {weight.numel()}"
            f" weights of {name}",
            path=out,
            remedy="report this with the versions of torch and bitsandbytes",
        )
