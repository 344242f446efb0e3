"""Files that come with QuantGuard beside its code: the preset policies and what they name."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final

PREFIX: Final = "quantguard:"  # of a name in a policy, before a path in `bundled_folder()`


def bundled_folder() -> Path:
    """`policies/` of this installation: inside the package where it was installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "policies"
    return installed if installed.is_dir() else package.parent / "policies"


def is_bundled(name: str) -> bool:
    """Whether a policy means a file of QuantGuard's own by `name`. A name that leads out of the folder is none."""
    path = PurePosixPath(name.removeprefix(PREFIX))
    return name.startswith(PREFIX) and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def named_file(name: str, folder: Path) -> Path:
    """The file that a policy in `folder` calls `name`."""
    return bundled_folder() / name.removeprefix(PREFIX) if is_bundled(name) else folder / name
