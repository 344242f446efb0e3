"""Which layers of a checkpoint are hardened: as its files hold them, and as the real quantizer holds them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quantguard.checkpoint.layout import Checkpoint, TensorEntry
from quantguard.checkpoint.tensors import TORCH_DTYPES, read_tensor
from quantguard.core.errors import HardenError
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.models.layers import planned_layers, turn_conv1d
from quantguard.models.load import LoadedModel, load_model
from quantguard.models.quantized import dequantized_weight, quantized_layers
from quantguard.models.safe_directory import rebuild

_FLOATING = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class StoredLayers:
    """The weights that the quantizer touches, as it takes them; and where the files hold them."""

    weights: Mapping[str, Tensor]  # parameter -> (out_features, in_features), dtype of the file, the model's device
    stored: Mapping[str, str]  # parameter -> name in the files, which is another one in some checkpoints
    transposed: frozenset[str]  # parameters that the files hold as (in_features, out_features)
    untouched: tuple[str, ...]  # names in the files of the matrices that the quantizer does not touch

    def as_stored(self, name: str, weight: Tensor) -> Tensor:
        """The weight of parameter `name` in the shape of the files."""
        return weight.T if name in self.transposed else weight


def load_rebuilt(directory: Path, scheme: Scheme | None, device: str, *, beside: Path) -> LoadedModel:
    """Load through a rebuilt directory, made beside `beside` so that the weights can be linked instead of copied."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quantguard-", dir=beside.parent) as scratch:
        clean = Path(scratch) / "model"
        rebuild(directory, clean)
        return load_model(clean, scheme=scheme, device=device)


def stored_layers(checkpoint: Checkpoint, loaded: LoadedModel, schemes: Sequence[Scheme]) -> StoredLayers:
    """What bitsandbytes will quantize under `schemes`. Puts Linear layers in the place of `loaded.model`'s Conv1D.

    Args:
        loaded: the checkpoint in full precision.

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
    stored = {name: _source(checkpoint, name, loaded.model.get_parameter(name)) for name in planned}
    transposed = turn_conv1d(loaded.model)
    weights = {name: loaded.model.get_parameter(name).detach() for name in planned}
    touched = frozenset(stored.values())
    untouched = (entry.name for entry in checkpoint.tensors if _is_matrix(entry) and entry.name not in touched)
    return StoredLayers(weights, stored, transposed, tuple(untouched))


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

    Raises:
        HardenError: it quantizes a layer that was not planned, or returned another level.
    """
    grid = grid_for(scheme)
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
        if name not in quantized:
            continue  # bitsandbytes leaves this layer in full precision, so its rounding does not exist
        weight = weights[name].to(device)
        expected = grid.dequantize(grid.nearest(weight), grid.scale(weight))
        wrong = int((dequantized_weight(loaded.model, name) != expected).sum())
        if wrong:
            raise HardenError(
                f"{scheme.value}: bitsandbytes returned other levels than chosen for {wrong} of {expected.numel()}"
                f" weights of {name}",
                path=out,
                remedy="report this with the versions of torch and bitsandbytes",
            )
