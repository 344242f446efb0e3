"""Waivers in a change: what they newly allow, what the base branch's policy says of them, and how old they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantguard.check.facts import Answer
from quantguard.core.remark import Level
from tests.check.repository import PATH, Repository, messages, told, with_policy
from tests.policy.written import POLICY

ERROR, WARNING, NOTICE = Level.ERROR, Level.WARNING, Level.NOTICE
DIGEST = "sha256:" + "a" * 64
FILE = "waivers.yaml"
MANIFEST = f"schema: quantguard.manifest/1\npolicy: {PATH}\nwaivers: {FILE}\n"
RULES = "waivers: {max_days: 40, approvals: [{rules: ['scan.*'], by: [ann, bob]}]}\n"


def waivers(expires: str = "2026-12-31", *, rule: str = "scan.boundary", by: str = "ann", why: str = "known") -> str:
    entry = f"{{rule: {rule}, model: '{DIGEST}', scheme: nf4, reason: {why}, approver: {by}, expires: {expires}}}"
    return f"schema: quantguard.waivers/1\nwaivers:\n  - {entry}\n"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A waiver is on main already."""
    made = with_policy(tmp_path / "checkout", POLICY + RULES)
    made.write("quantguard.yaml", MANIFEST)
    made.write(FILE, waivers())
    made.commit()
    made.git("branch", "--force", "main")
    return made


def test_what_is_as_before_is_no_remark(repository: Repository) -> None:
    assert (repository.check().remarks, repository.check().answer) == ((), Answer.PASSED)


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (waivers("2027-01-05"), [(ERROR, f"{FILE}:3", "check.looser")]),
        (waivers("2026-12-30"), [(NOTICE, f"{FILE}:3", "check.stricter")]),
        (waivers(by="bob"), [(WARNING, f"{FILE}:3", "check.different")]),
        (waivers(why="other"), [(WARNING, f"{FILE}:3", "check.different")]),
        (waivers(by="eve"), [(ERROR, f"{FILE}:3", "check.waiver_refused"), (WARNING, f"{FILE}:3", "check.different")]),
        (waivers("2027-01-07"), [(ERROR, f"{FILE}:3", "check.looser"), (ERROR, f"{FILE}:3", "check.waiver_refused")]),
        (waivers("2026-12-05"), [(NOTICE, f"{FILE}:3", "check.stricter"), (NOTICE, f"{FILE}:3", "check.waiver_soon")]),
        (
            waivers(rule="scan.atoms"),
            [(ERROR, f"{FILE}:3", "check.looser"), (NOTICE, "quantguard.yaml:3", "check.stricter")],
        ),
        ("schema: quantguard.waivers/1\nwaivers: []\n", [(NOTICE, "quantguard.yaml:3", "check.stricter")]),
        (waivers(rule="scan.*"), [(ERROR, f"{FILE}:3", "check.invalid")]),
    ],
)  # fmt: skip
def test_each_change_of_a_waiver_is_told_at_its_line(
    repository: Repository, now: str, found: list[tuple[Level, str, str]]
) -> None:
    repository.write(FILE, now)
    assert told(repository.check()) == found


def test_a_new_waiver_blocks_until_it_is_allowed(repository: Repository) -> None:
    repository.write(FILE, waivers() + waivers(rule="scan.atoms").splitlines()[-1] + "\n")
    result = repository.check()
    assert (told(result), result.answer) == ([(ERROR, f"{FILE}:4", "check.looser")], Answer.BLOCKED)
    assert "a new waiver of scan.atoms (nf4) for sha256:aaaaaaaaaaaa, until 2026-12-31, approved by ann" in messages(
        result
    )
    assert repository.check(allow_looser=True).answer is Answer.PASSED


def test_one_that_has_expired_blocks_whoever_brought_it(tmp_path: Path) -> None:
    made = with_policy(tmp_path / "checkout")
    made.write("quantguard.yaml", MANIFEST)
    made.write(FILE, waivers("2026-11-26"))
    made.commit()
    made.git("branch", "--force", "main")
    assert told(made.check()) == [(ERROR, f"{FILE}:3", "check.waiver_expired")]


def test_the_base_branchs_policy_says_who_may_and_not_the_changes_own(repository: Repository) -> None:
    repository.replace(PATH, "ann, bob", "ann, bob, eve")
    repository.write(FILE, waivers(by="eve"))
    rules = [rule for level, _, rule in told(repository.check(allow_looser=True)) if level is ERROR]
    assert rules == ["check.waiver_refused"]


@pytest.mark.parametrize(
    ("name", "rule"),
    [("../w.yaml", "check.unsafe_path"), ("none.yaml", "check.invalid"), ("link.yaml", "check.unsafe_path")],
)
def test_a_file_that_is_none_or_a_link_is_an_error(repository: Repository, name: str, rule: str) -> None:
    (repository.root / "link.yaml").symlink_to(FILE)
    repository.replace("quantguard.yaml", f"waivers: {FILE}", f"waivers: {name}")
    assert [found for level, _, found in told(repository.check()) if level is ERROR] == [rule]


def test_a_file_of_waivers_that_no_manifest_names_is_nothing(repository: Repository) -> None:
    repository.write("models/waivers.yaml", waivers(rule="scan.atoms"))
    assert repository.check().remarks == ()
