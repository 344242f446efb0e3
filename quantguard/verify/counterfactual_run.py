"""Counterfactual rounding of one model directory under several schemes, with the real library."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from quantguard.core.errors import ModelLoadError
from quantguard.core.measurement import Divergence, Drift, Unmeasured
from quantguard.core.progress import Progress, silent
from quantguard.core.prompts import prompts_digest
from quantguard.core.scheme import Scheme
from quantguard.grids.grid import grid_for
from quantguard.models.foreign import said
from quantguard.models.layers import turn_conv1d
from quantguard.models.load import LoadedModel
from quantguard.models.quantized import quantized_layers
from quantguard.models.quiet import quiet_libraries
from quantguard.models.rounded import store_levels
from quantguard.models.texts import TextBatch, batches, continued, tokens_at_once
from quantguard.models.threads import threads_for
from quantguard.verify.counterfactual import FLOOR, certainty, divergence, quotient, random_levels
from quantguard.verify.counterfactual_request import CounterfactualRequest

_COPIES_OF_A_BLOCK: Final = 3
_NEW_TOKENS: Final = 32  # of the model's own answer
_KEPT: Final = 2**30  # bytes of full precision's log-probabilities that are kept rather than computed again
_BLOCK: Final = re.compile(r"(.*?\.\d+)\.")  # model.layers.3 of model.layers.3.mlp.up_proj.weight


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """Counterfactual rounding of one model under one scheme after the other; full precision stays in memory."""

    request: CounterfactualRequest
    reference: _Reference
    confidence: float  # of the intervals, 0..1
    seed: int
    progress: Progress

    @classmethod
    def begin(
        cls,
        full: LoadedModel,
        request: CounterfactualRequest,
        *,
        batch_size: int,
        confidence: float,
        seed: int,
        progress: Progress = silent,
    ) -> Counterfactual:
        """Full precision answers the prompts, `batch_size` at once. A Linear is left in the place of each Conv1D.

        Raises:
            ModelLoadError: it cannot.
        """
        rows = continued(full, request.prompts, max_new_tokens=_NEW_TOKENS, batch_size=batch_size, progress=progress)
        return cls(request, _reference(full, rows), confidence, seed, progress)

    def drift(self, loaded: LoadedModel, scheme: Scheme) -> Drift:
        """Of one quantized model, which is left with other roundings. A failure is Unmeasured."""
        self.progress("counterfactual", 0, 1, scheme.value)
        with quiet_libraries(), threads_for(self.reference.full.model, loaded.device):
            found = self._measured(loaded, scheme)
        self.progress("counterfactual", 1, 1, scheme.value)
        return Drift(scheme, found, prompts_digest(self.request.prompts))

    def _measured(self, loaded: LoadedModel, scheme: Scheme) -> Divergence | Unmeasured:
        try:
            return _divergence(self, _Roundings(loaded, scheme, self.reference, self.seed), self.reference)
        except ModelLoadError as error:
            return Unmeasured(str(error))
        except torch.OutOfMemoryError:
            return Unmeasured(f"{loaded.device} has too little memory for full precision beside {scheme.value}")
        except Exception as error:  # noqa: BLE001  the model's code is transformers', its configuration is anybody's
            return Unmeasured(f"the model failed on calibration text: {said(error)}")


@dataclass(slots=True)
class _Reference:
    """Full precision and what it says of each text."""

    full: LoadedModel
    batches: tuple[TextBatch, ...]
    texts: int
    tokens: int
    _kept: dict[int, Tensor] = field(default_factory=dict)
    _left: int = _KEPT

    def compared(self) -> Iterator[tuple[TextBatch, Tensor, Tensor]]:
        """Each batch with full precision's log-probabilities and what each token counts."""
        for number, batch in enumerate(self.batches):
            log_p = self._kept.get(number)
            if log_p is None:
                log_p = _log_probabilities(self.full.model, batch)
                size = log_p.numel() * log_p.element_size()
                if size <= self._left:
                    self._left -= size
                    self._kept[number] = log_p
            yield batch, log_p, certainty(log_p, batch.mask)

    def weights(self) -> Tensor:
        """What the tokens of each text count together: float64 (texts,)."""
        return self._by_text((batch, weight.double().sum(1)) for batch, _, weight in self.compared())

    def divergences(self, model: Any) -> Tensor:
        """Nats of each text between full precision and `model`: float64 (texts,)."""
        return self._by_text(
            (batch, divergence(log_p, _log_probabilities(model, batch), weight))
            for batch, log_p, weight in self.compared()
        )

    def _by_text(self, parts: Iterable[tuple[TextBatch, Tensor]]) -> Tensor:
        sums = torch.zeros(self.texts, dtype=torch.float64)
        for batch, part in parts:
            sums[batch.texts] = part.double().cpu()
        return sums


def _reference(full: LoadedModel, rows: Sequence[Sequence[int]]) -> _Reference:
    """`full` is left with a Linear in the place of each Conv1D."""
    turn_conv1d(full.model)
    grouped = batches(rows, tokens=tokens_at_once(full.model), device=full.device)
    return _Reference(full, grouped, len(rows), sum(map(len, rows)))


def _log_probabilities(model: Any, batch: TextBatch) -> Tensor:
    """float32 (texts, tokens, vocabulary)."""
    with torch.inference_mode():
        out = model(input_ids=batch.tokens, attention_mask=batch.mask.long(), use_cache=False)
        return out.logits.float().log_softmax(-1)  # type: ignore[no-any-return]


class _Roundings:
    """A quantized model whose layers are given other roundings."""

    def __init__(self, loaded: LoadedModel, scheme: Scheme, reference: _Reference, seed: int) -> None:
        self.names = quantized_layers(loaded.model)
        self._model: Any = loaded.model
        self._grid = grid_for(scheme)
        self._reference = reference
        self._seed = seed

    def blocks(self) -> Mapping[str, tuple[str, ...]]:
        """The layers of each transformer block, in module order; one outside of all is a block of its own."""
        found: dict[str, tuple[str, ...]] = {}
        for name in self.names:
            match = _BLOCK.match(name)
            block = match.group(1) if match else name.removesuffix(".weight")
            found[block] = (*found.get(block, ()), name)
        return found

    def at_random(self, names: Iterable[str], copy: int) -> None:
        """Round the layers `names` at random; the same seed, copy and name give the same levels."""
        for name in names:
            weight = self._weight(name)
            entropy = hashlib.sha256(f"{self._seed} {copy} {name}".encode()).digest()
            generator = torch.Generator(weight.device).manual_seed(int.from_bytes(entropy[:7], "big"))
            self._store(name, weight, random_levels(self._grid, weight, generator))

    def to_nearest(self, names: Iterable[str]) -> None:
        for name in names:
            weight = self._weight(name)
            self._store(name, weight, self._grid.nearest(weight))

    def divergences(self) -> Tensor:
        """Nats of each text: float64 (texts,)."""
        return self._reference.divergences(self._model)

    def _weight(self, name: str) -> Tensor:
        weight: Tensor = self._reference.full.model.get_parameter(name).detach()
        return weight

    def _store(self, name: str, weight: Tensor, index: Tensor) -> None:
        store_levels(self._model.get_submodule(name.removesuffix(".weight")), self._grid, weight, index)


def _divergence(task: Counterfactual, roundings: _Roundings, reference: _Reference) -> Divergence | Unmeasured:
    rows = [roundings.divergences()]
    for copy in range(task.request.copies):
        roundings.at_random(roundings.names, copy)
        rows.append(roundings.divergences())
    sums = torch.stack(rows)  # (1 + copies, texts)
    if not bool(sums.isfinite().all()):
        return Unmeasured("the logits are not finite")
    found = quotient(sums, reference.weights(), confidence=task.confidence, seed=task.seed)
    raised = found.nearest > FLOOR and not found.upper <= task.request.localise_above
    layers = _layers(roundings, float(sums[0].sum())) if raised else ()
    totals = sums.sum(1)  # (1 + copies,)
    return Divergence(
        ratio=found.value,
        lower=found.lower,
        upper=found.upper,
        confidence=task.confidence,
        nearest=found.nearest,
        random=found.random,
        exceeded=int((totals[1:] < totals[0]).sum()),
        copies=task.request.copies,
        texts=reference.texts,
        tokens=reference.tokens,
        layers=layers,
    )


def _layers(roundings: _Roundings, nearest: float) -> tuple[tuple[str, float], ...]:
    """Each block with the share of the `nearest` nats that goes once it alone is rounded at random, largest first."""
    roundings.to_nearest(roundings.names)
    found = []
    for block, names in roundings.blocks().items():
        left = 0.0
        for copy in range(_COPIES_OF_A_BLOCK):
            roundings.at_random(names, copy)
            left += float(roundings.divergences().sum()) / _COPIES_OF_A_BLOCK
        roundings.to_nearest(names)
        found.append((block, 1 - left / nearest))
    return tuple(sorted(found, key=lambda entry: (-entry[1], entry[0])))
