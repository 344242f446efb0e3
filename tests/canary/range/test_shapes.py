from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from quantguard.canary.architecture import named_linear_weights
from quantguard.canary.range.shapes import SHAPES, require_own
from quantguard.core.errors import UsageError
from tests.canary.range.canaries import FOREIGN, canary


@pytest.mark.parametrize("name", SHAPES)
def test_a_model_of_each_shape_is_one_of_the_range_and_bitsandbytes_can_take_it(name: str) -> None:
    with torch.device("meta"):  # the largest has 100 million weights
        model = canary(SHAPES[name])
    require_own(model)
    assert all(weight.shape[1] % 64 == 0 for _, weight in named_linear_weights(model))


@pytest.mark.parametrize("make", FOREIGN)
def test_a_foreign_model_is_refused(make: Callable[[], PreTrainedModel]) -> None:
    with pytest.raises(UsageError, match="not a canary of the range"):
        require_own(make())


def test_shapes_are_different_and_the_output_head_is_never_quantized() -> None:
    assert len(set(SHAPES.values())) == len(SHAPES)
    model = canary()
    assert "lm_head.weight" not in dict(named_linear_weights(model))
