"""QuantGuard's own dependencies, one a line: they make a layer below its code."""

import sys
import tomllib
from pathlib import Path

sys.stdout.write("\n".join(tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]) + "\n")
