"""The range: attacked and benign models with known behaviour, for every claim about detection and repair."""
