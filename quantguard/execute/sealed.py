"""Whether this process may run what a model wrote: only in a container with nothing to take and nothing to reach."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_SYSTEM: Final = frozenset({"proc", "sys", "dev", "tmp", "etc", "run"})


def why_not_sealed(proc: Path = Path("/proc"), root: Path = Path("/")) -> str:
    """What this process has that it must not have; empty where it may begin."""
    try:
        return _missing(proc, root)
    except (OSError, ValueError, IndexError, KeyError) as error:
        return f"it cannot be told what this process may do ({type(error).__name__})"


def _missing(proc: Path, root: Path) -> str:
    status = dict(
        line.split(":\t", 1) for line in (proc / "self/status").read_text("ascii").splitlines() if ":\t" in line
    )
    capable = any(int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"))
    interfaces = {line.partition(":")[0].strip() for line in (proc / "net/dev").read_text("ascii").splitlines()[2:]}
    held = (
        (os.getpid() != 1, "it is not process 1 of a container: it could not end what a program leaves behind"),
        (capable, "it has capabilities (--cap-drop ALL)"),
        (status["NoNewPrivs"].strip() != "1", "it may gain privileges (--security-opt no-new-privileges)"),
        ("0" in status["Uid"].split(), "it runs as root (--user 65532:65532)"),
        (bool(interfaces - {"lo"}), "it has a network (--network none)"),
        (not os.statvfs(root).f_flag & os.ST_RDONLY, "its root can be written (--read-only)"),
    )
    return next((why for holds, why in held if holds), "") or _mounted(proc)


def _mounted(proc: Path) -> str:
    """Files of the host: none is needed, none may be there. Engines mount three in /etc, and tmpfs where they like."""
    for target, kind in _mounts(proc):
        if len(target.parts) > 1 and target.parts[1] not in _SYSTEM and kind != "tmpfs":
            return f"{target} is mounted: nothing may be"
    return ""


def writable(proc: Path = Path("/proc")) -> tuple[Path, ...]:
    """Where a program may have left something: the file systems in memory that this user can write to."""
    folders = (target for target, kind in _mounts(proc) if kind == "tmpfs" and target.is_dir())
    return tuple(folder for folder in folders if os.access(folder, os.W_OK))


def _mounts(proc: Path) -> list[tuple[Path, str]]:
    """(mount point, type of file system) of this process, as proc(5) has them."""
    lines = [line.split(" ") for line in (proc / "self/mountinfo").read_text("utf-8").splitlines()]
    return [(Path(line[4]), line[line.index("-", 6) + 1]) for line in lines]
