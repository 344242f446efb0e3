"""A model directory as a value, and the one directory on disk that is made to equal it, input after input."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Link:
    target: str


@dataclass(frozen=True, slots=True)
class HardLink:
    """A second name of a file that lies outside of the directory."""

    source: Path


@dataclass(frozen=True, slots=True)
class Pipe:
    pass


@dataclass(frozen=True, slots=True)
class Socket:
    pass


@dataclass(frozen=True, slots=True)
class Folder:
    pass


Node = bytes | Link | HardLink | Pipe | Socket | Folder
Tree = Mapping[str, Node]  # path relative to the directory -> what lies there


def _contested(tree: Tree) -> set[str]:
    """Paths of which one would have to be a folder for the other to lie in it."""
    found: set[str] = set()
    for path in tree:
        above = path
        while "/" in above:
            above = above.rsplit("/", 1)[0]
            if above in tree:
                found |= {above, path}
    return found


class Disk:
    """`root` on disk. Only what differs from the tree before is written, which makes thousands of inputs a second."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.root = root.resolve()
        self._now: dict[str, Node] = {}

    def become(self, tree: Tree) -> None:
        """Make the directory hold `tree`; an entry that the file system refuses (a name too long) is left out."""
        contested = _contested(tree)  # which of two such is made first decides which is made: as if nothing were there
        for path in [path for path, node in self._now.items() if tree.get(path) != node or path in contested]:
            self._remove(path)
        for path, node in tree.items():
            if path not in self._now:
                try:
                    self._make(path, node)
                except (OSError, ValueError):  # too long, a NUL, below a file: no such model can exist on disk
                    continue
                self._now[path] = node

    def _remove(self, path: str) -> None:
        if self._now.pop(path, None) is None:
            return  # gone with the folder that it lay in
        full = self.root / path
        if full.is_dir() and not full.is_symlink():
            shutil.rmtree(full)
            self._now = {other: node for other, node in self._now.items() if not other.startswith(path + "/")}
        else:
            full.unlink()
        while (full := full.parent) != self.root and str(full.relative_to(self.root)) not in self._now:
            if any(full.iterdir()):
                break
            full.rmdir()

    def _make(self, path: str, node: Node) -> None:
        full = self.root / path
        if os.path.realpath(full.parent) != str(full.parent) or os.path.lexists(full):
            raise ValueError("through a link, or there already")
        if "/" in path:
            full.parent.mkdir(parents=True, exist_ok=True)
        match node:
            case bytes():
                full.write_bytes(node)
            case Link():
                full.symlink_to(node.target)
            case HardLink():
                full.hardlink_to(node.source)
            case Pipe():
                os.mkfifo(full)
            case Socket():
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(full))
            case Folder():
                full.mkdir()
