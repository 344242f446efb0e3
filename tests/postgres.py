"""A PostgreSQL of one's own: Debian's, in a folder that goes away, reached by a socket only."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.needs import absent

_SERVER_USERS = ("postgres", "nobody")  # the server refuses to run as root


def _program(name: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or next((str(place) for place in places), None)


def _account() -> pwd.struct_passwd:
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid())
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in _SERVER_USERS if name in known)


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[str]:
    """The SQLAlchemy URI of an empty database; `durable` writes to the disk as in production.

    Skips the test where there is no PostgreSQL, and fails it where QUANTGUARD_NEEDS_POSTGRES is set, as in CI.
    """
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        absent("PostgreSQL", "postgresql", "QUANTGUARD_NEEDS_POSTGRES")
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="qg-pg-", dir="/tmp"))  # a socket's path is short, and /tmp may be entered
    try:
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user: dict[str, Any] = {}
        if os.getuid() == 0:
            as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)}
        data = folder / "data"
        made = [initdb, "-D", str(data), "-U", "mlflow", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, env=environment, **as_user)
        settings = ["listen_addresses=", f"unix_socket_directories={folder}", "max_connections=200"]
        settings += [] if durable else ["fsync=off", "synchronous_commit=off"]
        run = [server, "-D", str(data), *(part for setting in settings for part in ("-c", setting))]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(run, stdout=log, stderr=log, cwd=folder, env=environment, **as_user)
        try:
            _wait(folder, process)
            yield f"postgresql+psycopg2://mlflow@/postgres?host={quote(str(folder), safe='/')}"
        finally:
            process.terminate()  # SIGTERM waits for its clients
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(folder: Path, process: subprocess.Popen[bytes]) -> None:
    import psycopg2

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg2.connect(host=str(folder), user="mlflow", dbname="postgres").close()
        except psycopg2.OperationalError:
            assert process.poll() is None, (folder / "log").read_text(errors="replace")
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return
