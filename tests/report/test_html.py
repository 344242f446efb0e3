"""The HTML report, read by a parser: whole, explained, and with nothing alive in it that came with the model."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantguard.core.finding import Finding, Severity
from quantguard.core.layer import ALL_WEIGHTS, POSITION_BINS
from quantguard.report.facts import ReportFacts
from quantguard.report.histogram_svg import scale
from quantguard.report.html_report import MOST_FIGURES, render_html
from quantguard.report.layers import caption
from quantguard.report.markup import Html, element, join
from quantguard.report.text import visible
from tests.report.made import BOUNDARY, CALM, CLEAN, LAYERS, MALICIOUS, NASTY, PILED, REPAIRED, hostile, piled

SCANNED = ReportFacts("dir", "sha256:aa", findings=(BOUNDARY,), layers=LAYERS)
VOID = {"meta", "br", "col"}
KNOWN = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "h1", "h2", "h3", "p",
    "span", "strong", "code", "a", "ul", "li", "dl", "dt", "dd", "div", "table", "thead", "tbody", "tr", "th", "td",
    "details", "summary", "figure", "figcaption", "svg", "desc", "rect", "path", "line", "text",
}  # fmt: skip
MARKUP = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><b>",
    "]]>",
    "&lt;b&gt;",
    "</title>",
    NASTY,
]


class Page(HTMLParser):
    """The elements of a page, with the texts in them; fails where they do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []  # tag, name, value
        self.texts: list[tuple[str, str]] = []  # innermost tag, text
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]

    @property
    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag != "style")


ALL = {
    "scanned": SCANNED,
    "empty": ReportFacts("dir"),
    "clean scan": ReportFacts("dir", findings=(), layers=(CALM,)),
    "clean": CLEAN,
    "repaired": replace(REPAIRED, layers=LAYERS),
    "malicious": MALICIOUS,
    "hostile": hostile(),
}


@pytest.mark.parametrize("facts", ALL.values(), ids=ALL)
def test_a_page_nests_knows_its_elements_and_needs_nothing_beside_itself(facts: ReportFacts) -> None:
    text = render_html(facts)
    page = Page(text)
    assert set(page.tags) <= KNOWN
    assert [name for _, name, _ in page.attributes if name.startswith("on") or name in {"src", "srcset", "style"}] == []
    assert all(re.fullmatch(r"#rule-[a-z_.-]+", link) for link in page.values("href"))
    assert not re.search(r"url\(|@import|expression\(", "".join(t for tag, t in page.texts if tag == "style"))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in page.values("href")} <= set(ids)
    assert {part for value in page.values("aria-labelledby") for part in value.split()} <= set(ids)


@pytest.mark.parametrize("facts", ALL.values(), ids=ALL)
def test_a_policy_in_the_page_forbids_all_but_its_own_styles(facts: ReportFacts) -> None:
    head, _, _ = render_html(facts).partition("<title>")
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    assert policy in Page(head + "</head></html>").values("content")


@pytest.mark.parametrize("text", MARKUP)
def test_markup_of_a_name_is_text(text: str) -> None:
    facts = ReportFacts(
        text,
        text,
        findings=(replace(BOUNDARY, rule=text, where=text, message=text), replace(BOUNDARY, grid=text, scheme=None)),
        layers=(replace(PILED, name=text, grid=text),),
    )
    page = Page(render_html(facts))
    assert set(page.tags) <= KNOWN
    assert page.text.count(visible(text)) >= 8
    assert "\u202e" not in page.text
    assert "\x1b" not in page.text


@given(st.text(max_size=40), st.text(max_size=40))
def test_text_and_attributes_come_back_as_they_were(text: str, value: str) -> None:
    page = Page(element("p", text, join([text]), title=value))
    assert page.attributes == [("p", "title", visible(value, 2000))]
    assert "".join(told for _, told in page.texts) == visible(text, 2000) * 2
    assert set(page.tags) == {"p"}


def test_only_markup_is_not_escaped() -> None:
    assert element("p", Html("<b></b>"), "<b>") == "<p><b></b>&lt;b&gt;</p>"
    assert element("p", "x", class_=None, aria_label="a") == '<p aria-label="a">x</p>'


def test_a_kept_histogram_is_a_picture_with_its_expectation_its_boundaries_and_a_caption() -> None:
    page = Page(render_html(SCANNED))
    assert page.tags["svg"] == page.tags["figure"] == 2  # of three layers, one of which kept none
    assert page.tags["rect"] == 2 * POSITION_BINS
    assert page.values("class").count("expected") == 2
    assert page.values("class").count("boundary") == 4
    assert page.values("class").count("bar excess") == 2  # of the pile, at either boundary; the calm layer has none
    assert {
        "lower boundary",
        "upper boundary",
        f"weights in 1 of {POSITION_BINS} parts",
        "position in the rounding cell",
    } <= {text for tag, text in page.texts if tag == "text"}
    assert ("span", caption(PILED)) in page.texts
    assert [text for tag, text in page.texts if tag == "title"][1:] == [
        f"Positions of 14,000 weights of {layer.name} in their cells of NF4" for layer in (PILED, CALM)
    ]


def test_bars_are_as_high_as_the_counts_are() -> None:
    only = ReportFacts("dir", findings=(), layers=(PILED,))
    heights = [
        float(value) for tag, name, value in Page(render_html(only)).attributes if (tag, name) == ("rect", "height")
    ]
    assert PILED.histogram is not None
    ratios = {round(height / count, 2) for height, count in zip(heights, PILED.histogram.observed, strict=True)}
    assert len(ratios) == 1


@pytest.mark.parametrize(("height", "step", "top"), [(900, 500, 1000), (1_000_000, 500_000, 1_000_000), (130, 50, 150)])
def test_the_axis_has_round_numbers(height: int, step: float, top: float) -> None:
    assert scale(piled(height)) == (step, top)


def test_a_page_explains_each_of_its_rules_once_and_links_to_it() -> None:
    pickle = Finding("checkpoint.pickle", Severity.CRITICAL, "x.bin", "is named *.bin")
    page = Page(render_html(replace(SCANNED, findings=(BOUNDARY, BOUNDARY, pickle))))
    assert [value for value in page.values("id") if value.startswith("rule-")] == [
        "rule-scan.boundary",
        "rule-checkpoint.pickle",
    ]
    assert page.values("href").count("#rule-scan.boundary") == 2
    for heading in ("What it means", "Source", "False positives", "What to do"):
        assert page.texts.count(("strong", heading)) == 2
    assert "arXiv 2405.18137" in page.text


def test_all_weights_together_are_no_layer() -> None:
    together = replace(PILED, name=ALL_WEIGHTS)
    page = Page(render_html(replace(SCANNED, layers=(*LAYERS, together))))
    tiles = [text for tag, text in page.texts if tag == "strong"][:4]
    assert tiles == ["1", "critical", "3", "1"]


def test_the_worst_finding_comes_first_and_every_table_has_a_head() -> None:
    low = Finding("checkpoint.requirements", Severity.INFO, "requirements.txt", "lists packages")
    page = Page(render_html(replace(SCANNED, findings=(low, BOUNDARY))))
    assert page.text.index("weights pile up") < page.text.index("lists packages")
    assert page.tags["thead"] == page.tags["table"]
    assert set(page.values("scope")) == {"col"}


def test_a_gated_model_shows_its_verdict_why_and_its_rates() -> None:
    page = Page(render_html(replace(REPAIRED, layers=LAYERS)))
    assert ("span", "PROMOTE") in page.texts
    for told in ("97 of 100, 97.0 % [91.5 %, 99.4 %]", "lost 3, gained 1 of 200", "original: BLOCK", "sha256:pp"):
        assert told in page.text, told
    assert "rule-attack_success.any.max_upper_bound" in page.values("id")
    unfinished = Page(render_html(replace(CLEAN, unfinished="the registry did not answer")))
    assert ("span", "HOLD") in unfinished.texts
    assert ("span", "PROMOTE") not in unfinished.texts


def test_long_lists_are_cut_and_say_so() -> None:
    facts = replace(SCANNED, findings=(BOUNDARY,) * 5000, layers=(PILED,) * 5000)
    text = render_html(facts)
    page = Page(text)
    assert len(text) < 1_000_000
    assert page.tags["figure"] == MOST_FIGURES
    assert page.tags["details"] == 2
    assert {"and 4990 more", "and 4800 more, all in the JSON report", "and 4700 more, all in the JSON report"} <= {
        told for _, told in page.texts
    }
