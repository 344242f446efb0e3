"""What is measured of a quantized model beside its full precision, which stays in memory for it. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from quantguard.core.errors import ModelLoadError
from quantguard.core.measurement import Drift, Hunt
from quantguard.core.progress import Progress
from quantguard.core.scheme import Scheme
from quantguard.models.load import LoadedModel
from quantguard.models.memory import free_memory, memory_text
from quantguard.verify.counterfactual_request import CounterfactualRequest, unmeasured_drifts
from quantguard.verify.triggers import TriggerRequest, unmeasured_hunts

if TYPE_CHECKING:
    from quantguard.verify.counterfactual_run import Counterfactual
    from quantguard.verify.triggers_run import Hunting

_QUANTIZED: Final = 0.75  # of full precision's bytes: INT8 is half, and embeddings are not quantized


@dataclass(slots=True)
class Beside:
    """Counterfactual rounding and trigger hunting: full precision reads first, then each quantized model."""

    counterfactual: CounterfactualRequest | None  # None: not asked for
    triggers: TriggerRequest | None
    batch_size: int
    confidence: float
    seed: int
    progress: Progress
    _drifts: dict[Scheme, Drift] = field(default_factory=dict)
    _hunts: dict[Scheme, Hunt] = field(default_factory=dict)
    _rounding: Counterfactual | str = "full precision was not read"  # why there is none
    _hunting: Hunting | str = "full precision was not read"

    def read(self, loaded: LoadedModel) -> None:
        """Full precision is kept; of a quantized model all is measured. It comes last: other roundings are left in it.

        A failure is Unmeasured, never an exception.
        """
        if loaded.scheme is None:
            self._begin(loaded)
            return
        if self.triggers is not None and not isinstance(self._hunting, str):
            self._hunts[loaded.scheme] = self._hunting.hunt(loaded, loaded.scheme)
        if self.counterfactual is not None and not isinstance(self._rounding, str):
            self._drifts[loaded.scheme] = self._rounding.drift(loaded, loaded.scheme)

    def failed(self, scheme: Scheme | None, reason: str) -> None:
        """A model could not be loaded."""
        if scheme is None:
            self._rounding = self._hunting = reason
            return
        if self.counterfactual is not None:
            (self._drifts[scheme],) = unmeasured_drifts(self.counterfactual, [scheme], reason)
        if self.triggers is not None:
            (self._hunts[scheme],) = unmeasured_hunts(self.triggers, [scheme], reason)

    def told(self, schemes: Sequence[Scheme], problem: str | None) -> tuple[tuple[Drift, ...], tuple[Hunt, ...]]:
        """One of each a scheme, where they are asked for; full precision is let go.

        `problem` says why nothing could be read, where there is a reason.
        """
        for scheme in schemes:
            if self.counterfactual is not None and scheme not in self._drifts:
                why = problem or str(self._rounding)
                (self._drifts[scheme],) = unmeasured_drifts(self.counterfactual, [scheme], why)
            if self.triggers is not None and scheme not in self._hunts:
                (self._hunts[scheme],) = unmeasured_hunts(self.triggers, [scheme], problem or str(self._hunting))
        self._rounding = self._hunting = "it is over"
        drifts = tuple(self._drifts[scheme] for scheme in schemes if scheme in self._drifts)
        return drifts, tuple(self._hunts[scheme] for scheme in schemes if scheme in self._hunts)

    def _begin(self, full: LoadedModel) -> None:
        if self.counterfactual is None and self.triggers is None:
            return
        if short := _too_little(full):
            self._rounding = self._hunting = short
            return
        if self.triggers is not None:  # before counterfactual rounding, which exchanges some layers of full precision
            from quantguard.verify.triggers_run import Hunting, Setting

            setting = Setting(self.batch_size, self.confidence, full.device, self.progress)
            try:
                self._hunting = Hunting.begin(full, self.triggers, setting)
            except ModelLoadError as error:
                self._hunting = str(error)
        if self.counterfactual is not None:
            from quantguard.verify.counterfactual_run import Counterfactual

            try:
                self._rounding = Counterfactual.begin(
                    full,
                    self.counterfactual,
                    batch_size=self.batch_size,
                    confidence=self.confidence,
                    seed=self.seed,
                    progress=self.progress,
                )
            except ModelLoadError as error:
                self._rounding = str(error)


def _too_little(full: LoadedModel) -> str:
    """Why a quantized copy has no room beside `full`; empty where it has."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in full.model.parameters())
    free = free_memory(full.device)
    if free >= _QUANTIZED * size:
        return ""
    return (
        f"{full.device} has too little memory for a quantized model beside full precision: {memory_text(free)} are "
        f"left beside its {memory_text(size)} (use a larger device)"
    )
