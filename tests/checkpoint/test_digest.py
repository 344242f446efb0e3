"""Our manifest and root digest are model-signing's; the named digest covers what that one leaves open."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_signing import hashing
from model_signing._signing.signing import Payload  # the only place where the root digest is computed

from quantguard.checkpoint.digest import manifest, model_digest, named_digest, root_digest
from quantguard.core.errors import CheckpointError, UnsafeCheckpointError, UsageError
from tests.checkpoint.build import write_model

ODD: dict[str, bytes] = {
    "empty": b"",
    "a b": b"space sorts before slash as text and after it as a path",
    "a/b": b"nested",
    "a/b.d/c": b"deeper",
    "a.b": b"dot",
    "Ünïcode/模型.json": b"{}",
    "e\u0301": b"combining",
    "\u00e9": b"composed",
    "quote'\"\\": b"quotes",
    "line\nbreak": b"newline",
    ".hidden/file": b"hidden",
    "sub/.gitignore": b"only git's files at the top are left out",
    ".gitattributes": b"left out",
    ".git/config": b"left out",
    ".github/workflows/x.yml": b"left out",
    ".gitignore": b"left out",
    "model.sig": b"a signature is a file like any other",
    "large": bytes(range(256)) * 9000,
}


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def theirs(directory: Path) -> tuple[str, list[tuple[str, str]]]:
    """Root digest and resources as model-signing would sign them."""
    statement = Payload(hashing.hash(directory)).statement.pb
    resources = [(item["name"], item["digest"]) for item in statement.predicate["resources"]]
    return "sha256:" + statement.subject[0].digest["sha256"], resources


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    return write(tmp_path / "odd model", ODD)


def test_the_manifest_is_model_signings_over_odd_names(odd: Path) -> None:
    (odd / "empty directory").mkdir()
    digest, resources = theirs(odd)
    assert [(file.path, file.sha256) for file in manifest(odd)] == resources
    assert root_digest(manifest(odd)) == digest
    assert len(resources) == len(ODD) - 4


def test_the_digest_of_a_real_checkpoint_is_model_signings(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m", shards=3)
    assert root_digest(manifest(directory)) == theirs(directory)[0]


NAMES = st.lists(st.text("ab .-_é/", min_size=1, max_size=6), max_size=5, unique=True)


@given(NAMES, st.binary(max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_has_model_signings_digest(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: bytes
) -> None:
    directory = tmp_path_factory.mktemp("tree")
    for number, name in enumerate(names):
        parts = [part for part in name.split("/") if part.strip(".")]
        path = directory.joinpath(*parts)
        if not parts or path.exists() or any(parent.is_file() for parent in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + bytes([number]))
    assert (root_digest(manifest(directory)), [(f.path, f.sha256) for f in manifest(directory)]) == theirs(directory)


def test_sizes_and_digests_are_those_of_the_bytes(odd: Path) -> None:
    for file in manifest(odd):
        assert file.size == len(ODD[file.path])
        assert file.sha256 == hashlib.sha256(ODD[file.path]).hexdigest()


def test_one_changed_bit_changes_both_digests(odd: Path) -> None:
    before = manifest(odd)
    (odd / "large").write_bytes(ODD["large"][:-1] + b"\xfe")
    after = manifest(odd)
    assert root_digest(before) != root_digest(after)
    assert named_digest(before) != named_digest(after)


def test_swapping_files_by_renaming_keeps_the_root_digest_and_changes_the_named_one(tmp_path: Path) -> None:
    """model-signing's signature covers names in its payload; its root digest alone does not."""
    write(tmp_path, {"model.safetensors": b"clean", "model.safetensors.old": b"poisoned"})
    before = manifest(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model.a")
    (tmp_path / "model.safetensors.old").rename(tmp_path / "model.safetensors")
    after = manifest(tmp_path)
    assert root_digest(before) == root_digest(after) == theirs(tmp_path)[0]
    assert named_digest(before) != named_digest(after)


def test_times_modes_and_empty_directories_do_not_count(odd: Path) -> None:
    before = manifest(odd)
    (odd / "large").chmod(0o600)
    os.utime(odd / "large", (1, 1))
    (odd / "another" / "empty").mkdir(parents=True)
    assert manifest(odd) == before


def test_what_model_signing_refuses_is_refused(odd: Path) -> None:
    (odd / "link").symlink_to("large")
    with pytest.raises(ValueError, match="symlink"):
        hashing.hash(odd)
    with pytest.raises(UnsafeCheckpointError, match="'link' is a symbolic link"):
        manifest(odd)
    (odd / "link").unlink()
    os.mkfifo(odd / "pipe")
    with pytest.raises(UnsafeCheckpointError, match="'pipe' is a special file"):
        manifest(odd)


def test_a_name_that_is_not_utf8_cannot_be_written_into_evidence(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff")).touch()
    with pytest.raises(CheckpointError, match="not UTF-8"):
        manifest(tmp_path)


def test_a_file_that_grows_while_it_is_hashed_is_noticed(odd: Path) -> None:
    def grow(stage: str, done: int, total: int, detail: str = "") -> None:
        with (odd / "large").open("ab") as stream:
            stream.write(b"x")

    with pytest.raises(CheckpointError, match="'large' changed while"):
        manifest(odd, progress=grow)


def test_progress_counts_the_bytes(odd: Path) -> None:
    seen: list[tuple[int, int]] = []

    def note(stage: str, done: int, total: int, detail: str = "") -> None:
        seen.append((done, total))

    total = sum(file.size for file in manifest(odd, progress=note))
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)


def test_no_directory_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        model_digest(tmp_path / "absent")
