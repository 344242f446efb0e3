"""From what a registry stores to a plain Hugging Face directory.

MLflow stores the same files in several ways: raw artifacts (the directory itself), `transformers.log_model`
(`model/` with the tokenizer in `components/tokenizer/`), a pyfunc (`artifacts/KEY/`). The weights are where a
`config.json` lies beside `*.safetensors`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

# Directory that holds the version's other files, such as MLmodel: a consumer that loads the version through MLflow may
# run or unpickle them, so whoever judges the model must see them.
OUTSIDE: Final = "outside-the-model"


def settle(root: Path) -> None:
    """Make `root` the Hugging Face directory itself, where exactly one directory below it is one.

    Where `root` already is one, or none or several are found, it stays as it is: reading it as a checkpoint then says
    what is wrong. Files outside the model move to `outside-the-model/`.
    """
    models = [Path(path) for path, _, files in os.walk(root) if _is_model(files)]
    if len(models) != 1 or models[0] == root or (models[0] / OUTSIDE).exists():
        return
    model = models[0]
    if model == root / "model":
        _merge_tokenizer(root, model)
    for path in sorted(_outside(root, model)):
        kept = model / OUTSIDE / path.relative_to(root)
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.rename(kept)
    settled = root.with_name(f"{root.name}.settled")
    if settled.exists():
        shutil.rmtree(settled)
    model.rename(settled)
    shutil.rmtree(root)
    settled.rename(root)


def _is_model(files: list[str]) -> bool:
    return "config.json" in files and any(name.endswith(".safetensors") for name in files)


def _merge_tokenizer(root: Path, model: Path) -> None:
    below = Path("components", "tokenizer")
    tokenizer = root.resolve() / below
    if not tokenizer.is_dir() or tokenizer.resolve() != tokenizer:  # a link leads to files that are not the model's
        return
    for path in sorted(tokenizer.iterdir()):
        if not (model / path.name).exists():
            path.rename(model / path.name)


def _outside(root: Path, model: Path) -> list[Path]:
    found: list[Path] = []
    for directory, below, files in os.walk(root):
        if not Path(directory).is_relative_to(model):
            found += [Path(directory, name) for name in files]
            found += [Path(directory, name) for name in below if Path(directory, name).is_symlink()]
    return found
