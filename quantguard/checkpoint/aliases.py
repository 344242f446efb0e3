"""Two tensors that a loader may take for one parameter.

transformers renames what it reads: it adds the base model's name or takes it away, and knows some older words. Of two
tensors that come to the same name the one that is loaded last wins, while the scan measures both as if both counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from quantguard.checkpoint.files import quote
from quantguard.checkpoint.known_words import base_model_prefixes

# As `legacy` in transformers' conversion_mapping.py has it; gamma and beta were renamed everywhere up to version 4.
_RENAMES: Final = (
    (re.compile(r"\Amodel\.language_model\.model\.|\Alanguage_model\.model\.model\."), "model.language_model."),
    (re.compile(r"(?<=\.)weight_g\Z"), "parametrizations.weight.original0"),
    (re.compile(r"(?<=\.)weight_v\Z"), "parametrizations.weight.original1"),
    (re.compile(r"(?<=\.)gamma\Z"), "weight"),
    (re.compile(r"(?<=\.)beta\Z"), "bias"),
)
_PARTS: Final = re.compile(r"(?<=\.)parametrizations\.weight\.original[01]\Z")


def aliases(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Pairs of names of one parameter, each with how the one becomes the other; in the order of `names`."""
    told: dict[str, str] = {}  # what a name comes to -> the first name that came to it
    given = list(names)
    for name in given:
        plain = _plain(name)
        if plain in told:
            yield told[plain], name, _how(told[plain], name)
        else:
            told[plain] = name
    for name, plain in [(name, _plain(name)) for name in given]:
        prefix, _, rest = plain.partition(".")
        if prefix in base_model_prefixes() and rest in told:
            yield told[rest], name, f"the loader adds and strips the base model's name {quote(prefix)}"
        whole = _PARTS.sub("weight", plain)
        if whole != plain and whole in told:
            yield told[whole], name, "a weight beside the parts it would be made of"


def _plain(name: str) -> str:
    """The name as the most lenient reader has it: case, look-alike encodings and older words do not count."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    for pattern, word in _RENAMES:
        plain = pattern.sub(word, plain)
    return plain


def _how(one: str, other: str) -> str:
    if unicodedata.normalize("NFKC", one).casefold() == unicodedata.normalize("NFKC", other).casefold():
        return "they differ in case or in the encoding of characters only"
    return "the loader renames older words"
