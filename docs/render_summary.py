"""A Markdown report as a picture, much as a job summary looks: python docs/render_summary.py REPORT.md OUT.png.

Needs Chromium (Debian: apt-get install chromium). The picture ends before the first section that is named after the
two files, where one is: python docs/render_summary.py REPORT.md OUT.png Hardening. `docs/images/job-summary.webp` is
the report of the demo's nf4-attacked canary, cut before its harmful answers, made smaller by `pngquant 64` and stored
as WebP without loss.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt

WIDTH = 1012  # CSS pixels, of a job summary on a wide screen
SCALE = 1.5  # device pixels to one of these
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--headless",
    "--no-sandbox",  # the page is our own text, without scripts or links that are followed
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--disable-lcd-text",  # coloured edges of letters make a picture three times as large
)
STYLE = """
body { margin: 0; background: #fff; color: #1f2328; font: 16px/1.5 -apple-system, "Segoe UI", "Noto Sans", Helvetica,
  "Liberation Sans", Arial, sans-serif; }
main { margin: 24px; padding: 24px 32px 16px; border: 1px solid #d1d9e0; border-radius: 6px; }
h1, h2 { border-bottom: 1px solid #d1d9e0b3; padding-bottom: .3em; margin: 24px 0 16px; font-weight: 600;
  line-height: 1.25; }
h1 { font-size: 2em; margin-top: 0; } h2 { font-size: 1.5em; } h3 { font-size: 1.25em; margin: 24px 0 16px; }
p, ul, table, pre { margin: 0 0 16px; } ul { padding-left: 2em; } li + li { margin-top: .25em; }
code, pre { font-family: "Liberation Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace; }
code { font-size: 85%; background: #818b981f; border-radius: 6px; padding: .2em .4em; overflow-wrap: anywhere; }
h1 code { display: inline-block; }
pre { font-size: 85%; line-height: 1.45; background: #f6f8fa; border-radius: 6px; padding: 16px; }
pre code { font-size: 100%; background: none; padding: 0; white-space: pre; overflow-wrap: normal; }
table { border-collapse: collapse; } th { font-weight: 600; }
th, td { border: 1px solid #d1d9e0; padding: 6px 13px; } tr:nth-child(2n) { background: #f6f8fa; }
"""


def page(report: str) -> str:
    """The report as HTML. Markup in its text stays text."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(report)
    head = f'<meta charset="utf-8"><title>job summary</title><style>{STYLE}</style>'
    # The page tells its own height: the window of a picture has to have it.
    tell = "document.documentElement.dataset.height = document.querySelector('main').offsetHeight + 48"
    return f"<!doctype html><html><head>{head}</head><body><main>{body}</main><script>{tell}</script></body></html>"


def until(report: str, section: str) -> str:
    """What comes before the heading `section`."""
    return re.split(rf"^##+ {re.escape(section)}$", report, maxsplit=1, flags=re.MULTILINE)[0]


def browse(arguments: list[str], html: Path) -> str:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("render_summary: no Chromium here (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(prefix="profile-") as profile:
        command = [browser, *SWITCHES, f"--user-data-dir={profile}", *arguments, html.as_uri()]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def picture(report: str, out: Path) -> None:
    """Write `out`, as high as the report."""
    with tempfile.TemporaryDirectory(prefix="summary-") as folder:
        html = Path(folder) / "summary.html"
        html.write_text(page(report), encoding="utf-8")
        dumped = browse([f"--window-size={WIDTH},800", "--dump-dom"], html)
        height = re.search(r'data-height="(\d+)"', dumped)
        if height is None:
            sys.exit("render_summary: Chromium did not lay the page out")
        size = f"--window-size={WIDTH},{height[1]}"
        browse([size, f"--force-device-scale-factor={SCALE}", f"--screenshot={out.absolute()}"], html)


def main(report: str, out: str, *sections: str) -> None:
    text = Path(report).read_text(encoding="utf-8")
    for section in sections:
        text = until(text, section)
    picture(text, Path(out))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
