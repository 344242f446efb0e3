"""What git is told so that a repository cannot make it run anything.

The configuration of a repository may name programs (a file-system monitor, hooks, filters, transports of a partial
clone). No command of ours needs one, and each is told so on its own command line, which wins over the files.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from quantguard.core.errors import CheckoutError, GitError

SAFE: Final = (
    "--no-pager", "--no-replace-objects", "--no-optional-locks", "--literal-pathspecs",
    "-c", "core.fsmonitor=false",
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.untrackedCache=false",
    "-c", "core.attributesFile=/dev/null",
    "-c", "protocol.allow=never",
    "-c", "safe.bareRepository=explicit",
)  # fmt: skip
# Of the caller's environment; GIT_DIR, GIT_EXTERNAL_DIFF and the like are left out, where git's configuration is stays.
_KEPT: Final = frozenset({"PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR", "USER", "LOGNAME"})
_KEPT_PREFIXES: Final = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_COUNT",
                         "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_")  # fmt: skip
_SET: Final = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "none",  # wins over protocol.NAME.allow in any file
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_ATTR_NOSYSTEM": "1",
}


def safe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What git is passed of `environment`, the caller's own."""
    kept = {n: v for n, v in environment.items() if n in _KEPT or n.startswith(_KEPT_PREFIXES)}
    return {**kept, **_SET}


def run_git(
    command: Sequence[str], environment: Mapping[str, str], *, asked: str, given: bytes = b"", patience: float
) -> subprocess.CompletedProcess[bytes]:
    """One command of git's, with `given` on its standard input, whatever it ends with.

    `asked` is its word in a message, `patience` in seconds.

    Raises:
        CheckoutError: git is not installed.
        GitError: it took too long.
    """
    try:
        return subprocess.run(
            command, env=dict(environment), input=given, capture_output=True, check=False, timeout=patience
        )
    except FileNotFoundError as error:
        raise CheckoutError("git is not installed", remedy="install git on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(f"git {asked} took more than {patience:.0f} s", remedy="run again") from error
