"""The policies of one tree and the files that they name, copied to a directory of our own and loaded there.

There are no links in that directory and no names that lead out of it, so that what `load_policy` opens is what the
tree holds and nothing else of this machine.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from quantguard.check.places import line_place, shown_path
from quantguard.check.remarks import INVALID, UNSAFE
from quantguard.check.trees import Refused, Tree
from quantguard.core.errors import GitError, PolicyError
from quantguard.core.remark import Level, Place, Remark
from quantguard.policy.document import MAX_BYTES, Document, Location, parse_document
from quantguard.policy.extends import KEY, MAX_FILES, PRESETS, extended
from quantguard.policy.load import LoadedPolicy, load_policy, policy_problems
from quantguard.policy.naming import named_files

SCHEMA: Final = "quantguard.policy/"
MAX_NAMED_BYTES: Final = 16 * 1024 * 1024  # of one file that a policy names
MAX_TOTAL_BYTES: Final = 256 * 1024 * 1024  # of everything that is read of one tree
MAX_YAML_FILES: Final = 20_000
_SUFFIXES: Final = (".yaml", ".yml")
_MARK: Final = SCHEMA.rstrip("/").encode()
_ESCAPES: Final = re.compile(rb"\\[xuU\r\n]")  # YAML can spell the mark so that a search does not see it
_CLAIM: Final = re.compile(rb"^[\"']?schema[\"']?\s*:\s*[\"']?" + re.escape(_MARK), re.MULTILINE)
_MAX_MESSAGE: Final = 600
_LESS: Final = "keep policies in a smaller repository"


@dataclass(frozen=True, slots=True)
class Version:
    """One policy file of one tree."""

    path: str
    data: bytes  # empty where it was not read
    problems: tuple[Remark, ...]  # why it is no policy; empty where it is one
    document: Document | None  # None where it is not YAML
    loaded: LoadedPolicy | None  # None where there are problems

    def place(self, location: Location) -> Place:
        """Where the file says `location`, or would say it; `extends` where another file says it."""
        if self.document is None:
            return line_place(self.path, self.data, 1)
        written = self.loaded.written if self.loaded is not None else None
        inherited = written is not None and written.owner(location) is not written.own
        return self.document.place((KEY,) if inherited else location)


class Snapshot:
    """One tree, of which the files that matter are copied below `root`, an empty directory of ours."""

    def __init__(self, tree: Tree, root: Path) -> None:
        self.tree = tree
        self._root = root
        self._read = 0
        self._versions: dict[str, Version | None] = {}
        self._policies: tuple[str, ...] | None = None
        self._called: set[str] = set()

    def policies(self) -> tuple[str, ...]:
        """Paths of the YAML files that say they are policies, and of the files that were called so, sorted.

        Raises:
            GitError: too many YAML files, or git does not answer.
        """
        if self._policies is None:
            names = sorted(path for path in self.tree.paths if is_yaml(path))
            if len(names) > MAX_YAML_FILES:
                raise GitError(f"more than {MAX_YAML_FILES} YAML files", remedy=_LESS)
            self._policies = tuple(name for name in names if self._says_policy(name))
        return tuple(sorted({*self._policies, *(path for path in self._called if self.policy(path) is not None)}))

    def call_policies(self, paths: Iterable[str]) -> None:
        """Count `paths` as policies too, whatever they are called and whatever they say, where there are such files."""
        self._called.update(paths)

    def policy(self, path: str) -> Version | None:
        """The file at `path` as a policy, valid or not; None where there is no file.

        Raises:
            GitError: git does not answer, or there is too much to read.
        """
        if path not in self._versions:
            data = self.bytes_of(path, MAX_BYTES)
            self._versions[path] = None if data is None else self._version(path, data)
        return self._versions[path]

    def bytes_of(self, path: str, limit: int) -> bytes | Refused | None:
        """A file of the tree, counted against what may be read of it."""
        data = self.tree.read(path, limit)
        if isinstance(data, bytes):
            self._read += len(data)
            if self._read > MAX_TOTAL_BYTES:
                raise GitError(
                    f"YAML files and what policies name have more than {MAX_TOTAL_BYTES} bytes", remedy=_LESS
                )
        return data

    def copied(self, path: str) -> Path | Refused | None:
        """The file at `path` as a file below our root; None where there is none.

        Raises:
            GitError: git does not answer, or there is too much to read.
        """
        data = self.bytes_of(path, MAX_BYTES)
        if not isinstance(data, bytes):
            return data
        return self._write(path, data) or self._root / path

    def _says_policy(self, path: str) -> bool:
        data = self.bytes_of(path, MAX_BYTES)
        return isinstance(data, bytes) and says_policy(data)

    def _version(self, path: str, data: bytes | Refused) -> Version:
        if isinstance(data, Refused):
            unsafe = Remark(UNSAFE, Level.ERROR, f"this policy {data.why}", line_place(path, b"", 1))
            return Version(path, b"", (unsafe,), None, None)
        try:
            document = parse_document(Path(shown_path(path)), data)
        except PolicyError as error:
            return Version(path, data, (self._problem(path, data, error),), None, None)
        try:
            refused = tuple(self._copy_all(path, data, document))
        except PolicyError as error:
            return Version(path, data, (self._problem(path, data, error),), document, None)
        if refused:
            return Version(path, data, refused, document, None)
        target = self._root / path
        try:
            problems = tuple(self._problem(path, data, error) for error in policy_problems(target))
            loaded = None if problems else load_policy(target)
        except RecursionError:
            problems = (Remark(INVALID, Level.ERROR, "a file that it names is nested too deeply", document.place(())),)
            loaded = None
        return Version(path, data, problems, document, loaded)

    def _problem(self, path: str, data: bytes, error: PolicyError) -> Remark:
        key = f"{error.key}: " if error.key else ""
        remedy = f" ({error.remedy})" if error.remedy else ""
        # Messages about the files that it names hold where we put them.
        said = f"{key}{error.message}{remedy}".replace(f"{self._root}/", "")[:_MAX_MESSAGE]
        line = error.line
        if error.path not in (self._root / path, Path(shown_path(path))):  # in what this file extends
            file = shown_path(posixpath.normpath(str(error.path)).removeprefix(f"{self._root}/"))
            said, line = f"{file}:{line}: {said}"[:_MAX_MESSAGE], _extends_line(data)
        return Remark(INVALID, Level.ERROR, said, line_place(path, data, line), error.key)

    def _copy_all(self, path: str, data: bytes, document: Document) -> Iterator[Remark]:
        """Copy the policy, what it extends and every file that they name; a remark for each that may not be read.

        Raises:
            PolicyError: it, or what it extends, is no YAML of ours.
        """
        if (why := self._write(path, data)) is not None:
            yield Remark(UNSAFE, Level.ERROR, f"this policy {why.why}", document.place(()))
            return
        at, read = path, document
        for _ in range(MAX_FILES):
            yield from self._copy_named(at, read, document)
            base = extended(read)
            if base is None or base in PRESETS:
                return
            copied = self._copy(at, base)
            if isinstance(copied, Refused):
                yield Remark(UNSAFE, Level.ERROR, f"{KEY}: {copied.why}", document.place((KEY,)), KEY)
            target = inside(posixpath.dirname(at), base)
            if target is None or not isinstance(copied, bytes):  # that it is absent is told when the policy is loaded
                return
            at, read = target, parse_document(Path(shown_path(target)), copied)

    def _copy_named(self, path: str, read: Document, document: Document) -> Iterator[Remark]:
        """Copy every file that `read`, at `path`, names; `document` is what extends it, or the same."""
        for location, relative in named_files(read.values()):
            copied = self._copy(path, relative)
            refused, data_files = (copied, ()) if isinstance(copied, Refused) else (None, _data_files(location, copied))
            for name in data_files:
                target = posixpath.join(posixpath.dirname(relative), name)
                below = self._copy(path, target) if not name.startswith("/") else _outside(name)
                refused = below if isinstance(below, Refused) else refused
            if refused is not None:
                key = ".".join(map(str, location))
                place = document.place(location if read is document else (KEY,))
                yield Remark(UNSAFE, Level.ERROR, f"{key}: {refused.why}", place, key)

    def _copy(self, policy: str, relative: str) -> bytes | Refused | None:
        """The file that `policy` calls `relative`, now below our root as well."""
        target = inside(posixpath.dirname(policy), relative)
        if target is None:
            return _outside(relative)
        data = self.bytes_of(target, MAX_NAMED_BYTES)
        refused = self._write(target, data) if isinstance(data, bytes) else data
        return Refused(f"{relative} {refused.why}") if isinstance(refused, Refused) else data

    def _write(self, path: str, data: bytes) -> Refused | None:
        target = self._root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        except OSError as error:
            return Refused(f"cannot be copied: {error.strerror}")
        return None


def is_yaml(path: str) -> bool:
    return path.lower().endswith(_SUFFIXES)


def says_policy(data: bytes) -> bool:
    """Whether a YAML file says, in any spelling, that it is a policy. One that is not YAML may still claim it."""
    if _MARK not in data and not _ESCAPES.search(data):
        return False
    try:
        schema = parse_document(Path("policy"), data).node("schema")
    except PolicyError:
        return bool(_CLAIM.search(data))
    return isinstance(schema, yaml.ScalarNode) and schema.value.startswith(SCHEMA)


def inside(directory: str, relative: str) -> str | None:
    """What `relative` is called from the top of the checkout when it is named in `directory`; None where outside."""
    path = posixpath.normpath(posixpath.join(directory, relative))
    return None if path.startswith(("/", "../")) or path in (".", "..") or "\0" in path else path


def _extends_line(data: bytes) -> int:
    """The line on which a file says what it extends."""
    try:
        return parse_document(Path("policy"), data).spot((KEY,))[0]
    except PolicyError:
        return 1


def _outside(relative: str) -> Refused:
    return Refused(f"{relative[:200]} leads out of the repository")


def _data_files(location: Location, data: bytes | None) -> tuple[str, ...]:
    """What a task file names in its turn; what is wrong with it is told when the policy is loaded."""
    if location[0] != "benchmarks" or data is None:
        return ()
    try:
        return tuple(_words(parse_document(Path("task"), data).node("dataset_kwargs", "data_files")))
    except PolicyError:
        return ()


def _words(node: yaml.Node | None) -> Iterator[str]:
    if isinstance(node, yaml.ScalarNode):
        yield node.value
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _words(item)
    elif isinstance(node, yaml.MappingNode):
        for _, item in node.value:
            yield from _words(item)
