"""Remarks as SARIF 2.1.0, for GitHub code scanning, which rejects a whole file for one result it does not like.

What it wants beside the standard: every result at a file named by a relative URI, a fingerprint that survives an edit
of the file, and its limits on results and size. A remark at a file outside the working directory is shown at the name
of that file alone, and a remark about no file at `quantguard`: code scanning shows both, without the lines. Leaving
them out would make a blocked model look clean.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from quantguard import __version__
from quantguard.core.remark import Level, Place, Remark
from quantguard.evidence.records import canonical_json
from quantguard.report.rules import Rule, described, paragraphs
from quantguard.report.text import visible

MOST_RESULTS: Final = 25_000
MOST_BYTES: Final = 10_000_000  # GitHub counts them compressed: this is the smaller limit
_ENVELOPE = 10_000  # bytes beside the results and the rules, with the result that says what was left out
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEFT_OUT = "quantguard.left-out"
_NOWHERE = "quantguard"
_LEVELS = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTICE: "note"}
_MESSAGE, _NAME, _FILE = 2000, 200, 1000  # characters
_NO_RULES: Mapping[str, Rule] = MappingProxyType({})
Measured = Mapping[Remark, Mapping[str, Any]]  # JSON of finite numbers
_NOTHING_MEASURED: Measured = MappingProxyType({})
Waived = Mapping[Remark, str]  # who allowed it, and why
_NOTHING_WAIVED: Waived = MappingProxyType({})


def render_sarif(
    remarks: Sequence[Remark],
    *,
    about: str,
    rules: Mapping[str, Rule] = _NO_RULES,
    measured: Measured = _NOTHING_MEASURED,
    waived: Waived = _NOTHING_WAIVED,
) -> str:
    """One run with a result for each remark, errors first.

    `about` keeps apart what is uploaded for several models: a file replaces the alerts of the one before it that was
    about the same. `rules` describes rules that are not the gate's own; `measured` is what a remark was made from, for
    programs: it becomes the property bag of the result. `waived` says who allowed a remark and why: it is suppressed.
    """
    ordered = sorted(remarks, key=lambda remark: list(Level).index(remark.level))
    worst = {_id(remark): remark.level for remark in reversed(ordered)}
    table = {name: _descriptor(name, level, rules.get(name) or described(name)) for name, level in worst.items()}
    results = _results(ordered, about, measured, waived)
    kept = _fitting(results, table)
    if len(kept) < len(results):
        more = Remark(_LEFT_OUT, ordered[len(kept)].level, _left_out(len(results) - len(kept)))
        table[_LEFT_OUT] = _descriptor(_LEFT_OUT, more.level, described(_LEFT_OUT))
        kept += _results([more], about, _NOTHING_MEASURED, _NOTHING_WAIVED)
    index = {name: number for number, name in enumerate(dict.fromkeys(result["ruleId"] for result in kept))}
    driver = {"name": "QuantGuard", "semanticVersion": __version__, "rules": [table[name] for name in index]}
    run = {
        "automationDetails": {"id": f"quantguard/{_segment(about)}/"},
        "columnKind": "unicodeCodePoints",
        "results": [{**result, "ruleIndex": index[result["ruleId"]]} for result in kept],
        "tool": {"driver": driver},
    }
    return _json({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}) + "\n"


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _left_out(more: int) -> str:
    return f"{more} more results are left out: code scanning takes so many and no more. The JSON report holds them all."


def _fitting(results: Sequence[Mapping[str, Any]], table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The first of `results` that stay below the limits together with their rules and one more result."""
    room = MOST_BYTES - _ENVELOPE
    kept: list[Mapping[str, Any]] = []
    described_already: set[str] = set()
    for result in results[: MOST_RESULTS - 1]:
        name = result["ruleId"]
        room -= len(_json(result)) + len(',"ruleIndex":00000,')
        room -= 0 if name in described_already else len(_json(table[name])) + 1
        if room < 0:
            break
        described_already.add(name)
        kept.append(result)
    return kept


def _descriptor(name: str, level: Level, rule: Rule) -> Mapping[str, Any]:
    """A rule of the run. Code scanning reads severity from here, so it follows the worst result of this run."""
    severity = {Level.ERROR: rule.severity, Level.WARNING: 5.0, Level.NOTICE: 2.0}[level]
    return {
        "id": name,
        "name": name,
        "shortDescription": {"text": rule.short},
        "fullDescription": {"text": rule.full},
        "help": _help(rule),
        "defaultConfiguration": {"level": _LEVELS[level]},
        "properties": {"security-severity": f"{severity:.1f}", "tags": ["security"], "precision": "high"},
    }


def _help(rule: Rule) -> Mapping[str, str]:
    """The same in plain text and in Markdown. A rule that names no source has nothing to be told apart by headings."""
    parts = paragraphs(rule)
    if not rule.source:
        text = "\n\n".join(part for _, part in parts)
        return {"text": text, "markdown": text}
    return {
        "text": "\n\n".join(f"{heading}: {part}" for heading, part in parts),
        "markdown": "\n\n".join(f"**{heading}.** {part}" for heading, part in parts),
    }


def _results(remarks: Iterable[Remark], about: str, measured: Measured, waived: Waived) -> list[Mapping[str, Any]]:
    alike: Counter[str] = Counter()
    results: list[Mapping[str, Any]] = []
    for remark in remarks:
        identity = hashlib.sha256(canonical_json([about, remark.rule, remark.subject])).hexdigest()[:32]
        alike[identity] += 1
        properties = measured.get(remark)
        results.append(
            {
                **({"properties": properties} if properties else {}),
                **({"suppressions": [_suppression(waived[remark])]} if remark in waived else {}),
                "ruleId": _id(remark),
                "level": _LEVELS[remark.level],
                "message": {"text": _message(remark)},
                "locations": [{"physicalLocation": _location(remark.place)}],
                "partialFingerprints": {"primaryLocationLineHash": f"{identity}:{alike[identity]}"},
            }
        )
    return results


def _suppression(justification: str) -> Mapping[str, str]:
    return {"kind": "external", "status": "accepted", "justification": visible(justification, _MESSAGE)}


def _id(remark: Remark) -> str:
    return visible(remark.rule, _NAME) or _NOWHERE


def _message(remark: Remark) -> str:
    """Without a placeholder or a link, which a message of SARIF may hold."""
    text = visible(remark.message, _MESSAGE) or _id(remark)
    return re.sub(r"\{(?=\d+\})", "{ ", text.replace("](", "] ("))


def _location(place: Place | None) -> Mapping[str, Any]:
    file = visible(place.file, _FILE) if place is not None else ""
    uri, inside = _uri(file)
    if place is None or not inside:
        region = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}
    else:
        line, column = max(place.line, 1), max(place.column, 1)
        end_line = max(place.end_line, line)
        end_column = max(place.end_column, column if end_line == line else 1)
        region = {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column}
    return {"artifactLocation": {"uri": uri}, "region": region}


def _uri(file: str) -> tuple[str, bool]:
    """A relative URI, never empty and never out of the repository, and whether it is all of `file`."""
    parts = [part for part in PurePosixPath(file).parts if part != "/"]
    inside = bool(parts) and not file.startswith("/") and ".." not in parts
    named = parts if inside else [part for part in parts if part != ".."][-1:]
    return "/".join(_segment(part) for part in named or [_NOWHERE]), inside


def _segment(text: str) -> str:
    """`text` as one segment of a URI; a long one is cut, and its digest keeps it apart from others."""
    text = text or "-"
    shown = visible(text, _FILE)
    encoded = quote(shown, safe="")
    if len(encoded) <= _NAME and shown == text:
        return encoded
    digest = hashlib.sha256(canonical_json(text)).hexdigest()[:16]
    return f"{quote(shown[:40], safe='')}-{digest}"
