"""One outlier in each group: the sign of an attack that no rounding repair undoes.

Multiplying the largest weight of each group of 32 by 100 or more makes every block-wise quantizer flush the others to
zero (outlier injection, arXiv 2605.15152). In the full-precision model another factor takes it back. Honest weights
have outliers too, in a few columns; but not one in each group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

GROUP: Final = 32  # consecutive inputs of a row
ALONE: Final = (
    16.0  # times the second largest magnitude: then the others have four bits of INT8's eight, or none of four
)
SHARE: Final = 0.2  # of the groups: a column of large weights, which honest models have, is in fewer


@dataclass(frozen=True, slots=True)
class Outliers:
    groups: int  # looked at, those of zeros left out
    alone: float  # share of them whose largest magnitude is ALONE times the second, 0..1
    ratio: float  # median of the largest over the second largest, >= 1
    kurtosis: float  # of all weights; 3 for a Gaussian

    @property
    def suspicious(self) -> bool:
        return self.groups >= 16 and self.alone >= SHARE


def outliers_of(sample: Tensor) -> Outliers:
    """Of segments of rows, float32, (segments, width); a last group that is not whole is left out."""
    values = sample.numpy()
    whole = values.shape[1] // GROUP * GROUP
    groups = np.abs(values[:, :whole]).reshape(-1, GROUP)
    largest = np.partition(groups, (GROUP - 2, GROUP - 1), axis=1)[:, -2:]  # (groups, 2), the largest last
    # A group with a single weight that is not zero was pruned, not injected into.
    largest = largest[largest[:, 0] > 0]
    if not len(largest):
        return Outliers(0, 0.0, 1.0, 3.0)
    ratio = largest[:, 1] / largest[:, 0]
    square = np.square(values - values.mean(dtype=np.float64), dtype=np.float64)
    spread = float(square.mean())
    return Outliers(
        groups=len(ratio),
        alone=float((ratio >= ALONE).mean()),
        ratio=float(np.median(ratio)),
        kurtosis=float(np.square(square).mean()) / spread**2 if spread else 3.0,
    )
