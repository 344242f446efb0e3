from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.register import register_directory
from tests.containers.engine import Engine, build_image, serving
from tests.containers.runner import Runner
from tests.registry.world import fresh_name, version_of_logged_model
from tests.stories import Kind, write_policy, write_story
from tests.test_house import ROOT

NewRunner = Callable[..., Runner]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/containers/" in item.path.as_posix():
            item.add_marker(pytest.mark.containers)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with serving() as engine:
        yield engine


@pytest.fixture(scope="session")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of our image, built from this checkout."""
    return build_image(engine, tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def client(mlflow_server: EmbeddedServer) -> MlflowClient:
    return MlflowClient(mlflow_server.uri, mlflow_server.uri)


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """The runner's home directory, which its user may enter: pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="quantguard-runner-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's `policies` directory with the policy that tells the tiny models apart."""
    return write_policy(tmp_path_factory.mktemp("tiny") / "policies").parent


@pytest.fixture(scope="session")
def sources(mlflow_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, str]:
    """The tiny models as logged models; each job registers a version of its own."""
    root = tmp_path_factory.mktemp("models")
    return {
        kind: register_directory(
            mlflow_server.uri, fresh_name(f"source-{kind.value}"), write_story(kind, root / kind.value)
        ).source
        for kind in Kind
    }


@dataclass(frozen=True, slots=True)
class Site:
    """What all jobs share."""

    engine: Engine
    image: str
    home: Path
    server: EmbeddedServer


@pytest.fixture(scope="session")
def site(engine: Engine, image: str, home: Path, mlflow_server: EmbeddedServer) -> Site:
    return Site(engine, image, home, mlflow_server)


@pytest.fixture
def new_runner(site: Site, client: MlflowClient, tiny_policy: Path, sources: dict[Kind, str]) -> NewRunner:
    """A job on the runner that gates a tiny model of its own, registered anew."""

    def new(kind: Kind = Kind.CLEAN, *, image: str = "", policies: Path = tiny_policy, **inputs: str) -> Runner:
        name = version_of_logged_model(client, sources[kind], fresh_name(kind.value)).name
        given = {"model": f"models:/{name}/1", "policy": "policies/policy.yaml"}
        given |= {name.replace("_", "-"): value for name, value in inputs.items()}
        runner = Runner(site.home, site.engine, image or site.image, site.server.uri, given)
        runner.check_out(policies)
        return runner

    return new


@pytest.fixture
def canary(mlflow_server: EmbeddedServer, new_runner: NewRunner) -> Runner:
    """A job that gates the NF4-attacked canary under the canary policy."""
    identity = register_directory(mlflow_server.uri, fresh_name("canary"), canary_directory(CanaryKind.NF4_ATTACKED))
    return new_runner(policies=ROOT / "policies", policy="policies/canary.yaml", model=str(identity))


@pytest.fixture(scope="session")
def listener() -> Iterator[str]:
    """An address of this machine that a room with a network can reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="session")
def witness(engine: Engine, image: str, listener: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our image with one thing more: a module that Python imports at its start."""
    folder = tmp_path_factory.mktemp("witness")
    shutil.copy(Path(__file__).with_name("witness") / "qg_witness.py", folder)
    (folder / "witness.pth").write_text("import qg_witness\n")
    (folder / "witness-address").write_text(listener)
    site = "/opt/quantguard/lib/python3.11/site-packages/"
    (folder / "Dockerfile").write_text(
        f"FROM {image}\nCOPY qg_witness.py witness.pth {site}\nCOPY witness-address /usr/share/quantguard/\n"
    )
    return engine.build(folder, "localhost/quantguard-test/witness", "--no-cache")


@pytest.fixture
def watched(new_runner: NewRunner, witness: str) -> NewRunner:
    """As `new_runner`, with the image whose processes tell what they could reach."""
    return partial(new_runner, image=witness)
