"""What is in the image, and what is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.containers.engine import Engine
from tests.test_house import ROOT

ODD_USER = "54321:54321"  # nobody knows it in there
# As the launcher starts it; see action/rooms.py.
SEALED = ("--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--user", ODD_USER,
          "--tmpfs", "/tmp:rw,nosuid,nodev,noexec,size=256m,mode=1777")  # fmt: skip
SITE = "/opt/quantguard/lib/python3.11/site-packages"


def inside(engine: Engine, image: str, *command: str) -> str:
    """The output of a program in a container that is as closed as the sealed one."""
    return engine.podman("run", *SEALED, "--entrypoint", command[0], image, *command[1:])


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    names = (line.split("==") for line in lines if not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in names}


def test_it_says_what_it_is_and_runs_as_nobody(engine: Engine, image: str) -> None:
    (told,) = json.loads(engine.podman("image", "inspect", image))
    config = told["Config"]
    assert config["Entrypoint"] == ["quantguard"]
    assert config["User"] == "65532:65532"
    assert "Healthcheck" not in config
    assert not config.get("Volumes")
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert (labels["version"], labels["revision"], labels["licenses"]) == ("0.0.1", "abc", "Apache-2.0")
    names = {entry.partition("=")[0] for entry in config["Env"]}
    assert names == {
        "PATH", "HOME", "TORCHINDUCTOR_CACHE_DIR", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "GIT_PYTHON_REFRESH",
        "NVIDIA_DRIVER_CAPABILITIES",
    }  # fmt: skip


def test_any_user_can_run_it_on_a_root_that_cannot_be_written(engine: Engine, image: str) -> None:
    assert engine.podman("run", *SEALED, image, "--version").startswith("quantguard, version ")
    code = "import torch, transformers, bitsandbytes, mlflow, lm_eval, bandit; print(torch.ones(3).sum().item())"
    assert inside(engine, image, "python", "-W", "error::ResourceWarning", "-c", code).strip().endswith("3.0")


@pytest.mark.parametrize("program", ["gcc", "cc", "g++", "c++", "clang", "ld", "as", "make", "cargo", "pip", "pip3"])
def test_it_holds_no_compiler_and_no_installer_of_python(program: str, engine: Engine, image: str) -> None:
    assert inside(engine, image, "sh", "-c", f"command -v {program} || echo none").strip() == "none"


def test_its_bill_of_materials_is_valid_and_complete(engine: Engine, image: str) -> None:
    text = inside(engine, image, "cat", "/usr/share/quantguard/sbom.cdx.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {component["purl"] for component in json.loads(text)["components"]}
    code = "import importlib.metadata as m; [print(d.metadata['Name'], d.version) for d in m.distributions()]"
    for line in inside(engine, image, "python", "-c", code).splitlines():
        name, version = line.split()
        normal = re.sub(r"[-_.]+", "-", name).lower()
        assert f"pkg:pypi/{normal}@{version.replace('+', '%2B')}" in listed
        assert normal == "quantguard" or pins()[normal] == version.partition("+")[0]
    for line in inside(engine, image, "dpkg-query", "--show", "--showformat", "${Package}\n").splitlines():
        assert any(purl.startswith(f"pkg:deb/debian/{line.replace('+', '%2B')}@") for purl in listed), line


def test_what_only_the_build_needed_is_gone(engine: Engine, image: str) -> None:
    """Where this machine's packages and settings were mounted, an empty place is left at most."""
    places = "/build /opt /etc/pip.conf /root /tmp /var/lib/apt/lists"
    find = f"find {places} -path /opt/quantguard -prune -o -type f -size +0 -print 2>/dev/null; true"
    left = inside(engine, image, "sh", "-c", find).split()
    assert [path for path in left if not path.startswith("/root/.")] == []
    packages = inside(engine, image, "ls", SITE).split()
    assert not [name for name in packages if re.match(r"(pip|setuptools)(-|$)", name)]


def test_the_presets_come_with_it_and_are_valid(engine: Engine, image: str) -> None:
    names = sorted(path.name for path in (ROOT / "policies").glob("*.yaml"))
    for name in names:
        assert "valid" in engine.podman(
            "run", *SEALED, image, "policy", "validate", f"/usr/share/quantguard/policies/{name}"
        )


def test_byte_code_does_not_depend_on_when_it_was_made(engine: Engine, image: str) -> None:
    """PEP 552: bit 0 of the flags says checked by content, not by time."""
    code = (
        "import pathlib; p = sorted(pathlib.Path('" + SITE + "').rglob('*.pyc'));"
        "print(len(p), {x.read_bytes()[4:8] for x in p})"
    )
    count, flags = inside(engine, image, "python", "-c", code).strip().split(" ", 1)
    assert int(count) > 100
    assert flags == "{b'\\x01\\x00\\x00\\x00'}"


def test_the_build_context_is_what_the_image_is_made_from() -> None:
    listed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = {
        word.split("/")[0]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert {line[1:] for line in listed} == copied
    assert all(Path(ROOT, name).exists() for name in copied)
