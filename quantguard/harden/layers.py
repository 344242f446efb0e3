"""Which layers of a checkpoint are hardened: as its files hold them, and as the real quantizer holds them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from quantguard.checkpoint.layout import Checkpoint, TensorEntry, linear_weights
from quantguard.checkpoint.tensors import TORCH_DTYPES
from quantguard.core.errors import HardenError
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.models.load import LoadedModel, load_model
from quantguard.models.quantized import dequantized_weight, quantized_layers
from quantguard.models.safe_directory import rebuild


def load_rebuilt(directory: Path, scheme: Scheme | None, device: str, *, beside: Path) -> LoadedModel:
    """Load through a rebuilt directory, made beside `beside` so that the weights can be linked instead of copied."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quantguard-", dir=beside.parent) as scratch:
        clean = Path(scratch) / "model"
        rebuild(directory, clean)
        return load_model(clean, scheme=scheme, device=device)


def stored_weights(checkpoint: Checkpoint, loaded: LoadedModel) -> dict[str, Tensor]:
    """The linear weights that the files and the built model agree on, by name.

    What is left out here but quantized by bitsandbytes is refused by name at the end (`require_levels`).
    """
    modules = {f"{name}.weight": module for name, module in loaded.model.named_modules()}
    parameters = {name: module.weight for name, module in modules.items() if isinstance(module, torch.nn.Linear)}
    candidates: dict[str, TensorEntry] = {entry.name: entry for entry in linear_weights(checkpoint)}
    weights = {
        name: parameters[name].detach()
        for name, entry in candidates.items()
        if name in parameters and tuple(parameters[name].shape) == entry.shape
    }
    for name, weight in weights.items():
        if weight.dtype is not TORCH_DTYPES[candidates[name].dtype]:
            raise HardenError(
                f"{name} is stored as {candidates[name].dtype}, but config.json loads it as {weight.dtype}",
                path=checkpoint.root,
                remedy="save the model again, in one dtype",
            )
    if not weights:
        raise HardenError(
            "no linear weight to harden", path=checkpoint.root, remedy="this architecture's layers are not supported"
        )
    return weights


def require_levels(
    out: Path, scheme: Scheme, weights: Mapping[str, Tensor], levels: Mapping[str, Tensor], device: str
) -> None:
    """Load what was written with the real quantizer and compare every weight with the choice made."""
    grid = grid_for(scheme)
    loaded = load_rebuilt(out, scheme, device, beside=out)
    quantized = set(quantized_layers(loaded.model))
    if left_out := sorted(quantized - set(levels)):
        raise HardenError(
            f"{scheme.value}: bitsandbytes quantizes {len(left_out)} layers that cannot be hardened yet, the first is"
            f" {left_out[0]}",
            path=out,
            remedy="this architecture is not supported (transposed, fused or renamed weights)",
        )
    for name, chosen in levels.items():
        if name not in quantized:
            continue  # bitsandbytes leaves this layer in full precision, so its rounding does not exist
        expected = grid.dequantize(chosen, grid.scale(weights[name]))
        wrong = int((dequantized_weight(loaded.model, name).to(expected.device) != expected).sum())
        if wrong:
            raise HardenError(
                f"{scheme.value}: bitsandbytes returned other levels than chosen for {wrong} of {expected.numel()}"
                f" weights of {name}",
                path=out,
                remedy="report this with the versions of torch and bitsandbytes",
            )
