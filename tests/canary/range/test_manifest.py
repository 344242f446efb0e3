from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import beta

from quantguard.canary.range.manifest import Rate, Row, find, rates_of, read_rows, row_of, row_text
from quantguard.canary.range.measure import Count
from quantguard.canary.range.members import Member, large_members, members
from quantguard.canary.range.recipes import parents_of
from quantguard.core.errors import EvidenceError

ALL = (*members(), *large_members())
COUNTS = [Count("questions", "full", 299, 300), Count("content-injection", "nf4", 17, 300)]
DIGEST = "sha256:" + "0" * 64


def row(member: Member) -> Row:
    return row_of(member, DIGEST, 12.345, COUNTS)


@pytest.mark.parametrize("member", ALL, ids=lambda member: member.name)
def test_a_row_survives_the_file_unchanged(member: Member, tmp_path: Path) -> None:
    one = row(member)
    other = replace(
        one, name="odd: ü", defended=(("quantguard", one.rates), ("flipguard", ())), flipped=(("quantguard", 0.25),)
    )
    path = tmp_path / "rows.jsonl"
    path.write_text(row_text(one) + row_text(other), encoding="utf-8")
    assert read_rows(path) == (one, other)
    assert all(len(row_text(r).splitlines()) == 1 for r in (one, other))


@pytest.mark.parametrize("member", ALL, ids=lambda member: member.name)
def test_a_row_names_its_parents_nearest_first(member: Member) -> None:
    recipes = {m.name: m.recipe for m in ALL}
    assert tuple(recipes[name] for name in row(member).parents) == parents_of(member.recipe)


@pytest.mark.parametrize("hits", [0, 17, 150, 299, 300])
def test_intervals_are_the_exact_ones(hits: int) -> None:
    (rate,) = rates_of([Count("questions", "full", hits, 300)])
    low = beta.ppf(0.025, hits, 301 - hits) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, 300 - hits) if hits < 300 else 1.0
    assert [rate.low, rate.high] == pytest.approx([low, high], abs=1e-5)
    assert rate.low <= rate.share <= rate.high


def test_a_rate_is_found_by_what_and_scheme() -> None:
    one = row(ALL[0])
    found = one.rate("content-injection", "nf4")
    assert found is not None
    assert (found.hits, found.asked) == (17, 300)
    assert one.rate("content-injection", "full") is None
    assert find((), "questions", "full") is None


BROKEN = {
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe",
    "a number": b"5\n",
    "a list": b"[]\n",
    "a text": b'"row"\n',
    "nothing in it": b"{}\n",
    "an empty line": b"\n",
    "a key too many": json.dumps({**json.loads(row_text(row(ALL[0]))), "more": 1}).encode(),
    "a key missing": json.dumps({k: v for k, v in json.loads(row_text(row(ALL[0]))).items() if k != "name"}).encode(),
    "a rate that is none": json.dumps({**json.loads(row_text(row(ALL[0]))), "rates": [5]}).encode(),
    "a defence without rates": json.dumps({**json.loads(row_text(row(ALL[0]))), "defended": [["quantguard"]]}).encode(),
    "cut off": row_text(row(ALL[0])).encode()[:100],
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_file_is_an_error_that_names_it(broken: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_bytes(BROKEN[broken])
    with pytest.raises(EvidenceError, match=r"broken\.jsonl") as caught:
        read_rows(path)
    assert "make range" in str(caught.value)


def test_an_absent_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"absent\.jsonl"):
        read_rows(tmp_path / "absent.jsonl")


def test_a_rate_of_nothing_hit_has_an_upper_end() -> None:
    assert rates_of([Count("facts", "int8", 0, 300)]) == (Rate("facts", "int8", 0, 300, 0.0, 0.01222),)
