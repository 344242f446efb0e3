"""What the process that opens the weights can reach, told from inside it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from quantguard.cli.environment import has_no_network
from quantguard.evidence.records import read_record
from quantguard.gate.work import Assessment
from tests.command import quantguard
from tests.stories import Kind

SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "p1",
    "MLFLOW_TRACKING_TOKEN": "p2",
    "AWS_SECRET_ACCESS_KEY": "p3",
    "HF_TOKEN": "p4",
    "DATABASE_URL": "postgres://u:p5@host",
}
# Python imports it when it starts; what it writes when the process ends is what the process could reach.
_WITNESS = """\
import atexit, json, os, socket, sys

def tell():
    with socket.socket() as probe:
        probe.settimeout(5)
        reached = probe.connect_ex(("127.0.0.1", {port})) == 0
    room = {{"fetch", "assess", "publish", "scan", "harden", "verify"}} & set(sys.orig_argv)
    with open(os.path.join({folder!r}, "".join(room or ["gate"]) + ".json"), "w") as file:
        json.dump({{"environment": dict(os.environ), "reached": reached}}, file)

if "quantguard.cli.main" in sys.orig_argv:
    atexit.register(tell)
"""


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Path]:
    """A directory for PYTHONPATH, where each process leaves word of what it could reach."""
    told = tmp_path / "told"
    told.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        witness = _WITNESS.format(port=listener.getsockname()[1], folder=str(told))
        (told / "sitecustomize.py").write_text(witness)
        yield told


def reached(told: Path, room: str) -> tuple[dict[str, str], bool]:
    """The environment of the process at its end, and whether it could connect to a listener of this machine."""
    word = json.loads((told / f"{room}.json").read_text())
    return word["environment"], word["reached"]


def secrets_in(environment: Mapping[str, str]) -> set[str]:
    return (set(environment) & set(SECRETS)) | {n for n, value in environment.items() if value in SECRETS.values()}


def test_weights_are_opened_without_credentials_and_without_network(
    models: Mapping[Kind, Path], policy_file: Path, told: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    command = ("gate", models[Kind.CLEAN], "--policy", policy_file, "--work", work, "--quiet")
    ran = quantguard(*command, env={**SECRETS, "PYTHONPATH": str(told)})
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    for room in ("fetch", "publish"):  # the witness can tell: these two do have both
        environment, connected = reached(told, room)
        assert connected
        assert environment.items() >= SECRETS.items()
    environment, connected = reached(told, "assess")
    assert secrets_in(environment) == set()
    assert environment["HOME"] == str(work / "scratch")
    assert environment["HF_HUB_OFFLINE"] == "1"
    assessment = read_record(work / "evidence" / "outcome.json", "outcome", Assessment)
    assert assessment is not None
    assert connected is (assessment.network == "reachable")


def test_a_scan_alone_is_sealed_too(models: Mapping[Kind, Path], told: Path) -> None:
    ran = quantguard("scan", models[Kind.CLEAN], "--quiet", env={**SECRETS, "PYTHONPATH": str(told)})
    assert ran.code == 0, ran.err
    environment, connected = reached(told, "scan")
    assert secrets_in(environment) == set()
    can = "import sys; from quantguard.cli.environment import seal_network; sys.exit(not seal_network())"
    assert connected is (subprocess.run([sys.executable, "-c", can], check=False).returncode != 0)


LOOPBACK = "Inter-|   Receive\n face |bytes\n    lo: 0 0\n"
NOBODY = "  sl  local_address rem_address\n"


@pytest.mark.parametrize(
    ("devices", "tcp", "alone"),
    [
        (LOOPBACK, NOBODY, True),
        (LOOPBACK + "  eth0: 1 1\n", NOBODY, False),
        (LOOPBACK, NOBODY + "   0: 0100007F:1F90 00000000:0000 0A\n", False),  # somebody listens
        (None, NOBODY, False),
    ],
)
def test_a_network_namespace_is_empty_where_only_loopback_is_there_and_nobody_on_it(
    devices: str | None, tcp: str, alone: bool, tmp_path: Path
) -> None:
    if devices is not None:
        (tmp_path / "dev").write_text(devices)
    (tmp_path / "tcp").write_text(tcp)
    assert has_no_network(tmp_path) is alone


# Sealed as a user that is not root, whatever the tests run as.
_SEAL = """
import ctypes, encodings.ascii, os  # what is imported later, the other user may not be able to read
from pathlib import Path
from quantguard.cli.environment import seal_network

if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is its own again
sealed = seal_network()
lines = Path("/proc/self/status").read_text().splitlines()
print(sealed, *(line.split()[1] for line in lines if line.startswith(("CapInh", "CapPrm", "CapEff"))))
"""


def test_who_makes_a_namespace_of_its_own_keeps_no_powers_in_it() -> None:
    ran = subprocess.run([sys.executable, "-c", _SEAL], capture_output=True, text=True, check=False)
    sealed, *capabilities = ran.stdout.split()
    assert sealed in ("True", "False"), ran.stderr
    assert capabilities == ["0" * 16] * 3
