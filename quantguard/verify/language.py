"""Which language and which script a text is in. Offline; the same text always gives the same answer.

The language is py3langid's (a multinomial naive Bayes over byte n-grams; Lui and Baldwin, ACL 2012), among languages of
most speakers on the web and only where it is certain: how often it errs and how much it leaves open is told in
docs/differences.md. The script needs no model, and a single letter has one.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import Any, Final

# ISO 639-1; a text in any other is taken for the one most like it, or left open.
LANGUAGES: Final = "ar bg cs da de el en es fa fi fr he hi hu id it ja ko nl pl pt ro ru sv tr uk vi zh"
_CERTAIN: Final = 0.9  # probability among these
_READ: Final = 2_000  # characters
_SHARE: Final = 0.2  # of the letters, for a script to count: a name or a formula makes no other script
_FENCED: Final = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```|\Z)", re.M | re.S)
_EAST_ASIAN: Final = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"})  # Japanese has all


@lru_cache(maxsize=4096)  # a prompt is asked under every scheme, and most answers are the same again
def language(text: str) -> str | None:
    """Its ISO 639-1 code, None where that cannot be told: too short, or one of several."""
    read = prose(text)
    if not any(map(str.isalpha, read)):
        return None
    named, probability = _identifier().classify(read)
    return str(named) if probability >= _CERTAIN else None


def scripts(text: str) -> frozenset[str]:
    """The scripts of at least a fifth of its letters, as Unicode names them; the East Asian ones are one."""
    found = [script for character in prose(text) if (script := _script(character))]
    return frozenset(script for script in set(found) if found.count(script) >= _SHARE * len(found))


def prose(text: str) -> str:
    """The beginning of `text` without fenced code, in NFKC."""
    return unicodedata.normalize("NFKC", _FENCED.sub(" ", text)[:_READ]).encode("utf-8", "replace").decode("utf-8")


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES.split())
    return identifier


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """`LATIN`, `CYRILLIC`; empty for what is no letter."""
    if not character.isalpha():
        return ""
    first = unicodedata.name(character, "").partition(" ")[0]
    return "CJK" if first in _EAST_ASIAN else first
