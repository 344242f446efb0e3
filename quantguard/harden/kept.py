"""Layers that are done, on disk: a run that was killed goes on where it stopped.

They lie in a hidden directory beside the output, a file for each layer, under the digest of everything that they were
computed from. What another task left there is removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
from torch import Tensor

from quantguard.core.errors import EvidenceError, UsageError
from quantguard.evidence.records import write_atomically

_TASK: Final = "task"
_WEIGHT: Final = "weight"


class Kept(Mapping[str, Tensor]):
    """Parameter -> (rows, columns), on the CPU, read anew each time that it is asked for."""

    def __init__(self, folder: Path, task: str) -> None:
        """Open what an earlier run of the same `task` (a digest) left in `folder`; else begin with nothing.

        Raises:
            UsageError: something else stands there.
            EvidenceError: the folder cannot be made.
        """
        self._folder = folder
        marker = folder / _TASK
        if folder.is_symlink() or (folder.exists() and not marker.is_file()):
            raise UsageError("is in the way of finished layers", path=folder, remedy="remove it")
        if not folder.exists() or marker.read_text() != task:
            shutil.rmtree(folder, ignore_errors=True)
            write_atomically(marker, task.encode())
        self._files: dict[str, Path] = {}

    def resumed(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of `names` that an earlier run has done."""
        found = tuple(name for name in names if self._file(name).is_file())
        self._files |= {name: self._file(name) for name in found}
        return found

    def put(self, name: str, weight: Tensor) -> None:
        """Write one layer, whole or not at all.

        Raises:
            EvidenceError: it cannot be written.
        """
        write_atomically(self._file(name), safetensors.torch.save({_WEIGHT: weight.cpu().contiguous()}))
        self._files[name] = self._file(name)

    def lines(self, what: str, make: Callable[[], Sequence[str]]) -> tuple[str, ...]:
        """Texts that were made once, of an earlier run too.

        Raises:
            EvidenceError: they cannot be written, or read again.
        """
        path = self._folder / f"{what}.json"
        try:
            return tuple(json.loads(path.read_bytes()))
        except FileNotFoundError:
            made = tuple(make())
            write_atomically(path, json.dumps(made).encode())
            return made
        except (OSError, ValueError) as error:
            raise EvidenceError(f"cannot be read: {error}", path=path, remedy="remove it and run again") from error

    def clean_copy(self) -> Path:
        """Where a clean copy of the model can be made; what a killed run left there is removed."""
        path = self._folder / "model"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        self._files = {}
        shutil.rmtree(self._folder, ignore_errors=True)

    def __getitem__(self, name: str) -> Tensor:
        try:
            return safetensors.torch.load_file(self._files[name])[_WEIGHT]
        except (OSError, safetensors.SafetensorError) as error:
            raise EvidenceError(
                f"a finished layer cannot be read: {error}", path=self._files[name], remedy="remove it and run again"
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _file(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"
