"""The HTML report in a real browser: it is drawn, it is readable in the dark, and the browser has nothing to say."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from quantguard.report.facts import ReportFacts
from quantguard.report.html_report import render_html
from quantguard.report.text import visible
from tests.needs import absent
from tests.report.made import BOUNDARY, HARDENING, LAYERS, NASTY, hostile, moved

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--headless",
    "--no-sandbox",  # tests may run as root; the page is our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--window-size=1100,2000",
)
SCANNED = ReportFacts("dir", "sha256:aa", findings=(BOUNDARY,), layers=LAYERS)
Browse = Callable[..., str]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """`browse(page, *switches)`: what Chromium prints of a page, after it found nothing to complain of in it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        absent("Chromium", "chromium", "QUANTGUARD_NEEDS_BROWSER")

    def call(page: str, *switches: str, complaints: bool = False) -> str:
        file = tmp_path / "page.html"
        file.write_text(page, encoding="utf-8")
        command = [browser, *SWITCHES, f"--user-data-dir={tmp_path / 'profile'}", *switches, file.as_uri()]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode == 0, ran.stderr
        assert (":CONSOLE" in ran.stderr) is complaints, ran.stderr
        return ran.stdout

    return call


def photographed(browse: Browse, page: str, to: Path, *switches: str) -> Image.Image:
    browse(page, f"--screenshot={to}", *switches)
    with Image.open(to) as picture:
        return picture.convert("RGB")


def spread(picture: Image.Image) -> float:
    """Variance of the brightness, 0 of an empty page."""
    return float(ImageStat.Stat(picture.convert("L")).var[0])


def test_a_report_is_drawn_with_its_pile_in_a_colour_of_its_own(browse: Browse, tmp_path: Path) -> None:
    picture = photographed(browse, render_html(SCANNED), tmp_path / "light.png")
    assert picture.size == (1100, 2000)
    assert spread(picture) > 100
    assert picture.getpixel((5, 5)) == (255, 255, 255)
    colours = {colour: count for count, colour in picture.getcolors(1_000_000) or ()}
    assert colours[(0xC8, 0x37, 0x2D)] > 500  # the bars of the pile
    assert colours[(0xA9, 0xBC, 0xD8)] > 5000  # all others


def test_before_and_after_stand_side_by_side_on_the_same_axes(browse: Browse, tmp_path: Path) -> None:
    facts = ReportFacts("dir", hardening=replace(HARDENING, positions=(moved(),)))
    picture = photographed(browse, render_html(facts), tmp_path / "moved.png")
    all_weights, changed = (0xA9, 0xBC, 0xD8), (0x24, 0x57, 0xA6)
    legend = highest(picture, changed)
    between = 586  # the two
    edges = ((0, between), (between, picture.width))
    panels = [picture.crop((left, legend + 30, right, picture.height)) for left, right in edges]
    before, after = ({colour: highest(panel, colour) for colour in (all_weights, changed)} for panel in panels)
    assert before[changed] == after[changed]  # 400 at a boundary, 400 beside it
    assert before[all_weights] < after[all_weights]  # 900, and then 500: y grows downwards


def highest(picture: Image.Image, colour: tuple[int, int, int]) -> int:
    """The first row in which a colour is."""
    rows = (picture.crop((0, y, picture.width, y + 1)) for y in range(picture.height))
    return next(y for y, row in enumerate(rows) if colour in {found for _, found in row.getcolors() or ()})


def test_in_the_dark_a_report_is_dark(browse: Browse, tmp_path: Path) -> None:
    picture = photographed(browse, render_html(SCANNED), tmp_path / "dark.png", "--force-dark-mode")
    assert picture.getpixel((5, 5)) == (0x12, 0x16, 0x1D)
    assert spread(picture) > 100


@pytest.mark.parametrize("facts", [SCANNED, hostile()], ids=["scanned", "hostile"])
def test_a_browser_reads_what_was_meant_and_has_nothing_to_complain_of(browse: Browse, facts: ReportFacts) -> None:
    read = browse(render_html(facts), "--dump-dom")
    assert "What the rules mean" in read
    moved = () if facts.hardening is None else facts.hardening.positions[:12]
    assert read.count("</svg>") == sum(layer.histogram is not None for layer in facts.layers[:12]) + len(moved)
    assert "<img" not in read
    assert "<script" not in read


def test_the_policy_of_the_page_holds_if_the_escaping_ever_fails(browse: Browse) -> None:
    """And a complaint of the browser is seen by these tests."""
    page = render_html(SCANNED).replace("<main>", "<main><script>document.title = 'taken over'</script>")
    assert "<title>taken over" not in browse(page, "--dump-dom", complaints=True)


def test_a_hostile_name_is_the_title_of_its_page(browse: Browse) -> None:
    read = browse(render_html(ReportFacts(NASTY)), "--dump-dom")
    shown = visible(NASTY).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<title>QuantGuard: {shown}</title>" in read
