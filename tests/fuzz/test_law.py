"""The watch sees what it is there for, and the directory on disk is what was asked for: or no count means a thing."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.core.errors import CheckpointError, QuantGuardError
from tests.fuzz import seeds
from tests.fuzz.law import judge
from tests.fuzz.run import batches, table
from tests.fuzz.soak import Tally, soak, warm_up
from tests.fuzz.targets import TARGETS, chance_of
from tests.fuzz.tree import Disk, Folder, HardLink, Link, Node, Pipe, Socket, Tree


def _refuses(_: Path) -> str:
    raise CheckpointError("no")


def _says_control_characters(_: Path) -> str:
    raise CheckpointError("\x1b[31m")


def _crashes(_: Path) -> str:
    raise KeyError("x")


def _swallows(root: Path) -> str:
    try:
        return (root.parent / "secret").read_text()
    finally:
        raise QuantGuardError("nothing happened")


BREAKERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "crash": (_crashes, "KeyError"),
    "outside": (lambda root: (root.parent / "secret").read_text(), "opened"),
    "outside, and denied": (_swallows, "opened"),
    "up and down": (lambda root: (root / ".." / "secret").read_text(), "opened"),
    "through a link": (lambda root: (root / "link").read_text(), "opened"),
    "through a folder that is a link": (lambda root: os.open(root / "up" / "secret", os.O_NOFOLLOW), "opened"),
    "bytes": (lambda root: os.open(bytes(root.parent / "secret"), os.O_RDONLY), "opened"),
    "listed": (lambda root: list((root / "up").iterdir()), "listed"),
    "written": (lambda root: (root / "new").write_text("x"), "for writing"),
    "appended": (lambda root: os.open(root / "file", os.O_WRONLY), "for writing"),
    "removed": (lambda root: (root / "file").unlink(), "os.remove"),
    "made": (lambda root: (root / "folder").mkdir(), "os.mkdir"),
    "socket": (lambda _: socket.socket(socket.AF_UNIX).close(), "socket"),
    "name looked up": (lambda _: socket.getaddrinfo("localhost", 1), "socket"),
    "program": (lambda _: subprocess.run(["true"], check=True), "subprocess.Popen"),
    "pickle": (lambda _: pickle.loads(pickle.dumps(Path)), "pickle.find_class"),  # noqa: S301
    "code": (lambda _: exec("1"), "exec"),  # noqa: S102
    "unprintable": (_says_control_characters, "not printable"),
    "slow": (lambda _: time.sleep(0.06), "took"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "m"
    root.mkdir()
    (tmp_path / "secret").write_text("s")
    (root / "file").write_text("f")
    (root / "link").symlink_to("../secret")
    (root / "up").symlink_to("..")
    return root


@pytest.mark.parametrize("case", BREAKERS)
def test_who_breaks_the_law_is_seen(root: Path, case: str) -> None:
    act, word = BREAKERS[case]

    def subject(directory: Path) -> str:
        act(directory)
        return "done"

    assert word in judge(root, subject, seconds=0.05 if case == "slow" else 20).breach


def test_who_keeps_it_is_let_be(root: Path) -> None:
    def reads(directory: Path) -> str:
        with pytest.raises(OSError, match="symbolic"):
            os.open(directory / "link", os.O_RDONLY | os.O_NOFOLLOW)
        return (directory / "file").read_text() + str(sorted(directory.iterdir()))

    assert judge(root, reads, seconds=20).breach == ""
    assert judge(root, _refuses, seconds=20).said == "CheckpointError"
    (root.parent / "secret").read_text()  # the watch is off again


def test_a_breach_is_counted_and_kept(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, kept = Disk(tmp_path / "d"), tmp_path / "kept"
    warm_up(disk)
    monkeypatch.setattr("quantguard.scan.scan._require_testable", lambda *_: (root.parent / "secret").read_text())
    tally = soak(disk, "models", range(20), 0, kept)
    assert tally.inputs == sum(tally.said.values()) == 20
    assert 0 < len(tally.broken) <= tally.outside
    folder = min(kept.iterdir())
    assert "secret" in (folder / "why.txt").read_text()
    assert (folder / "model" / "config.json").is_file()
    assert f"{20:>12}" in table({"models": tally, "headers": Tally()})


def test_every_target_gets_its_share_of_the_numbers_once() -> None:
    asked = list(batches(10_000))
    assert sum(len(numbers) for _, numbers in asked) == 10_000
    for name, target in TARGETS.items():
        assert [n for other, numbers in asked if other == name for n in numbers] == list(range(target.share * 100))


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_is_made_the_same_again_whatever_was_made_before(name: str) -> None:
    make = TARGETS[name].make
    before = [make(chance_of(3, name, number)) for number in range(40)]
    after = [make(chance_of(3, name, number)) for number in reversed(range(40))]
    assert before == after[::-1]
    assert len({repr(tree) for tree in before}) > 30


def on_disk(root: Path) -> dict[str, str]:
    """What lies below `root`, by kind; files by their bytes, folders only where they are empty."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"link {path.readlink()}"
        elif path.is_file():
            found[name] = repr(path.read_bytes())
        elif path.is_fifo() or path.is_socket():
            found[name] = "pipe" if path.is_fifo() else "socket"
        elif not any(path.iterdir()):
            found[name] = "folder"
    return found


NODES = st.one_of(
    st.binary(max_size=3),
    st.sampled_from([Link("a"), Link(".."), Link("b"), Pipe(), Socket(), Folder(), HardLink(Path(__file__))]),
)
TREES = st.dictionaries(st.sampled_from(["a", "b", "a/a", "a/b/c", "b/a", "\0", "x" * 300]), NODES, max_size=5)


@given(st.lists(TREES, min_size=2, max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_directory_made_of_another_is_as_one_made_of_nothing(
    tmp_path_factory: pytest.TempPathFactory, trees: list[dict[str, Node]]
) -> None:
    work = tmp_path_factory.mktemp("d")
    used, new = Disk(work / "used"), Disk(work / "new")
    for tree in trees:
        used.become(tree)
    new.become(trees[-1])
    assert on_disk(used.root) == on_disk(new.root)


@pytest.mark.parametrize("tree", [seeds.single("llama"), seeds.single("gpt2"), seeds.sharded(), seeds.furnished()])
def test_what_is_changed_was_honest(tmp_path: Path, tree: Tree) -> None:
    """Or the fuzzing would be about what is refused already."""
    disk = Disk(tmp_path / "m")
    disk.become(tree)
    for target in TARGETS.values():
        assert judge(disk.root, target.read, seconds=20).said in ("accepted", "accepted, transposed", "milder findings")
