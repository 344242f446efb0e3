"""Which tensors of a quantized checkpoint belong together, and which vetted tensor each is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from quantguard.checkpoint.files import quote
from quantguard.checkpoint.known_words import base_model_prefixes
from quantguard.checkpoint.layout import Checkpoint, TensorEntry
from quantguard.checkpoint.tensors import read_tensor
from quantguard.core.artifact import Difference, Kind
from quantguard.core.scheme import Scheme
from quantguard.verify.artifact_claim import Claim

PACKED_STATE: Final = "quant_state.bitsandbytes__"  # followed by nf4 or fp4
_FOUR_BIT_PARTS: Final = (
    "absmax",
    "quant_map",
    "nested_absmax",
    "nested_quant_map",
    PACKED_STATE + "nf4",
    PACKED_STATE + "fp4",
)
_INT8_PARTS: Final = ("SCB", "weight_format")
# Older versions of transformers stored what newer ones compute: causal masks (rank 4, or a scalar) and frequencies.
_COMPUTED: Final = re.compile(r"(?:\A|\.)(?:(?:attn|attention)\.(?:masked_)?bias|rotary_emb\.inv_freq)\Z")
# What transformers leaves alone by itself: output heads, and weights that are tied.
_HEADS: Final = frozenset({"classifier", "embed_out", "lm_head", "score"})


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    entry: TensorEntry  # of the codes
    parts: Mapping[str, TensorEntry]  # what lies beside them: absmax, quant_map, SCB, ...
    source: TensorEntry  # the vetted weight


@dataclass(frozen=True, slots=True)
class PlainTensor:
    entry: TensorEntry
    source: TensorEntry


@dataclass(frozen=True, slots=True)
class Pairing:
    quantized: tuple[QuantizedTensor, ...]  # in the order of the files
    plain: tuple[PlainTensor, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def pair(vetted: Checkpoint, artifact: Checkpoint, claim: Claim, *, tied: bool) -> Pairing:
    """Give every tensor of the artefact its vetted one; what is left on either side is a difference.

    `tied`: the vetted configuration ties the output head to the embedding, so that one of two equal tensors may go.

    Raises:
        CheckpointError: a tensor cannot be read.
    """
    parts, owned = _parts(artifact, claim.scheme)
    known = {entry.name: entry for entry in vetted.tensors}
    prefix = _prefix([entry.name for entry in artifact.tensors if entry.name not in owned], known)
    quantized, plain, differences = [], [], []
    used: set[str] = set()
    for entry in artifact.tensors:
        if entry.name in owned:
            continue
        source = known.get(entry.name, known.get(entry.name.removeprefix(prefix)) if prefix else None)
        if source is None or source.name in used:
            differences.append(Difference(Kind.EXTRA, entry.name, "the vetted model has no such tensor"))
            continue
        used.add(source.name)
        beside = parts.get(entry.name, {})
        if beside or entry.dtype == claim.storage != source.dtype:
            quantized.append(QuantizedTensor(entry, beside, source))
        else:
            plain.append(PlainTensor(entry, source))
    left = [entry for entry in vetted.tensors if entry.name not in used]
    kept = [tensor.source for tensor in plain]
    notes = []
    for entry in left:
        excuse = _excuse(vetted, entry, kept, tied=tied)
        if excuse:
            notes.append(excuse)
        else:
            differences.append(Difference(Kind.MISSING, entry.name, "the artefact has no such tensor"))
    differences += _unconverted(quantized, claim)
    return Pairing(tuple(quantized), tuple(plain), tuple(differences), tuple(notes))


def _parts(artifact: Checkpoint, scheme: Scheme) -> tuple[dict[str, dict[str, TensorEntry]], frozenset[str]]:
    """What lies beside each weight, by the weight's name; and the names of all that does."""
    weights = {entry.name for entry in artifact.tensors}
    parts: dict[str, dict[str, TensorEntry]] = {}
    owned = set()
    for entry in artifact.tensors:
        for part in _INT8_PARTS if scheme is Scheme.INT8 else _FOUR_BIT_PARTS:
            stem = entry.name.removesuffix("." + part)
            weight = f"{stem}.weight" if scheme is Scheme.INT8 else stem
            if stem != entry.name and weight in weights and weight.endswith(".weight"):
                parts.setdefault(weight, {})[part] = entry
                owned.add(entry.name)
    return parts, frozenset(owned)


def _prefix(names: list[str], known: Mapping[str, TensorEntry]) -> str:
    """The base model's name with its dot, where save_pretrained put it before all names but that of an output head.

    Some checkpoints are of the base model alone. Before a part of the names it would hide them from the loader.
    """
    added = {name.partition(".")[0] for name in names if name not in known and name.partition(".")[2] in known}
    kept = [name for name in names if name in known and not _is_head(name)]
    return "" if kept or len(added) != 1 or not added <= base_model_prefixes() else f"{added.pop()}."


def _is_head(name: str) -> bool:
    return name.removesuffix(".weight").rpartition(".")[2] in _HEADS


def _excuse(vetted: Checkpoint, entry: TensorEntry, kept: list[TensorEntry], *, tied: bool) -> str:
    """Why a vetted tensor need not be in the artefact; empty where it must be."""
    shown = quote(entry.name)
    if _COMPUTED.search(entry.name) and (len(entry.shape) != 1 or entry.name.endswith("inv_freq")):
        return f"{shown} is not in the artefact: transformers computes it"
    if tied and _is_head(entry.name):
        for other in kept:
            if (other.dtype, other.shape) == (entry.dtype, entry.shape) and _same(vetted, entry, other):
                return f"{shown} is not in the artefact: it is tied to {quote(other.name)}, which has the same values"
    return ""


def _same(checkpoint: Checkpoint, one: TensorEntry, other: TensorEntry) -> bool:
    first, second = (read_tensor(checkpoint, entry).reshape(-1).view(torch.uint8) for entry in (one, other))
    return torch.equal(first, second)


def _unconverted(quantized: list[QuantizedTensor], claim: Claim) -> Iterator[Difference]:
    """Quantized tensors of modules that the loader would leave alone: it would take the codes for weights."""
    from transformers.quantizers.quantizers_utils import should_convert_module

    for tensor in quantized:
        module = tensor.entry.name.removesuffix(".weight")
        if claim.skipped is None:
            converted = not _is_head(tensor.entry.name)
        else:
            converted = should_convert_module(module, list(claim.skipped))
        if not converted:
            message = "is quantized, but by its quantization_config the loader would take its codes for weights"
            yield Difference(Kind.SETTINGS, tensor.entry.name, message)
