"""What the quantized model does that it must not: attack success, benchmarks, statistics."""
