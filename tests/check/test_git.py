"""What is compared with what, and what is said where that cannot be found."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from quantguard.check.check import Request, check
from quantguard.check.git import Git
from quantguard.core.errors import CheckoutError, UsageError
from quantguard.core.verdict import ExitCode
from tests.check.repository import ENVIRONMENT, NOW, PATH, Repository, told, with_policy


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return with_policy(tmp_path / "checkout")


def cloned(repository: Repository, root: Path, *options: str) -> Repository:
    command = ["git", "clone", "--quiet", *options, f"file://{repository.root}", str(root)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    return Repository(root)


@pytest.mark.parametrize("ref", ["-h", "--upload-pack=x", "", "main\nother"])
def test_what_is_no_ref_is_refused(repository: Repository, ref: str) -> None:
    with pytest.raises(CheckoutError, match="is not the name of a commit"):
        repository.check(base=ref)


@pytest.mark.parametrize("ref", ["origin/main", "main:policies", "@{upstream}", "main^{tree}"])
def test_a_base_that_is_not_here_is_a_usage_error_with_its_remedy(repository: Repository, ref: str) -> None:
    with pytest.raises(CheckoutError, match="fetch-depth: 0") as caught:
        repository.check(base=ref)
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_shallow_clone_without_the_base_says_how_to_get_it(repository: Repository, tmp_path: Path) -> None:
    repository.replace(PATH, "steps: 10", "steps: 11")
    repository.commit()
    shallow = cloned(repository, tmp_path / "shallow", "--depth=1", "--branch=change")
    with pytest.raises(CheckoutError, match="fetch-depth: 0"):
        shallow.check(base="origin/main")
    shallow.git("fetch", "--quiet", "--depth=1", "origin", "main:refs/remotes/origin/main")
    with pytest.raises(CheckoutError, match="no commit in common here") as caught:
        shallow.check(base="origin/main")
    assert "fetch-depth: 0" in caught.value.remedy
    shallow.git("fetch", "--quiet", "--unshallow", "origin")
    assert [rule for _, _, rule in told(shallow.check(base="origin/main"))] == ["check.different"]


def test_a_detached_merge_commit_is_compared_with_its_first_parent(repository: Repository) -> None:
    """What actions/checkout gives for a pull request."""
    repository.replace(PATH, "confidence: 0.95", "confidence: 0.9")
    repository.commit()
    repository.git("switch", "--quiet", "--detach", "main")
    repository.git("merge", "--quiet", "--no-ff", "--no-edit", "change")
    for base in ("main", "HEAD^1"):
        result = repository.check(base=base)
        assert [rule for _, _, rule in told(result)] == ["check.looser"]
        assert result.began_at == repository.git("rev-parse", "main")


def test_the_first_base_that_is_here_is_taken(repository: Repository) -> None:
    request = Request(repository.root, ("origin/main", "main"), None, None, False, NOW)
    assert check(request, ENVIRONMENT).base == "main"


def test_a_directory_below_the_top_is_in_the_checkout_too(repository: Repository) -> None:
    repository.replace(PATH, "confidence: 0.95", "confidence: 0.9")
    request = Request(repository.root / "policies", ("main",), None, None, False, NOW)
    assert told(check(request, ENVIRONMENT)) == told(repository.check())


def test_two_merge_bases_are_not_chosen_between(repository: Repository) -> None:
    repository.commit("ours")
    repository.git("switch", "--quiet", "main")
    repository.commit("theirs")
    one, other = repository.git("rev-parse", "main"), repository.git("rev-parse", "change")
    repository.git("merge", "--quiet", "--no-edit", other)
    repository.git("switch", "--quiet", "change")
    repository.git("merge", "--quiet", "--no-edit", one)
    with pytest.raises(CheckoutError, match="2 merge bases"):
        repository.check()


def test_no_checkout_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(CheckoutError, match="not in a git checkout"):
        Git(tmp_path, {**ENVIRONMENT, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}).top()
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(bare)], env=ENVIRONMENT, check=True)
    with pytest.raises(CheckoutError):
        Git(bare, ENVIRONMENT).top()


def test_a_checkout_without_a_commit_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(CheckoutError, match="cannot be found here"):
        Repository(tmp_path).check()


def test_without_git_the_error_says_so(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(CheckoutError, match="git is not installed"):
        repository.check(environment={"PATH": str(tmp_path)})


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory to another user")
def test_a_checkout_of_another_user_says_how_to_trust_it(repository: Repository, tmp_path: Path) -> None:
    os.chown(repository.root, 12345, 12345)
    os.chown(repository.root / ".git", 12345, 12345)
    with pytest.raises(CheckoutError, match="belongs to another user") as caught:
        repository.check()
    remedy = f"git config --global --add safe.directory {repository.root}"
    assert remedy in caught.value.remedy
    configuration = tmp_path / "gitconfig"
    configuration.write_text(f"[safe]\n\tdirectory = {repository.root}\n", encoding="utf-8")
    assert repository.check(environment={**ENVIRONMENT, "GIT_CONFIG_GLOBAL": str(configuration)}).policies == 1


def test_a_sparse_checkout_that_leaves_policies_out_is_no_checkout_of_them(repository: Repository) -> None:
    repository.write("docs/a.txt", "a")
    repository.commit()
    repository.git("sparse-checkout", "set", "docs")
    with pytest.raises(CheckoutError, match="sparse") as caught:
        repository.check()
    assert "git sparse-checkout disable" in caught.value.remedy


def test_a_manifest_outside_the_checkout_is_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not in the checkout"):
        repository.check(manifest=tmp_path / "quantguard.yaml")
