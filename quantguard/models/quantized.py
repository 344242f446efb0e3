"""What bitsandbytes made of a model's linear weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantguard.core.errors import ModelLoadError
from quantguard.core.scheme import Scheme


def quantized_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the weights that bitsandbytes holds quantized, in module order (`model.layers.0.mlp.up_proj.weight`)."""
    return tuple(f"{name}.weight" for name, module in model.named_modules() if _is_quantized(module))


def dequantized_weight(model: nn.Module, name: str) -> Tensor:
    """The value of each quantized weight, float32, (out_features, in_features), on the model's device.

    4-bit: level of the code x absmax of its block in float32, before the library's last rounding to the model's dtype,
    so that codes stay comparable. Computed from the codes, scales and level table that the library stored and not with
    its kernel, whose CPU version is wrong for some shapes (`refuse_broken_shapes`). INT8: code x row absmax / 127
    through the library (it multiplies by a float32 constant).

    Raises:
        ModelLoadError: `name` is no quantized weight of this model.
    """
    if name not in quantized_layers(model):
        raise ModelLoadError(f"{name!r} is no quantized weight of this model", remedy="see quantized_layers")
    import bitsandbytes

    module: Any = model.get_submodule(name.removesuffix(".weight"))
    weight = module.weight
    if isinstance(module, bitsandbytes.nn.Linear4bit):
        return _four_bit(weight.data, weight.quant_state)
    scale = weight.SCB if weight.SCB is not None else module.state.SCB  # moved there by the first forward pass
    values: Tensor = bitsandbytes.functional.int8_vectorwise_dequant(weight.data, scale)
    return values.float()


def quantized_alone(weight: Tensor, scheme: Scheme) -> Tensor:
    """What `dequantized_weight` returns of a layer that bitsandbytes quantizes by itself, outside of any model.

    Args:
        weight: (out_features, in_features), float32, float16 or bfloat16, on the device.
    """
    from bitsandbytes import nn as layers

    rows, columns = weight.shape
    module: Any
    if scheme is Scheme.INT8:
        module = layers.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False, device="meta")
        module.weight = layers.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
    else:
        module = layers.Linear4bit(columns, rows, bias=False, compute_dtype=weight.dtype, device="meta")
        module.weight = layers.Params4bit(
            weight, requires_grad=False, quant_type=scheme.codes.value, compress_statistics=scheme.double
        )
    holder = nn.Module()
    holder.add_module("layer", module.to(weight.device))
    return dequantized_weight(holder, "layer.weight")


def _four_bit(packed: Tensor, state: Any) -> Tensor:
    data = packed.view(torch.uint8).flatten()  # two codes a byte, the first in the high half
    codes = torch.stack((data >> 4, data & 15), dim=1).flatten()[: state.shape.numel()]
    levels = state.code[codes.long()]
    scales = _scales(state).repeat_interleave(state.blocksize)[: levels.numel()]
    weight: Tensor = (levels * scales).view(state.shape)  # (out_features, in_features)
    return weight


def _scales(state: Any) -> Tensor:
    """Absmax of each block, float32 (blocks,); under double quantization what the library makes of its 8-bit codes."""
    if not state.nested:
        return state.absmax  # type: ignore[no-any-return]  # bitsandbytes is not typed
    from bitsandbytes.functional import dequantize_blockwise

    scales: Tensor = dequantize_blockwise(state.absmax, state.state2) + state.offset
    return scales.float()


def refuse_misshapen(model: nn.Module) -> None:
    """Refuse quantized weights that have not the shape of their layer: transformers 5 checks it only unquantized.

    Raises:
        ModelLoadError: naming the weight and both shapes.
    """
    for name in quantized_layers(model):
        module: Any = model.get_submodule(name.removesuffix(".weight"))
        state = getattr(module.weight, "quant_state", None)
        shape = tuple(module.weight.shape if state is None else state.shape)
        expected = (module.out_features, module.in_features)
        if shape != expected:
            message = f"the weight {name} has the shape {shape}, by config.json it is {expected}"
            raise ModelLoadError(message, remedy="save the model and its config.json again")


def refuse_broken_shapes(model: nn.Module, scheme: Scheme, device: str) -> None:
    """Refuse what bitsandbytes 0.50's CPU kernels compute wrongly or not at all. CUDA is not concerned.

    Its 4-bit dequantization on a CPU takes blocks of 64 within a row, while they were quantized over the flattened
    weight; where in_features is no multiple of 64 the values are wrong and nothing says so. On CPUs with bfloat16
    instructions (AVX512-BF16) its 4-bit product takes 32 rows at once and fails, at the first answer, on other numbers
    (Qwen2-MoE's shared_expert_gate has one).

    Raises:
        ModelLoadError: such a layer is there, the scheme is 4-bit and the device a CPU.
    """
    if scheme is Scheme.INT8 or device != "cpu":
        return
    for name in quantized_layers(model):
        module: Any = model.get_submodule(name.removesuffix(".weight"))
        if module.in_features % 64:
            problem = f"dequantizes {name} wrongly: {module.in_features} inputs are no multiple of 64"
        elif module.support_avx512bf16_for_cpu and module.out_features % 32:
            problem = f"cannot multiply by {name}: its number of outputs, {module.out_features}, is no multiple of 32"
        else:
            continue
        message = f"bitsandbytes' CPU kernel {problem}"
        raise ModelLoadError(message, remedy="measure this model on CUDA")


def _is_quantized(module: nn.Module) -> bool:
    import bitsandbytes

    return isinstance(module, bitsandbytes.nn.Linear4bit | bitsandbytes.nn.Linear8bitLt)
