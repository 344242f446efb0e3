"""The pictures of one layer before and after a repair."""

from __future__ import annotations

from dataclasses import replace

from quantguard.core.hardening import MovedPositions
from quantguard.core.layer import POSITION_BINS
from quantguard.core.scheme import Scheme
from quantguard.report.facts import ReportFacts
from quantguard.report.html_report import render_html
from quantguard.report.moved_svg import moved_caption
from tests.report.made import HARDENING, LAYERS, NASTY, REPAIRED, moved
from tests.report.test_html import Page

NOTHING = MovedPositions("a", Scheme.NF4, *((0,) * POSITION_BINS,) * 4)


def page(*positions: MovedPositions) -> Page:
    return Page(render_html(ReportFacts("dir", hardening=replace(HARDENING, positions=positions))))


def test_each_scheme_has_a_row_of_two_pictures_with_words_for_everything() -> None:
    shown = page(moved(), moved(Scheme.INT8))
    assert shown.tags["figure"] == shown.tags["svg"] == 2
    assert [text for tag, text in shown.texts if tag == "title"][1:] == [
        f"Positions of 8,000 weights of layers.0.weight in their cells of {grid}, before and after hardening"
        for grid in ("NF4", "INT8")
    ]
    words = [text for tag, text in shown.texts if tag == "text"]
    assert [words.count(word) for word in ("before", "after", "level", "boundary")] == [2, 2, 4, 8]
    assert shown.values("class").count("bar") == 4 * POSITION_BINS
    assert shown.values("class").count("moved") == 2 * 4  # two bins before and two after
    assert [value for value in shown.values("aria-labelledby") if "moved" in value] == [
        "moved-1-title moved-1-text",
        "moved-2-title moved-2-text",
    ]
    assert "look for tall bars at both ends" in shown.text


def test_the_caption_says_how_many_and_what_became_of_the_strips() -> None:
    assert moved_caption(moved()) == (
        "800 of 8,000 roundings changed (10.0 %). In the outermost bar at either boundary lay 22.5 % of the weights "
        "before and 12.5 % after; 3.1 % would be even. Of the 1,800 before, 800 now round to another level."
    )
    assert moved_caption(NOTHING) == "0 of 0 roundings changed (0.0 %)."


def test_both_pictures_of_a_row_have_the_same_axes() -> None:
    shown = page(moved())
    heights = [float(value) for tag, name, value in shown.attributes if (tag, name) == ("rect", "height")]
    kinds = [value for tag, name, value in shown.attributes if (tag, name) == ("rect", "class")]
    counts: list[int] = []
    for all_there, flipped in ((moved().before, moved().flipped_before), (moved().after, moved().flipped_after)):
        for count, part in zip(all_there, flipped, strict=True):
            counts += [count, part] if part else [count]
    assert len(kinds) == len(heights) == len(counts)
    assert len({round(height / count, 2) for height, count in zip(heights, counts, strict=True)}) == 1


def test_a_report_of_a_gate_shows_the_scan_s_pictures_and_these() -> None:
    shown = Page(render_html(replace(REPAIRED, layers=LAYERS)))
    headings = [text for tag, text in shown.texts if tag == "h2"]
    assert headings.index("What hardening moved") == headings.index("Layers, worst first") + 1
    assert shown.tags["svg"] == 3


def test_without_positions_there_is_no_section_and_a_flood_of_them_is_cut() -> None:
    assert "What hardening moved" not in page().text
    assert page(*(moved(layer=NASTY),) * 300).tags["svg"] == 12
    assert page(NOTHING).tags["svg"] == 1
