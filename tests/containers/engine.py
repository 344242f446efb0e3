"""A container engine that speaks Docker's API, our image built on a base of its own, and what a test asks of both.

Needs root, and Debian's podman, runc, buildah, debootstrap and docker-registry (`make containers-setup`). Images stay
on the machine, so that only a change of what they are made from builds again. Each worker of pytest-xdist has an engine
with containers of its own, which sees the images that all of them share. `python -m tests.containers.engine` builds
those beforehand.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import docker

from tests.test_house import ROOT

BASE: Final = "localhost/quantguard-test/base:bookworm"
_PROGRAMS: Final = ("podman", "runc", "buildah", "debootstrap", "docker-registry")
# crun fails under hybrid cgroups, and podman's default limits are refused on some machines.
_CONFIG: Final = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
"""
# Registries of images on loopback have no certificate.
_REGISTRIES: Final = """\
[[registry]]
location = "{address}"
insecure = true
"""
# Of one worker of several: beside podman's own store, and kept as that is.
_STORE: Final = """\
[storage]
driver = "{driver}"
graphroot = "{root}"
runroot = "/run/containers/{name}"
[storage.options]
additionalimagestores = ["{shared}"]
"""
_LOCK: Final = Path("/run/lock/quantguard-test.lock")
_LIMITS: Final = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


@dataclass(frozen=True, slots=True)
class Engine:
    socket: Path
    client: docker.DockerClient
    folder: Path  # of its configuration
    registry: str  # HOST:PORT of a registry of images that it trusts without a certificate

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def environment(self) -> dict[str, str]:
        return _environment(self.folder)

    def podman(self, *arguments: str | Path, stdin: int | None = None, shared: bool = False) -> str:
        """Run it; its output. `shared`: on the images that all engines see."""
        command = ["podman", *map(str, arguments)]
        environment = self.environment()
        if shared:
            environment.pop("CONTAINERS_STORAGE_CONF", None)
        ran = subprocess.run(command, env=environment, stdin=stdin, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {ran.returncode}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}")
        return ran.stdout

    def build(self, folder: Path, tag: str, *options: str, shared: bool = False) -> str:
        """Build the Dockerfile in `folder`; the id of the image."""
        self.podman("build", "--network", "host", *_LIMITS, *options, "--tag", tag, folder, shared=shared)
        found = self.podman("image", "inspect", "--format", "{{.Id}}", tag, shared=shared).strip()
        return "sha256:" + found.removeprefix("sha256:")

    def containers(self) -> list[str]:
        """Ids of all containers of the launcher, running or not."""
        return [c.id for c in self.client.containers.list(all=True, filters={"label": "quantguard.launcher"})]


def _environment(folder: Path) -> dict[str, str]:
    files = {"CONTAINERS_CONF": "containers.conf", "CONTAINERS_REGISTRIES_CONF": "registries.conf"}
    if (folder / "storage.conf").exists():
        files["CONTAINERS_STORAGE_CONF"] = "storage.conf"
    return {**os.environ, **{name: str(folder / file) for name, file in files.items()}}


def _write_store(folder: Path) -> None:
    """Where there are several workers, each counts and sweeps containers of its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return
    asked = ["podman", "info", "--format", "{{.Store.GraphDriverName}} {{.Store.GraphRoot}}"]
    told = subprocess.run(asked, env=_environment(folder), capture_output=True, text=True, check=True).stdout
    driver, shared = told.strip().split(" ", 1)
    name = f"quantguard-test-{worker}"
    text = _STORE.format(driver=driver, root=Path(shared).with_name(name), name=name, shared=shared)
    (folder / "storage.conf").write_text(text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving() -> Iterator[Engine]:
    """The engine, for as long as the context lasts; every container of the launcher is removed at its end."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing or os.getuid() != 0:
        raise AssertionError(f"as root, with {', '.join(missing) or 'root'} missing here: run make containers-setup")
    with tempfile.TemporaryDirectory(prefix="quantguard-engine-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "containers.conf").write_text(_CONFIG)
        path = folder / "docker.sock"
        registry = f"127.0.0.1:{free_port()}"
        (folder / "registries.conf").write_text(_REGISTRIES.format(address=registry))
        _write_store(folder)
        with (folder / "log").open("wb") as log:
            command = ["podman", "system", "service", "--time=900", f"unix://{path}"]
            service = subprocess.Popen(
                command, cwd=folder, env=_environment(folder), stdout=log, stderr=log, start_new_session=True
            )
        client = None
        try:
            _wait(path, service, folder / "log")
            path.chmod(0o666)  # as membership of the docker group would
            client = docker.DockerClient(base_url=f"unix://{path}", timeout=60)
            yield Engine(path, client, folder, registry)
        finally:
            if client is not None:
                for container in client.containers.list(all=True, filters={"label": "quantguard.launcher"}):
                    container.remove(force=True, v=True)
                client.close()
            service.terminate()
            service.wait()


def _wait(path: Path, service: subprocess.Popen[bytes], log: Path) -> None:
    deadline = monotonic() + 30
    while not path.exists():
        if service.poll() is not None or monotonic() > deadline:
            raise AssertionError(f"podman does not serve: {log.read_text()}")
        sleep(0.05)


@contextmanager
def _alone() -> Iterator[None]:
    """While it lasts, no other engine changes the shared images."""
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def require_base(engine: Engine) -> None:
    """Debian with Python and nothing else, in place of python:slim, which no registry here offers."""
    with _alone():
        if not engine.podman("images", "--quiet", BASE, shared=True):
            _make_base(engine)


def _make_base(engine: Engine) -> None:
    with tempfile.TemporaryDirectory(prefix="quantguard-base-") as name:
        root = Path(name, "root")
        packages = "--include=ca-certificates,python3,python3-venv"
        command = ["debootstrap", "--variant=minbase", packages, "bookworm", str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            assert tar.stdout is not None
            engine.podman("import", "-", BASE, stdin=tar.stdout.fileno(), shared=True)
            assert tar.wait() == 0


def build_image(engine: Engine, folder: Path) -> str:
    """Our Dockerfile's `cpu` target; the id of the image. `folder` is for the build's own configuration."""
    require_base(engine)
    arguments = [f"BASE_IMAGE={BASE}", "TORCH_INDEX_URL=", "VERSION=0.0.1", "REVISION=abc"]
    build_arguments = [word for argument in arguments for word in ("--build-arg", argument)]
    with _alone():
        return engine.build(ROOT, "localhost/quantguard-test/quantguard:cpu", "--target", "cpu", *build_arguments,
                            *_machine(folder), shared=True)  # fmt: skip


def _machine(folder: Path) -> tuple[str, ...]:
    """Mounts for the time of the build: this machine's pip configuration, what it names, its certificates."""
    listed = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    settings = dict(line.split("=", 1) for line in listed.splitlines())
    values = {name.rpartition(".")[2]: value.strip("'") for name, value in settings.items()}
    wanted = ("cert", "find-links", "index-url", "extra-index-url")
    kept = {key: value for key, value in values.items() if key in wanted}
    config = ConfigParser()
    config["global"] = kept
    with (folder / "pip.conf").open("w") as file:
        config.write(file)
    words = [word for value in kept.values() for word in value.split()]
    paths = [Path(word.removeprefix("file://")) for word in words if word.startswith(("/", "file://"))]
    # The directory of a file: certificates are links into each other; and the files of a local index lie beside it.
    local = {path.parent if path.is_file() or path.name == "simple" else path for path in paths if path.exists()}
    mounts = [f"{folder / 'pip.conf'}:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in sorted(local))]
    return tuple(word for mount in mounts for word in ("--volume", mount))


def main() -> None:
    with serving() as engine, tempfile.TemporaryDirectory(prefix="quantguard-build-") as folder:
        sys.stdout.write(f"{build_image(engine, Path(folder))}\n")


if __name__ == "__main__":
    main()
