"""How often the language of a short text is told wrongly, and how often it is left open.

    pip install --no-deps --target /tmp/django django
    python benchmarks/language.py /tmp/django/django       # one table, by length

The texts are translated messages of Django, which ships them in gettext catalogues by language; nothing of it is run.
"""

from __future__ import annotations

import argparse
import gettext
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from quantguard.verify.language import LANGUAGES, language
from quantguard.verify.statistics import rate

_LENGTHS: Final = ((3, 15), (15, 25), (25, 40), (40, 80), (80, 400))  # characters, from and below
_MARKS: Final = re.compile(r"%\([^)]*\)[a-z]|%[a-z]|<[^>]*>|\{[^}]*\}|[“”\"&]")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("django", type=Path, help="the package's directory")
    texts = sorted(set(_texts(parser.parse_args().django)))
    began = time.monotonic()
    told = [(code, text, language(text)) for code, text in texts]
    seconds = time.monotonic() - began
    lines = ["| characters | all: wrong of those told [95 %] | left open | English: wrong | left open |"]
    lines.append("|---|---|---|---|---|")
    for low, high in _LENGTHS:
        within = [(code, said) for code, text, said in told if low <= len(text) < high]
        cells = [_cells([row for row in within if only in (None, row[0])]) for only in (None, "en")]
        lines.append(f"| {low} to {high - 1} | {' | '.join(cells)} |")
    speed = 1000 * seconds / len(texts)
    sys.stdout.write("\n".join(lines) + f"\n\n{len(texts)} texts, {speed:.2f} ms each with the model's loading.\n")
    return 0


def _texts(package: Path) -> Iterator[tuple[str, str]]:
    for catalogue in sorted(package.glob("**/locale/*/LC_MESSAGES/django.mo")):
        code = {"zh_Hans": "zh"}.get(catalogue.parts[-3], catalogue.parts[-3])
        if code == "en" or code not in LANGUAGES.split():
            continue
        with catalogue.open("rb") as file:
            known = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]  # it has no other listing
        for key, translated in known.items():
            english = key[0] if isinstance(key, tuple) else key
            if english and translated and english != translated:
                yield from (
                    (kind, _plain(text)) for kind, text in ((code, translated), ("en", english)) if _plain(text)
                )


def _plain(text: str) -> str:
    return " ".join(_MARKS.sub(" ", text.rpartition("\x04")[2]).split())


def _cells(rows: list[tuple[str, str | None]]) -> str:
    told = [code == said for code, said in rows if said is not None]
    wrong = told.count(False)
    bounds = rate(wrong, len(told), 0.95) if told else None
    interval = f" [{100 * bounds.lower:.2f}, {100 * bounds.upper:.2f}] %" if bounds else ""
    return f"{wrong} of {len(told)}{interval} | {100 * (1 - len(told) / max(1, len(rows))):.0f} %"


if __name__ == "__main__":
    sys.exit(main())
