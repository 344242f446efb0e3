"""A file of waivers: strict, bounded, held against its policy, and never the model's own."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from quantguard.core.errors import PolicyError, UsageError
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.core.waiver import NO_SCHEME
from quantguard.policy.json_schema import json_schema
from quantguard.policy.waivers_file import (
    LoadedWaivers,
    WaiverEntry,
    load_waivers,
    parse_waivers,
    require_apart,
    waivers_schema_text,
)
from tests.policy.full import made

TODAY = date(2026, 11, 27)
POLICY = made(waivers={"max_days": 30})
ONE = """\
  - rule: scan.boundary
    model: sha256:{digest}
    scheme: nf4
    reason: "a known false alarm: see the review"
    approver: ann
    expires: 2026-12-01
""".format(digest="a" * 64)
FILE = f"schema: quantguard.waivers/1\nwaivers:\n{ONE}"


def problems(text: str) -> list[str]:
    read = parse_waivers(Path("w.yaml"), text.encode(), POLICY, TODAY)
    assert isinstance(read, tuple)
    return [f"{problem.line} {problem.key} {problem.message} {problem.remedy}" for problem in read]


def loaded(text: str) -> LoadedWaivers:
    read = parse_waivers(Path("w.yaml"), text.encode(), POLICY, TODAY)
    assert isinstance(read, LoadedWaivers), read
    return read


@pytest.mark.parametrize("day", ["2026-12-01", '"2026-12-01"'])
def test_a_day_may_be_quoted_or_not(day: str) -> None:
    read = loaded(FILE.replace("2026-12-01", day))
    assert [waiver.expires for waiver in read.waivers] == ["2026-12-01"]
    assert read.places[0].line == 3


def test_a_file_may_have_none_and_one_that_has_expired_is_read() -> None:
    assert loaded("schema: quantguard.waivers/1\nwaivers: []\n").waivers == ()
    assert loaded(FILE.replace("2026-12-01", "2020-01-01")).waivers[0].expires == "2020-01-01"


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("rule: scan.boundary", "rule: scan.*", "3 waivers[0].rule expected one rule, got the pattern 'scan.*'"),
        ("rule: scan.boundary", "rule: scan.fail_on", "would waive whatever is found"),
        ("rule: scan.boundary", "rule: scann.boundary", "did you mean scan.boundary?"),
        ("rule: scan.boundary", "rule: boundary", "expected a rule as a report names it"),
        ("rule: scan.boundary", "rules: scan.boundary", "3 waivers[0].rules unknown key did you mean rule?"),
        ("scheme: nf4", "scheme: nf5", "5 waivers[0].scheme expected"),
        ("scheme: nf4", "scheme: nf5", "did you mean nf4?"),
        ("sha256:", "sha512:", "4 waivers[0].model expected text that matches"),
        ("    expires: 2026-12-01\n", "", "3 waivers[0].expires is required and absent"),
        ("2026-12-01", "2026-12-28", "a waiver lasts at most 30 days, today until 2026-12-27, got 2026-12-28"),
        ("2026-12-01", "2026-11-31", "which no calendar has"),
        ("2026-12-01", "never", "8 waivers[0].expires expected a date as 2027-01-31"),
        ("2026-12-01", "2026-12-01T00:00:00Z", "8 waivers[0].expires expected text"),
        ("approver: ann", 'approver: " "', "expected text, not only spaces"),
        ("approver: ann", 'approver: "ann\\nbob"', "one line of plain text"),
        ("approver: ann", "approver:", "has no value"),
        ("waivers/1", "waivers/2", "1 schema expected 'quantguard.waivers/1'"),
        ("waivers:\n", "waivers: &a\n", ""),
    ],
)
def test_what_is_malformed_is_told_with_line_key_and_what_was_expected(was: str, now: str, said: str) -> None:
    if said:
        assert said in "\n".join(problems(FILE.replace(was, now, 1)))
    else:
        assert loaded(FILE.replace(was, now, 1))


def test_the_same_waiver_twice_is_refused_and_both_lines_are_named() -> None:
    assert problems(FILE + ONE.replace("ann", "bob")) == [
        "9 waivers[1] scan.boundary of these bytes under nf4 is waived in line 3 already keep one of them"
    ]


def test_too_many_are_refused() -> None:
    assert "at most" in problems(FILE + ONE * 1000)[0] or "too many" in problems(FILE + ONE * 1000)[0]


def test_an_approver_who_may_not_is_named_at_their_line() -> None:
    policy = made(waivers={"approvals": [{"rules": ["scan.*"], "by": ["eve"]}]})
    read = parse_waivers(Path("w.yaml"), FILE.encode(), policy, TODAY)
    assert isinstance(read, tuple)
    assert (read[0].line, read[0].key) == (7, "waivers[0].approver")
    assert "ann may not approve waivers of scan.boundary: only eve may" in read[0].message


def test_schemes_are_those_that_reasons_name() -> None:
    known = set(json_schema(WaiverEntry, "x")["properties"]["scheme"]["enum"])
    assert known == {*map(scheme_label, (None, *Scheme)), NO_SCHEME}


def test_the_schema_is_checked_in() -> None:
    written = Path(__file__).parents[2] / "policies" / "waivers.schema.json"
    assert written.read_text(encoding="utf-8") == waivers_schema_text()


def test_no_file_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        load_waivers(tmp_path / "none.yaml", POLICY, TODAY)


def test_a_models_own_waivers_and_links_out_are_refused(tmp_path: Path) -> None:
    here, model, away = (tmp_path / name for name in ("repo", "repo/model", "away"))
    for folder in (model, away):
        folder.mkdir(parents=True)
        (folder / "w.yaml").write_text(FILE, encoding="utf-8")
    (here / "w.yaml").write_text(FILE, encoding="utf-8")
    (here / "into.yaml").symlink_to(model / "w.yaml")
    (here / "out").symlink_to(away)
    (here / "same.yaml").symlink_to(here / "w.yaml")
    require_apart(here / "w.yaml", model, here)
    require_apart(here / ".." / "away" / "w.yaml", model, here)
    require_apart(away / "w.yaml", model, here)
    for file, why in (
        (model / "w.yaml", "the model's own directory"),
        (here / "into.yaml", "the model's own directory"),
        (here / "out" / "w.yaml", "leads out of the working directory"),
        (here / "same.yaml", "symbolic link"),
        (here / "none.yaml", "no file"),
    ):
        with pytest.raises(UsageError, match=why):
            require_apart(file, model, here)
