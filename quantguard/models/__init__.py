"""Torch modules in and out: load safely, quantize with the real library, generate."""
