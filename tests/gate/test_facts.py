"""The policy as a report names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantguard.gate.facts import policy_used
from quantguard.policy.load import load_policy
from tests.policy.written import write_policy


def files(path: Path) -> set[str]:
    return {place.file for _, place in policy_used(load_policy(path)).anchors}


def test_a_policy_below_the_working_directory_is_named_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repo" / "policies"
    folder.mkdir(parents=True)
    path = write_policy(folder)
    monkeypatch.chdir(tmp_path / "repo")
    relative = {"policies/policy.yaml"}
    assert files(path) == relative
    assert files(Path("policies/policy.yaml")) == relative
    assert files(Path("policies/../policies/./policy.yaml")) == relative
    assert policy_used(load_policy(path)).path == str(path)  # the command to run again is the user's own


def test_a_policy_elsewhere_is_named_as_the_user_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_policy(tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert files(path) == {path.as_posix()}
    assert files(Path("../policy.yaml")) == {"../policy.yaml"}


def test_a_link_in_the_working_directory_is_named_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "repo").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "repo")
    path = write_policy(tmp_path / "real")
    (tmp_path / "repo" / "linked").symlink_to(path.parent)
    monkeypatch.chdir(tmp_path / "repo")
    assert files(Path("linked/policy.yaml")) == {"linked/policy.yaml"}
    write_policy(tmp_path / "repo")
    assert files(tmp_path / "alias" / "policy.yaml") == {"policy.yaml"}
