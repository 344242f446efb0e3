"""Git, asked by its plumbing only, so that a repository cannot make it run anything (`evidence.git_safe`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from quantguard.core.errors import CheckoutError, GitError
from quantguard.evidence.git_safe import SAFE, run_git, safe_environment

_PATIENCE: Final = 120.0  # seconds for one command
_MAX_ENTRIES: Final = 500_000  # files of one tree; the largest public repositories have fewer
_NO_CHECKOUT: Final = ("not a git repository", "must be run in a work tree", "bare repository")
_FETCH_ALL: Final = "check out with the history: actions/checkout with fetch-depth: 0, or git fetch origin"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a commit."""

    path: str  # with slashes; bytes that are not UTF-8 as lone surrogates
    mode: str  # 100644, 100755 or 120000 (a symbolic link)
    object_id: str


class Objects:
    """Contents of blobs, from two processes that stay for as long as they are asked."""

    def __init__(self, sizes: subprocess.Popen[bytes], contents: subprocess.Popen[bytes]) -> None:
        self._sizes, self._contents = sizes, contents

    def read(self, object_id: str, limit: int) -> bytes | int:
        """The blob, or its size in bytes where that is more than `limit`: then its content is not asked for.

        Raises:
            GitError: it is not in this repository.
        """
        size = self._ask(self._sizes, object_id)
        if size > limit:
            return size
        size = self._ask(self._contents, object_id)
        data = _pipe(self._contents.stdout).read(size + 1)  # a line feed ends it
        if len(data) != size + 1:
            raise _absent(object_id)
        return data[:-1]

    def _ask(self, process: subprocess.Popen[bytes], object_id: str) -> int:
        try:
            _pipe(process.stdin).write(object_id.encode("ascii") + b"\n")
            _pipe(process.stdin).flush()
            answer = _pipe(process.stdout).readline().split()
        except OSError as error:
            raise _absent(object_id) from error
        if len(answer) != 3 or answer[1] != b"blob":
            raise _absent(object_id)
        return int(answer[2])


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise GitError("git was started without a pipe")
    return stream


def _absent(object_id: str) -> GitError:
    return GitError(
        f"object {object_id} is not in this repository", remedy="check out without a filter (no partial clone)"
    )


class Git:
    """The repository around `directory`. `environment` is the caller's own, of which little is passed on."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = safe_environment(environment)

    def top(self) -> Path:
        """The directory of the checkout.

        Raises:
            CheckoutError: this is none.
        """
        path = self._run("rev-parse", "--show-toplevel").removesuffix(b"\n")
        if not path:
            raise CheckoutError("has no checked-out files", path=self._directory, remedy="run it in a checkout")
        return Path(os.fsdecode(path))

    def commit(self, ref: str) -> str | None:
        """The id of the commit that `ref` names, None where it names none.

        Raises:
            CheckoutError: it begins with a dash or holds a control character.
        """
        if not ref or ref.startswith("-") or not ref.isprintable():
            raise CheckoutError(f"{ref!r} is not the name of a commit", remedy="use --base BRANCH, TAG or COMMIT")
        # 128: a branch without an upstream, say. That this is a checkout at all was asked before.
        asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        found = self._asked(*asked, no=(1, 128))
        return found.decode("ascii").strip() if found else None

    def merge_base(self, one: str, other: str) -> str:
        """The newest commit that both descend from.

        Raises:
            CheckoutError: there is none here, or more than one.
        """
        found = (self._asked("merge-base", "--all", one, other) or b"").decode("ascii").split()
        if not found:
            raise CheckoutError(f"{one[:12]} and {other[:12]} have no commit in common here", remedy=_FETCH_ALL)
        if len(found) > 1:
            remedy = "merge or rebase onto the base branch, then run again"
            raise CheckoutError(f"{one[:12]} and {other[:12]} have {len(found)} merge bases", remedy=remedy)
        return found[0]

    def tree(self, commit: str) -> tuple[Entry, ...]:
        """Every file and symbolic link of a commit; submodules are left out.

        Raises:
            GitError: it cannot be listed, or is too large.
        """
        listed = self._run("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")[:-1]
        entries = []
        for line in _bounded(listed):
            facts, _, path = line.partition(b"\t")
            mode, kind, object_id = facts.decode("ascii").split()
            if kind == "blob":
                entries.append(Entry(os.fsdecode(path), mode, object_id))
        return tuple(entries)

    def checked_out(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Paths below the directory that git tracks or would add, and those that a sparse checkout leaves out."""
        listed = self._run("ls-files", "-z", "-t", "--cached", "--others", "--exclude-standard")
        lines = _bounded(listed.split(b"\0")[:-1])
        paths = [(os.fsdecode(line[2:]), line[:1]) for line in lines]
        there = dict.fromkeys(path for path, tag in paths if tag != b"S" and not path.endswith("/"))
        return tuple(there), tuple(path for path, tag in paths if tag == b"S")

    @contextmanager
    def objects(self) -> Iterator[Objects]:
        """Blobs, while the context lasts."""
        with self._piped("--batch-check") as sizes, self._piped("--batch") as contents:
            try:
                yield Objects(sizes, contents)
            finally:
                for process in (sizes, contents):
                    process.kill()  # it may wait for a reader of an answer that nobody wants any more

    def _piped(self, how: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command("cat-file", how),
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _command(self, *arguments: str) -> list[str]:
        return ["git", "-C", str(self._directory), *SAFE, *arguments]

    def _asked(self, *arguments: str, no: tuple[int, ...] = (1,)) -> bytes | None:
        """What git answers; None where it ends with one of `no`."""
        return self._run(*arguments, no=no) or None

    def _run(self, *arguments: str, no: tuple[int, ...] = ()) -> bytes:
        ran = run_git(self._command(*arguments), self._environment, asked=arguments[0], patience=_PATIENCE)
        if ran.returncode not in (0, *no):
            raise self._failure(arguments[0], ran.stderr.decode("utf-8", "replace"))
        return ran.stdout

    def _failure(self, command: str, said: str) -> CheckoutError | GitError:
        if "dubious ownership" in said:
            return CheckoutError(
                "belongs to another user, so git refuses to read it",
                path=self._directory,
                remedy=f"run git config --global --add safe.directory {self._directory.resolve()}",
            )
        if any(words in said for words in _NO_CHECKOUT):
            return CheckoutError("is not in a git checkout", path=self._directory, remedy="run it in a checkout")
        return GitError(f"git {command}: {said.strip()[:300]}", remedy="see what git says, then run again")


def _bounded(lines: list[bytes]) -> list[bytes]:
    if len(lines) > _MAX_ENTRIES:
        raise GitError(f"more than {_MAX_ENTRIES} files", remedy="check a repository that holds the policies alone")
    return lines


def require_commit(git: Git, refs: tuple[str, ...]) -> tuple[str, str]:
    """The first of `refs` that is here, with its commit.

    Raises:
        CheckoutError: none is.
    """
    for ref in refs:
        if (found := git.commit(ref)) is not None:
            return ref, found
    raise CheckoutError(f"{' and '.join(refs)} cannot be found here", remedy=f"{_FETCH_ALL}; or name another --base")
