"""Real git repositories with a small policy, to be changed one way at a time."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from quantguard.check.check import Request, check
from quantguard.check.facts import CheckResult
from quantguard.core.remark import Level
from tests.policy.written import POLICY, write_inputs

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@example.org",
}  # fmt: skip
PATH = "policies/small.yaml"
NOW = datetime(2026, 11, 27, 20, 0, tzinfo=UTC)


class Repository:
    """A checkout whose branch `main` has been committed; what is written later is on the branch `change`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, data: bytes | None = None) -> str:
        ran = subprocess.run(
            ["git", "-c", "core.fsync=none", *arguments],
            cwd=self.root,
            env=ENVIRONMENT,
            input=data,
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr.decode()
        return ran.stdout.decode().strip()

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def replace(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text(encoding="utf-8")
        assert old in text, old
        self.write(path, text.replace(old, new, 1))

    def commit(self, message: str = "m") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--no-verify", "-m", message)
        return self.git("rev-parse", "HEAD")

    def check(
        self,
        *,
        base: str = "main",
        manifest: Path | None = None,
        uri: str | None = None,
        allow_looser: bool = False,
        environment: dict[str, str] | None = None,
        key: Path | None = None,
    ) -> CheckResult:
        request = Request(self.root, (base,), manifest, uri, allow_looser, NOW, key)
        return check(request, ENVIRONMENT if environment is None else environment)


def with_policy(root: Path, text: str = POLICY) -> Repository:
    """POLICY and what it names on `main`, and the branch `change` checked out."""
    repository = Repository(root)
    (root / "policies").mkdir()
    write_inputs(root / "policies")
    repository.write(PATH, text)
    repository.commit("a policy")
    repository.git("switch", "--quiet", "--create", "change")
    return repository


def told(result: CheckResult) -> list[tuple[Level, str, str]]:
    """Level, file:line and rule of every remark."""
    return [(r.level, f"{r.place.file}:{r.place.line}" if r.place else "", r.rule) for r in result.remarks]


def messages(result: CheckResult) -> str:
    return "\n".join(remark.message for remark in result.remarks)
