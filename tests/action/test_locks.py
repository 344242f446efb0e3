"""The locks of what runs on the runner's host: the versions that were tested, whole, and by digest."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PINNED = {
    canonicalize_name(name): version.strip()
    for name, mark, version in (
        line.partition("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    )
    if mark and not name.startswith("#")
}

locks = pytest.mark.parametrize("folder", ["action", "action/check"])


def locked(folder: str) -> dict[str, list[str]]:
    """`name==version` and its digests."""
    text = (ROOT / folder / "requirements.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#")]
    return {line[0]: line[1:] for line in lines if line}


def names(folder: str) -> set[str]:
    return {canonicalize_name(pin.partition("==")[0]) for pin in locked(folder)}


def asked(folder: str) -> list[str]:
    lines = (ROOT / folder / "requirements.in").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@locks
def test_a_lock_holds_the_versions_of_the_constraints(folder: str) -> None:
    pins = {canonicalize_name(name): version for name, _, version in (pin.partition("==") for pin in locked(folder))}
    assert pins == {name: PINNED.get(name) for name in pins}


@locks
def test_every_package_is_told_by_digest_and_by_nothing_else(folder: str) -> None:
    """No address of an index, no marker, no option: pip takes each from where the runner takes packages."""
    for pin, rest in locked(folder).items():
        assert rest, f"{pin} has no digest"
        assert [word for word in rest if not re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word)] == [], pin


@locks
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_lock_needs_nothing_that_it_does_not_hold(folder: str, python: str, machine: str) -> None:
    """They are installed with --no-deps: what is missing would be missed in the middle of a job."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    held = names(folder)
    todo = [Requirement(line) for line in asked(folder)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        assert key[0] in held
        for need in map(Requirement, metadata.requires(requirement.name) or []):
            extras = {"", *requirement.extras}
            if need.marker is None or any(need.marker.evaluate({**environment, "extra": extra}) for extra in extras):
                todo.append(need)
    assert {name for name, _ in seen} == held, "the lock holds what nothing needs"


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        (
            "action",
            "import pkgutil, action; [__import__(m.name) for m in pkgutil.iter_modules(action.__path__, 'action.')]",
        ),
        ("action/check", "import quantguard.cli.main, quantguard.check.check, quantguard.check.render"),
    ],
)
def test_what_starts_on_the_host_imports_only_what_is_locked(folder: str, code: str) -> None:
    """Here everything is installed, on the runner's host only the lock."""
    before = "import sys; before = set(sys.modules); "  # what site itself loads
    show = "; print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    done = subprocess.run(
        [sys.executable, "-c", before + code + show], cwd=ROOT, capture_output=True, text=True, check=True
    )
    packages = metadata.packages_distributions()
    loaded = {canonicalize_name(name) for module in done.stdout.split() for name in packages.get(module, [])}
    assert loaded
    assert loaded - names(folder) - {"quantguard"} == set()
