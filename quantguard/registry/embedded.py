"""A real `mlflow server` of one's own, for the demo and the tests: it starts, it serves, and nothing of it stays."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from quantguard.core.errors import RegistryError

_LAUNCHER: Final = Path(__file__).with_name("launcher.py")
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 10.0
# Background jobs would start a second supervisor and its workers; telemetry would leave the machine.
_SETTINGS: Final = ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true")
_ATTEMPTS: Final = 3


class EmbeddedServer:
    """An MLflow server on 127.0.0.1 and a free port, with SQLite and its artifacts in `root`; data there are kept.

    It has its own session, so Ctrl-C in the terminal reaches only the program that started it, and a launcher that
    ends it when that program ends, `kill -9` included. Use it as a context manager.
    """

    def __init__(
        self,
        root: Path,
        *,
        database: str | None = None,
        registry: str | None = None,
        workers: int = 1,
        options: tuple[str, ...] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`database` and `registry` are store URIs: SQLite in `root`, and the same database, where they are absent.

        `options` are further ones of `mlflow server`, `settings` further variables of its environment.
        Other programs of this machine can read all of them: no passwords.
        """
        self._root = root.absolute()
        self._database = database or f"sqlite:///{self._root / 'mlflow.db'}"
        self._registry = registry or self._database
        self._workers = workers
        self._options = options
        self._settings = dict(settings or {})
        self._launcher: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def log(self) -> Path:
        return self._root / "server.log"

    @property
    def process_group(self) -> int:
        """Id of the group that holds every process of the server; 0 when it does not run."""
        return self._launcher.pid if self._launcher else 0

    def __enter__(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            RegistryError: it did not start, with the last lines of its log.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        for _ in range(_ATTEMPTS):
            try:
                self._start()
                if self._answers():
                    return self
            except BaseException:  # Ctrl-C while it starts leaves no server behind either
                self.stop()
                raise
            self.stop()
        raise RegistryError(f"mlflow server did not start: {self._last_lines()}", path=self.log, remedy="see its log")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process of the server; safe to call twice."""
        launcher, self._launcher = self._launcher, None
        if launcher is None:
            return
        try:
            if launcher.stdin is not None:
                launcher.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(_STOP_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()

    def _start(self) -> None:
        self._port = _free_port()
        server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        server += ["--workers", str(self._workers), *self._options]
        server += ["--backend-store-uri", self._database, "--registry-store-uri", self._registry]
        server += ["--artifacts-destination", str(self._root / "artifacts"), "--serve-artifacts"]
        server += ["--default-artifact-root", "mlflow-artifacts:/"]
        command = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), "env", *_SETTINGS]
        command += [*(f"{name}={value}" for name, value in self._settings.items()), *server]
        with self.log.open("ab") as log:
            self._launcher = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._root,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        """Wait for it. False where it ended by itself, as it does when another program took the port first."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._launcher is None or self._launcher.poll() is not None:
                return False
            if _healthy(self._port):
                return True
            time.sleep(0.1)
        return False

    def _last_lines(self) -> str:
        return " / ".join(self.log.read_text(errors="replace").splitlines()[-3:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
