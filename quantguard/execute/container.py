"""The container of generated programs, as docker or podman start it: bytes in, bytes out, and nothing else.

What is asked and what comes back is not looked into here: that is for who reads the outcome, which is as untrusted as
the programs are.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from quantguard.core.errors import MachineError

ENGINES: Final = ("docker", "podman")
COMMAND: Final = ("-I", "-m", "quantguard.execute")
USER: Final = "65532:65532"
PIDS: Final = 64  # threads count
MEMORY: Final = 2 * 1024**3  # bytes, of all its processes and temporary files
TMPFS: Final[Mapping[str, str]] = {"/tmp": "rw,nosuid,nodev,noexec,size=64m,mode=1777"}  # noqa: S108  its own
_MOST_BYTES: Final = 256 * 1024 * 1024  # of what comes back
_SAID: Final = 300


def find_engine() -> str:
    """docker or podman, whichever is on PATH.

    Raises:
        MachineError: neither is. Programs are never run without one.
    """
    found = next((path for path in map(shutil.which, ENGINES) if path is not None), None)
    if found is None:
        message = "generated programs are run in a sealed container only, and neither docker nor podman is on PATH"
        raise MachineError(message, remedy="install one of them, or take the benchmark of kind code out of the policy")
    return found


def command(engine: str, image: str, name: str) -> tuple[str, ...]:
    """What starts the container: no network, no mount, no environment, no capability, a read-only root, not root."""
    options = [
        *("--rm", "--interactive", "--name", name, "--pull", "never", "--network", "none", "--read-only"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", USER, "--pids-limit", str(PIDS)),
        *("--memory", str(MEMORY), "--memory-swap", str(MEMORY), "--cpus", "1", "--log-driver", "none"),
        *(word for folder, how in TMPFS.items() for word in ("--tmpfs", f"{folder}:{how}")),
        *("--workdir", "/", "--entrypoint", "python3"),
    ]
    return (engine, "run", *options, image, *COMMAND)


def run_container(asked: bytes, *, image: str, engine: str, seconds: float) -> bytes:
    """What the container wrote for `asked`; it is gone afterwards, however this ends.

    `image` holds Python 3.11 or later and this package: QuantGuard's own does. It is not pulled.

    Raises:
        MachineError: it cannot be started, failed, took more than `seconds`, or wrote too much.
    """
    name = f"quantguard-execute-{secrets.token_hex(8)}"
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            subprocess.run(
                command(engine, image, name), input=asked, stdout=out, stderr=err, timeout=seconds, check=True
            )
        except subprocess.TimeoutExpired as error:
            message = f"the container of generated programs took more than {seconds:.0f} seconds"
            raise MachineError(message, remedy="ask fewer problems, or give each less time") from error
        except subprocess.CalledProcessError as error:
            err.seek(max(0, err.seek(0, 2) - 4096))
            lines = err.read().decode("utf-8", "replace").strip().splitlines()
            message = f"the container of generated programs failed: {lines[-1][:_SAID] if lines else error.returncode}"
            remedy = f"it is started by {Path(engine).name} run --pull never {image}: is the image there?"
            raise MachineError(message, remedy=remedy) from error
        except OSError as error:
            raise MachineError(f"{engine} cannot be started: {error.strerror or error}") from error
        finally:
            _remove(engine, name)
        if out.seek(0, 2) > _MOST_BYTES:
            raise MachineError(f"the container of generated programs wrote more than {_MOST_BYTES} bytes")
        out.seek(0)
        return out.read()


def _remove(engine: str, name: str) -> None:
    """Of a run that was cut short; `--rm` sees to the others."""
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([engine, "rm", "--force", name], capture_output=True, timeout=60, check=False)
