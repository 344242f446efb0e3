"""Rounding grids of the quantizers, as exact arithmetic: tensors in, tensors out."""
