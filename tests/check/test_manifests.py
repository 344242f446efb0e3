"""A change of the manifest itself, and that what governs is the base branch's."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantguard.check.facts import Answer
from quantguard.core.remark import Level
from tests.check.repository import PATH, Repository, messages, told, with_policy
from tests.check.test_pins import DIGEST, manifest
from tests.policy.written import POLICY
from tests.registry.world import FILES, write_files

ERROR, WARNING, NOTICE = Level.ERROR, Level.WARNING, Level.NOTICE
MANIFEST = "quantguard.yaml"
LAX = "policies/lax.yaml"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return with_policy(tmp_path / "checkout")


def on_main(repository: Repository, files: dict[str, str]) -> None:
    """Commit `files` on main, and begin a change from there."""
    repository.git("switch", "--quiet", "main")
    for path, text in files.items():
        repository.write(path, text)
    repository.commit()
    repository.git("switch", "--quiet", "--create", "late")


def lax() -> str:
    return POLICY.replace("name: small", "name: lax").replace("max_upper_bound: 0.1", "max_upper_bound: 0.9")


def test_a_change_cannot_allow_itself_to_be_looser(repository: Repository) -> None:
    repository.replace(PATH, "confidence: 0.95", "confidence: 0.9")
    repository.write(MANIFEST, manifest(more="looser: warn\n"))
    assert told(repository.check()) == [(ERROR, f"{PATH}:4", "check.looser")]
    repository.write(".github/quantguard.yaml", "allow-looser: true")
    assert repository.check().answer is Answer.BLOCKED


def test_the_base_branch_can_allow_it(repository: Repository) -> None:
    on_main(repository, {MANIFEST: manifest(more="looser: warn\n")})
    repository.replace(PATH, "confidence: 0.95", "confidence: 0.9")
    assert told(repository.check()) == [(WARNING, f"{PATH}:4", "check.looser")]
    repository.replace(MANIFEST, "warn", "block")  # from the next change on
    assert told(repository.check()) == [
        (WARNING, f"{PATH}:4", "check.looser"),
        (NOTICE, f"{MANIFEST}:3", "check.stricter"),
    ]


def test_the_tip_of_the_base_branch_governs_and_not_what_the_change_began_from(repository: Repository) -> None:
    on_main(repository, {MANIFEST: manifest(more="looser: warn\n")})
    repository.replace(PATH, "confidence: 0.95", "confidence: 0.9")
    repository.commit()
    repository.git("switch", "--quiet", "main")
    repository.replace(MANIFEST, "warn", "block")
    repository.commit("block from now on")
    repository.git("switch", "--quiet", "late")
    assert told(repository.check()) == [(ERROR, f"{PATH}:4", "check.looser")]


def test_warning_only_from_here_on_is_itself_looser(repository: Repository) -> None:
    on_main(repository, {MANIFEST: manifest()})
    repository.write(MANIFEST, manifest(more="looser: warn\n"))
    assert told(repository.check()) == [(ERROR, f"{MANIFEST}:3", "check.looser")]


def test_a_manifest_that_is_gone_is_looser(repository: Repository) -> None:
    on_main(repository, {MANIFEST: manifest()})
    (repository.root / MANIFEST).unlink()
    assert told(repository.check()) == [(ERROR, f"{MANIFEST}:1", "check.looser")]


def test_an_invalid_manifest_is_an_error_at_its_line_and_governs_nothing(repository: Repository) -> None:
    on_main(repository, {MANIFEST: manifest(more="looser: wran\n")})
    repository.replace(PATH, "confidence: 0.95", "confidence: 0.9")
    assert told(repository.check()) == [
        (ERROR, f"{PATH}:4", "check.looser"),
        (ERROR, f"{MANIFEST}:3", "check.invalid"),
    ]
    repository.write(MANIFEST, manifest(more="looser: warn\n"))
    assert told(repository.check()) == [
        (ERROR, f"{PATH}:4", "check.looser"),
        (WARNING, f"{MANIFEST}:1", "check.new"),
    ]


def test_a_manifest_that_is_a_link_is_refused(repository: Repository, tmp_path: Path) -> None:
    target = tmp_path / "manifest.yaml"
    target.write_text(manifest(), encoding="utf-8")
    (repository.root / MANIFEST).symlink_to(target)
    assert told(repository.check()) == [(ERROR, f"{MANIFEST}:1", "check.unsafe_path")]


@pytest.mark.parametrize("own", [False, True])
def test_a_pin_under_another_policy_is_compared_like_a_changed_one(repository: Repository, own: bool) -> None:
    on_main(repository, {MANIFEST: manifest("model: ./m"), LAX: lax()})
    write_files(repository.root / "m", FILES)
    after = manifest(f"model: ./m, policy: {LAX}") if own else manifest("model: ./m", policy=LAX)
    repository.write(MANIFEST, after)
    line = f"{MANIFEST}:{4 if own else 2}"
    result = repository.check()
    assert [remark for remark in told(result) if remark[2] != "check.pin_ungated"] == [
        (ERROR, line, "check.looser"),
        (WARNING, line, "check.different"),
    ]
    assert f"by its new policy {LAX}: looser: attack_success.content_injection.max_upper_bound" in messages(result)
    assert repository.check(allow_looser=True).answer is Answer.PASSED


def test_a_pin_s_policy_is_one_of_the_base_branch(repository: Repository) -> None:
    on_main(repository, {MANIFEST: manifest("model: ./m")})
    write_files(repository.root / "m", FILES)
    repository.write(LAX, lax())
    repository.write(MANIFEST, manifest(f"model: ./m, policy: {LAX}"))
    result = repository.check()
    assert (ERROR, f"{MANIFEST}:4", "check.pin_policy") in told(result)
    assert "merge the policy first" in messages(result)
    assert repository.check(allow_looser=True).answer is Answer.BLOCKED


@pytest.mark.parametrize("policy", ["../outside.yaml", "/etc/passwd", "none.yaml"])
def test_a_policy_that_is_none_judges_nothing(repository: Repository, policy: str) -> None:
    repository.write(MANIFEST, manifest(policy=policy))
    ((level, where, rule),) = told(repository.check())
    assert (level, where) == (ERROR, f"{MANIFEST}:2")
    assert rule in ("check.unsafe_path", "check.pin_policy")


def test_a_file_that_is_called_a_policy_and_is_none_is_told_at_both(repository: Repository) -> None:
    repository.write("README.md", "text")
    repository.write(MANIFEST, manifest(policy="README.md"))
    assert told(repository.check()) == [
        (ERROR, "README.md:1", "check.invalid"),
        (ERROR, f"{MANIFEST}:2", "check.pin_policy"),
    ]


def test_a_pin_without_its_digest_or_its_policy_is_looser_and_one_that_is_gone_is_told(repository: Repository) -> None:
    before = manifest(f'model: ./m, digest: "{DIGEST}"', "model: ./n")
    on_main(repository, {MANIFEST: before})
    write_files(repository.root / "m", FILES)
    repository.write(MANIFEST, "schema: quantguard.manifest/1\nmodels:\n  - model: ./m\n")
    result = repository.check()
    assert [remark for remark in told(result) if remark[2] != "check.pin_ungated"] == [
        (ERROR, f"{MANIFEST}:1", "check.looser"),
        (ERROR, f"{MANIFEST}:3", "check.looser"),
        (WARNING, f"{MANIFEST}:2", "check.different"),
    ]
    assert "./n is not pinned any more" in messages(result)


def test_another_manifest_is_read_where_it_is_named(repository: Repository) -> None:
    repository.write("deploy/pins.yaml", manifest("model: ./none", policy=f"../{PATH}"))
    assert told(repository.check(manifest=Path("deploy/pins.yaml"))) == [
        (ERROR, "deploy/pins.yaml:4", "check.pin_gone")
    ]


def test_a_policy_that_is_pinned_is_one_whatever_its_file_is_called(repository: Repository) -> None:
    named = "policies/small.policy"
    on_main(repository, {named: POLICY, MANIFEST: manifest(policy=named)})
    repository.replace(named, "confidence: 0.95", "confidence: 0.9")
    assert told(repository.check()) == [(ERROR, f"{named}:4", "check.looser")]
