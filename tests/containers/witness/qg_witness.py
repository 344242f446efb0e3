"""Imported by every Python of the test image; at its end it writes down what the process inside could reach."""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

_ADDRESS = Path("/usr/share/quantguard/witness-address")  # of a listener; the test's image holds it
_SETS = ("CapEff", "CapPrm", "CapBnd", "CapInh", "NoNewPrivs", "Seccomp")


def _option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else ""


def _reaches(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, int(port))) == 0


def _refused(path: Path) -> str:
    """Why `path` cannot be written, or nothing where it can; a file that this made is removed again."""
    there = path.exists()
    try:
        with path.open("ab"):
            pass
        if not there:
            path.unlink()
    except OSError as error:
        return str(error.strerror)
    return ""


def _tell(work: Path) -> dict[str, Any]:
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    below = ("model/model.safetensors", "model/new", "fetched.json", "job.json", "new", "evidence/new", "hardened/new",
             "report/new")  # fmt: skip
    system = (_option("--policy"), "/new", "/etc/passwd", "/opt/quantguard/new", "/usr/bin/new", "/tmp/new")
    places = {f"WORK/{name}": work / name for name in below} | {name: Path(name) for name in system}
    return {
        "environment": Path("/proc/self/environ").read_bytes().decode(errors="replace").split("\0"),
        "status": {name: status[name].strip() for name in _SETS},
        "user": [os.getuid(), os.getgid(), os.getgroups()],
        "interfaces": [name for _, name in socket.if_nameindex()],
        "reached": _reaches(_ADDRESS.read_text().strip()),
        "refused": {name: _refused(path) for name, path in places.items()},
        "mounts": [line.split()[3:5] for line in Path("/proc/self/mountinfo").read_text().splitlines()],
        "sockets": [str(path) for folder in ("/run", "/var/run") for path in Path(folder).rglob("*.sock")],
        "markers": [str(path) for path in Path("/tmp").rglob("FIRED*")],
        "devices": sorted(path.name for path in Path("/dev").iterdir()),
    }


def _write() -> None:
    work = Path(_option("--work"))
    told = _tell(work)
    where = next(path for path in (work / "report", work, work / "errands" / "done") if os.access(path, os.W_OK))
    (where / f"witness-{_option('--stage')}.json").write_text(json.dumps(told))


if "--stage" in sys.argv:
    atexit.register(_write)
