"""The layers that bitsandbytes would quantize, before it does."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from quantguard.core.scheme import Scheme
from quantguard.models.load import bitsandbytes_config
from quantguard.models.quantized import quantized_layers, refuse_broken_shapes
from quantguard.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def planned_layers(model: PreTrainedModel, scheme: Scheme, device: str) -> tuple[str, ...]:
    """Names of the weights that will be quantized, in module order; found by transformers' own replacement of layers.

    It is done to a second model of the same configuration, which holds no weights: `model` stays as it is.

    Raises:
        ModelLoadError: the scheme cannot be computed correctly on this device.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    model_class: Any = type(model)
    with quiet_libraries():
        with torch.device("meta"):
            skeleton = model_class(copy.deepcopy(model.config))
        quantizer = AutoHfQuantizer.from_config(bitsandbytes_config(scheme, model.dtype), pre_quantized=False)
        quantizer.preprocess_model(skeleton, device_map={"": device})
    refuse_broken_shapes(skeleton, scheme, device)
    return quantized_layers(skeleton)


def conv1d_weights(model: nn.Module) -> frozenset[str]:
    """Names of the weights of Conv1D (GPT-2): Linear layers that hold theirs as (in_features, out_features).

    bitsandbytes transposes them before it makes blocks and rows; so do we, and every layer has one form.
    """
    from transformers.pytorch_utils import Conv1D

    return frozenset(f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D))


def turn_conv1d(model: nn.Module) -> None:
    """Put a frozen Linear in the place of every Conv1D, none of which is offloaded."""
    for weight in conv1d_weights(model):
        name = weight.removesuffix(".weight")
        conv: Any = model.get_submodule(name)
        linear = nn.Linear(conv.nx, conv.nf, device="meta")
        linear.weight = nn.Parameter(conv.weight.detach().T.contiguous(), requires_grad=False)  # (out, in)
        linear.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
        model.set_submodule(name, linear)
