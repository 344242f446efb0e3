"""What the full-precision model puts out for each calibration text, kept from the first time that it is seen."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor

from quantguard.harden.calibration import Batch
from quantguard.harden.trunk import Parts


class Teacher:
    """The trunk's outputs of the model as it is when asked, which must be the same model each time."""

    def __init__(self, parts: Parts, kept: MutableMapping[int, Tensor] | None) -> None:
        """`kept`: text -> (tokens, width) on the CPU, filled here; None: every batch is computed anew.

        A kept text went through the model beside other texts than those of the batch that it is asked in. Its padding
        was then another, and so are the last bits.
        """
        self._parts = parts
        self._kept = kept

    def states(self, batch: Batch) -> Tensor:
        """Of all tokens that are no padding: (tokens, width), the model's dtype, on the batch's device."""
        with torch.no_grad():
            if self._kept is None or not batch.texts:
                return self._parts.trunk(batch)
            self._learn(batch, self._kept)
            return torch.cat([self._kept[text] for text in batch.texts]).to(batch.tokens.device)

    def _learn(self, batch: Batch, kept: MutableMapping[int, Tensor]) -> None:
        rows = [row for row, text in enumerate(batch.texts) if text not in kept]
        if not rows:
            return
        new = Batch(batch.tokens[rows], batch.mask[rows])
        lengths: list[int] = new.mask.sum(dim=1).tolist()
        for row, states in zip(rows, torch.split(self._parts.trunk(new), lengths), strict=True):
            kept[batch.texts[row]] = states.to("cpu", copy=True)
