"""The anchor in a git repository: each head is a commit under `refs/quantguard/ledger`, on top of the ones before.

The history of that ref is the history of the anchor. Nobody checks it out, and no branch moves; to keep it elsewhere,
`git push REMOTE refs/quantguard/ledger`, which a remote that refuses non-fast-forwards guards further.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from quantguard.core.errors import CheckoutError, GitError
from quantguard.evidence.git_safe import SAFE, run_git, safe_environment
from quantguard.evidence.ledger_entry import MOST_BYTES, parse_line

REF: Final = "refs/quantguard/ledger"
_FILE: Final = "head.json"
_PATIENCE: Final = 60.0  # seconds for one command
_WHO: Final = {
    "GIT_AUTHOR_NAME": "QuantGuard", "GIT_AUTHOR_EMAIL": "quantguard@localhost",
    "GIT_COMMITTER_NAME": "QuantGuard", "GIT_COMMITTER_EMAIL": "quantguard@localhost",
}  # fmt: skip


class GitAnchor:
    """`environment` is the caller's own, of which little is passed on."""

    def __init__(self, repository: Path, environment: Mapping[str, str]) -> None:
        inside = repository / ".git"
        self._repository = repository
        self._directory = inside if inside.exists() else repository
        self._environment = {**safe_environment(environment), **_WHO}

    @property
    def where(self) -> str:
        return f"git:{self._repository}"

    def read(self) -> bytes | None:
        commit = self._commit()
        return None if commit is None else self._kept(commit)

    def move(self, line: bytes, before: bytes | None) -> bool:
        commit = self._commit()
        if (None if commit is None else self._kept(commit)) != before:
            return False
        blob = self._run("hash-object", "-w", "--stdin", given=line + b"\n").decode("ascii").strip()
        tree = self._run("mktree", given=f"100644 blob {blob}\t{_FILE}\n".encode()).decode("ascii").strip()
        entry = parse_line(line).entry
        parent = [] if commit is None else ["-p", commit]
        message = f"Ledger: entry {entry.sequence}, {entry.decided.verdict.value}\n"
        made = self._run("commit-tree", tree, *parent, given=message.encode(), at=entry.time).decode("ascii").strip()
        # Only if the ref is still where it was read; nothing where it was not yet.
        return self._try("update-ref", "--create-reflog", REF, made, commit or "").returncode == 0 or self._unmoved(
            commit
        )

    def _unmoved(self, commit: str | None) -> bool:
        """Why the ref was not moved: others moved it, or it cannot be."""
        if self._commit() == commit:
            raise GitError(f"{REF} in {self._repository} cannot be written", remedy="let this user write there")
        return False

    def _commit(self) -> str | None:
        asked = self._try("rev-parse", "--verify", "--quiet", f"{REF}^{{commit}}")
        if asked.returncode == 0:
            return asked.stdout.decode("ascii").strip()
        self._run("rev-parse", "--git-dir")  # that there is a repository at all
        return None

    def _kept(self, commit: str) -> bytes:
        name = f"{commit}:{_FILE}"
        if int(self._run("cat-file", "-s", name)) > MOST_BYTES:
            return b"more than an entry"
        return self._run("cat-file", "blob", name).removesuffix(b"\n")

    def _run(self, *arguments: str, given: bytes = b"", at: str = "") -> bytes:
        ran = self._try(*arguments, given=given, at=at)
        if ran.returncode == 0:
            return ran.stdout
        said = ran.stderr.decode("utf-8", "replace").strip()[:300]
        if "not a git repository" in said:
            remedy = "name a repository: git init --bare makes one"
            raise CheckoutError("is not a git repository", path=self._repository, remedy=remedy)
        raise GitError(f"git {arguments[0]}: {said}", remedy="see what git says, then run again")

    def _try(self, *arguments: str, given: bytes = b"", at: str = "") -> subprocess.CompletedProcess[bytes]:
        dates = {"GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at} if at else {}
        command = ["git", "--git-dir", str(self._directory.absolute()), *SAFE, "-c", "commit.gpgSign=false", *arguments]
        environment = {**self._environment, **dates}
        return run_git(command, environment, asked=arguments[0], given=given, patience=_PATIENCE)
