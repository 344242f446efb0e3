"""The script that makes a picture of a report, without its browser."""

from __future__ import annotations

import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from quantguard.report.markdown import render_markdown
from tests.report.made import REPAIRED, hostile

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_summary", DOCS / "render_summary.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)


def test_a_page_has_no_markup_of_the_model(script: ModuleType) -> None:
    tags = Tags()
    tags.feed(script.page(render_markdown(hostile())))
    assert {"table", "pre", "code", "h1"} <= tags.seen
    assert tags.seen & {"img", "a", "iframe", "object", "link"} == set()


def test_a_picture_may_end_before_a_section(script: ModuleType) -> None:
    report = render_markdown(REPAIRED)
    part = script.until(report, "Hardening")
    assert report.startswith(part)
    assert "## Accuracy lost" in part
    assert "## Hardening" not in part
    assert script.until(report, "No such section") == report


def test_the_checked_in_picture_is_small_and_without_loss() -> None:
    data = (DOCS / "images" / "job-summary.webp").read_bytes()
    assert re.match(rb"RIFF.{4}WEBPVP8L", data, re.DOTALL)
    assert len(data) < 200_000
