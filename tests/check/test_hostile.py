"""A pull request's files are hostile: nothing of them is run, and no path of theirs is followed out of the checkout."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from quantguard.check import snapshot
from quantguard.check.facts import Answer
from quantguard.core.errors import GitError
from quantguard.core.remark import Level
from tests.check.repository import PATH, Repository, messages, told, with_policy
from tests.policy.written import POLICY, TASK

ERROR = Level.ERROR
SECRET = '{"prompt": "secret"}\n' * 60


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A prompts file beside the checkout, which a policy would load if it were followed."""
    path = tmp_path / "secret.jsonl"
    path.write_text(SECRET, encoding="utf-8")
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return with_policy(tmp_path / "checkout")


def test_a_policy_that_became_a_link_is_refused(repository: Repository, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.yaml"
    (repository.root / PATH).rename(target)
    (repository.root / PATH).symlink_to(target)
    assert told(repository.check()) == [(ERROR, f"{PATH}:1", "check.unsafe_path")]


@pytest.mark.parametrize("target", ["small.yaml", "../policies/small.yaml", "/etc/passwd"])
def test_a_new_link_beside_or_to_a_policy_is_refused(repository: Repository, target: str) -> None:
    (repository.root / "policies/new.yaml").symlink_to(target)
    assert told(repository.check()) == [(ERROR, "policies/new.yaml:1", "check.unsafe_path")]
    repository.commit()
    assert told(repository.check()) == [(ERROR, "policies/new.yaml:1", "check.unsafe_path")]


def test_a_link_that_concerns_no_policy_is_not_remarked_on(repository: Repository) -> None:
    repository.write("charts/values.yaml", "a: 1\n")
    (repository.root / "charts/other.yaml").symlink_to("values.yaml")
    assert repository.check().remarks == ()


def test_a_directory_that_became_a_link_is_not_entered(repository: Repository, tmp_path: Path) -> None:
    (repository.root / "policies").rename(tmp_path / "away")
    (repository.root / "policies").symlink_to(tmp_path / "away")
    result = repository.check()
    assert told(result) == [(ERROR, f"{PATH}:1", "check.unsafe_path")]
    assert "lies behind policies, which is a symbolic link" in messages(result)
    repository.commit()
    assert told(repository.check()) == [(ERROR, f"{PATH}:1", "check.unsafe_path")]


@pytest.mark.parametrize("named", ["../../secret.jsonl", "../../../../../../../../etc/passwd", "/etc/passwd", "../.."])
def test_a_policy_that_names_a_file_outside_is_refused(repository: Repository, secret: Path, named: str) -> None:
    repository.replace(PATH, "probes: probes.jsonl", f"probes: {named}")
    result = repository.check()
    assert told(result) == [(ERROR, f"{PATH}:15", "check.unsafe_path")]
    assert f"{named} leads out of the repository" in messages(result)


@pytest.mark.parametrize("named", ["../../secret.jsonl", "/etc/passwd"])
def test_a_task_that_names_a_file_outside_is_refused(repository: Repository, secret: Path, named: str) -> None:
    repository.write("policies/questions.yaml", TASK.replace("questions.jsonl", named))
    assert told(repository.check()) == [(ERROR, f"{PATH}:25", "check.unsafe_path")]


def test_named_files_that_are_links_pipes_or_git_s_own_are_refused(repository: Repository, secret: Path) -> None:
    probes = repository.root / "policies/probes.jsonl"
    probes.unlink()
    probes.symlink_to(secret)
    assert {rule for _, _, rule in told(repository.check())} == {"check.unsafe_path"}
    assert "secret" not in messages(repository.check())
    probes.unlink()
    os.mkfifo(probes)
    result = repository.check()
    assert {rule for _, _, rule in told(result)} == {"check.unsafe_path"}
    assert "is not a regular file" in messages(result)
    probes.unlink()
    repository.replace(PATH, "probes: probes.jsonl", "probes: ../.git/config")
    assert "git ignores it" in messages(repository.check())


def test_a_file_that_git_ignores_is_no_part_of_a_policy(repository: Repository) -> None:
    repository.write("policies/mine.jsonl", SECRET)
    repository.write(".gitignore", "mine.jsonl\n")
    repository.replace(PATH, "probes: probes.jsonl", "probes: mine.jsonl")
    assert told(repository.check()) == [(ERROR, f"{PATH}:15", "check.unsafe_path")]


def test_a_file_over_the_limit_is_not_read(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    with (repository.root / "policies/probes.jsonl").open("r+b") as stream:
        stream.truncate(300 * 1024 * 1024)  # sparse
    result = repository.check()
    assert {rule for _, _, rule in told(result)} == {"check.unsafe_path"}
    assert "has 314572800 bytes" in messages(result)


def test_a_large_blob_of_the_base_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = with_policy(tmp_path)
    repository.git("switch", "--quiet", "main")
    repository.write("huge.yaml", b"#" * 5_000_000)
    repository.write("policies/probes.jsonl", SECRET)
    repository.commit()
    repository.git("switch", "--quiet", "--create", "late")
    monkeypatch.setattr(snapshot, "MAX_NAMED_BYTES", len(SECRET) - 1)
    result = repository.check()
    assert result.answer is not Answer.BLOCKED or "bytes, more than" in messages(result)
    monkeypatch.setattr(snapshot, "MAX_TOTAL_BYTES", 100)
    with pytest.raises(GitError, match="more than 100 bytes"):
        repository.check()


NAMES = ["policies/with space.yaml", "policies/-rf.yaml", "--upload-pack=x.yaml", "policies/ünï\u202e.yaml",
         "policies/line\nfeed.yaml", "policies/%0A::error::x.yaml", ":(top)magic.yaml", "policies/*.yaml"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_is_a_file_name(repository: Repository, name: str) -> None:
    repository.git("switch", "--quiet", "main")
    text = POLICY.replace("name: small", "name: odd")
    folder = "policies/" if "/" not in name else ""
    for file in ("probes.jsonl", "calibration.jsonl", "questions.yaml"):
        text = text.replace(file, f"{folder}{file}")
    repository.write(name, text)
    repository.commit()
    repository.git("switch", "--quiet", "--create", "late")
    assert repository.check().policies == 2
    repository.write(name, text.replace("confidence: 0.95", "confidence: 0.9"))
    assert told(repository.check()) == [(ERROR, f"{name}:4", "check.looser")]


def test_a_name_that_is_not_utf_8_is_told_in_escapes(repository: Repository) -> None:
    path = os.fsencode(repository.root / "policies") + b"/\xff.yaml"
    Path(os.fsdecode(path)).write_text(POLICY.replace("steps: 10", "steps: 0"), encoding="utf-8")
    assert told(repository.check()) == [(ERROR, "policies/\\xff.yaml:12", "check.invalid")]


def test_nothing_that_a_repository_configures_is_run(repository: Repository, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    script = repository.write("evil.sh", f"#!/bin/sh\ntouch {marker}\ncat\n")
    script.chmod(0o755)
    hooks = repository.root / ".git/hooks"
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        shutil.copy(script, hooks / hook)
    repository.write(
        ".gitattributes", "*.yaml filter=evil diff=evil export-subst ident text\n*.jsonl filter=evil diff=evil\n"
    )
    for key, value in (
        ("core.fsmonitor", str(script)),
        ("core.hooksPath", str(hooks)),
        ("filter.evil.clean", str(script)),
        ("filter.evil.smudge", str(script)),
        ("filter.evil.process", str(script)),
        ("diff.evil.textconv", str(script)),
        ("diff.external", str(script)),
        ("core.pager", str(script)),
        ("core.sshCommand", str(script)),
        ("core.alternateRefsCommand", str(script)),
    ):
        repository.git("config", key, value)
    repository.replace(PATH, "confidence: 0.95", "confidence: 0.9")
    assert told(repository.check()) == [(ERROR, f"{PATH}:4", "check.looser")]
    assert not marker.exists()
    repository.git("status")  # what does run them
    assert marker.exists()


def test_a_partial_clone_does_not_fetch_by_a_program_of_its_own(repository: Repository, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    blob = repository.git("rev-parse", f"main:{PATH}")
    (repository.root / f".git/objects/{blob[:2]}/{blob[2:]}").unlink()
    for key, value in (
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "evil"),
        ("remote.evil.url", f"ext::touch {marker}"),
        ("remote.evil.promisor", "true"),
        ("protocol.ext.allow", "always"),
    ):
        repository.git("config", key, value)
    with pytest.raises(GitError, match="is not in this repository"):
        repository.check()
    assert not marker.exists()


def test_variables_that_lead_git_elsewhere_are_not_passed_on(repository: Repository, tmp_path: Path) -> None:
    other = Repository(tmp_path / "other")
    other.commit()
    marker = tmp_path / "marker"
    environment = {
        **os.environ,
        "GIT_DIR": str(other.root / ".git"),
        "GIT_WORK_TREE": str(other.root),
        "GIT_INDEX_FILE": str(tmp_path / "index"),
        "GIT_CONFIG_PARAMETERS": f"'core.fsmonitor=touch {marker}'",
        "GIT_TRACE": str(tmp_path / "trace"),
    }
    assert repository.check(environment=environment).policies == 1
    assert not marker.exists()
    assert not (tmp_path / "trace").exists()


def test_a_deeply_nested_prompts_file_is_a_problem_of_the_policy(repository: Repository) -> None:
    repository.write("policies/probes.jsonl", "[" * 100_000 + "\n")
    assert {rule for _, _, rule in told(repository.check())} == {"check.invalid"}


def test_submodules_are_left_alone(repository: Repository, tmp_path: Path) -> None:
    commit = repository.git("rev-parse", "HEAD")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},policies/sub.yaml")
    repository.git("commit", "--quiet", "-m", "a submodule")
    (repository.root / "policies/sub.yaml").mkdir()
    assert repository.check().remarks == ()
    assert repository.check(base="HEAD").remarks == ()
