"""QuantGuard: a gate against backdoors that quantization switches on."""

__version__ = "0.1.0"
