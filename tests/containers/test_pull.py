"""The image comes from a registry by its digest, once, and by nothing else. A real registry, on loopback."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from action import launch, preflight
from action.log import Log
from quantguard.core.errors import MachineError
from tests.action.test_rooms import make
from tests.containers.engine import Engine, free_port

CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: "{address}"}}
log: {{level: error}}
"""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def registry(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a registry of images."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "config.yml").write_text(CONFIG.format(folder=folder, address=engine.registry))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = monotonic() + 20
        while True:
            try:
                urlopen(f"http://{engine.registry}/v2/")
                break
            except URLError:
                assert server.poll() is None, (folder / "log").read_text()
                assert monotonic() < deadline
                sleep(0.1)
        yield engine.registry
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def pinned(registry: str, engine: Engine, tmp_path: Path) -> str:
    """An image that is in the registry and not on this machine, by its digest."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    tag = f"{registry}/quantguard/small:1"
    engine.build(tmp_path, tag, "--no-cache")
    engine.podman("push", "--tls-verify=false", tag)
    engine.podman("rmi", tag)
    answer = urlopen(Request(f"http://{registry}/v2/quantguard/small/manifests/1", headers={"Accept": MANIFEST}))
    return f"{registry}/quantguard/small@{answer.headers['Docker-Content-Digest']}"


def test_an_image_is_pulled_by_its_digest_and_only_once(
    pinned: str, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make(IMAGE=pinned)
    assert not preflight.has_image(engine.client, job.image)
    launch.pull(engine.client, job, Log())
    assert preflight.has_image(engine.client, job.image)
    assert f"::group::pull {pinned}" in capsys.readouterr().out
    launch.pull(engine.client, job, Log())
    assert capsys.readouterr().out == ""


def test_a_digest_that_is_not_there_is_told(pinned: str, engine: Engine) -> None:
    job = dataclasses.replace(make(IMAGE=pinned), image=pinned.partition("@")[0] + "@sha256:" + "0" * 64)
    with pytest.raises(MachineError, match=r"the image cannot be pulled: .*\(check the digest"):
        launch.pull(engine.client, job, Log())


def test_a_registry_that_does_not_answer_is_told(engine: Engine) -> None:
    job = make(IMAGE=f"127.0.0.1:{free_port()}/quantguard@sha256:" + "0" * 64)
    with pytest.raises(MachineError, match="the image cannot be pulled"):
        launch.pull(engine.client, job, Log())
