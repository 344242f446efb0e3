"""ggml's own C quantizers and gguf's reading of their bytes: what ours are compared with."""

from __future__ import annotations

import ctypes
import platform
import sys
from importlib import metadata

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

needs_ggml = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the build of ggml at hand is for x86-64, where its compiler fuses no product with a sum",
)


def ggml_bytes(kind: GGMLQuantizationType, weight: Tensor, block_bytes: int) -> Tensor:
    """What ggml's C code stores as `kind`: uint8 (blocks, block_bytes)."""
    files = metadata.files("pywhispercpp") or []
    (path,) = [file for file in files if file.parent.name == "pywhispercpp.libs" and "ggml-base" in file.name]
    name = kind.name.lower().removesuffix("k") + "K"  # q4_K
    quantize = getattr(ctypes.CDLL(str(path.locate())), f"quantize_row_{name}_ref")
    quantize.argtypes, quantize.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
    source = weight.float().contiguous()
    stored = torch.zeros(source.numel() // 256, block_bytes, dtype=torch.uint8)
    quantize(source.data_ptr(), stored.data_ptr(), source.numel())
    return stored


def gguf_values(kind: GGMLQuantizationType, packed: Tensor) -> Tensor:
    """What the package gguf reads in a file's bytes: float32 (blocks, 256)."""
    return torch.from_numpy(np.ascontiguousarray(dequantize(packed.numpy(), kind)))
