"""The SARIF file that `codeql database analyze` writes: read strictly, for one that is not as expected tells nothing.

What it holds of the analysed code is untrusted. Read are ids of rules, tags, the names that we gave, and line numbers.
Source: GitHub's reference "CodeQL CLI SARIF output"; the diagnostics that name the extracted files are in every suite
of the standard query packs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quantguard.verify.detectors.interface import DetectorError

_MAX_BYTES: Final = 256 * 1024 * 1024
_EXTRACTED: Final = "py/diagnostics/successfully-extracted-files"
_HARMLESS: Final = frozenset({"none", "note"})  # levels: of notifications that a file was read, of mere advice
_CWE: Final = re.compile(r"external/cwe/cwe-(\d{1,6})")
_RULE: Final = re.compile(r"[\w./-]{1,200}")


@dataclass(frozen=True, slots=True)
class Found:
    """One place that a rule points at."""

    file: str  # as it is called below the source root
    rule: str
    cwe: int  # the first that the rule names; 0 where it names none
    line: int  # the last of the place, from 1


@dataclass(frozen=True, slots=True)
class Analysis:
    read: frozenset[str]  # files that CodeQL could read whole
    found: tuple[Found, ...]


def read_sarif(path: Path) -> Analysis:
    """What CodeQL found, and in which files it looked.

    Raises:
        DetectorError: the file is absent, too large, no SARIF, of a run that failed, or does not say what was read.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DetectorError(f"codeql wrote more than {_MAX_BYTES} bytes of results")
        document = json.loads(path.read_bytes())
        (run,) = document["runs"]
        return Analysis(_read(run), tuple(_found(run)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise DetectorError(f"codeql's results cannot be read: {type(error).__name__}: {str(error)[:200]}") from error


def _read(run: Mapping[str, Any]) -> frozenset[str]:
    """The files that were extracted, less those of which something is reported: a file with a syntax error is both."""
    extracted: set[str] = set()
    broken: set[str] = set()
    for invocation in run["invocations"]:
        if invocation["executionSuccessful"] is not True:
            raise ValueError("the analysis did not succeed")
        for notification in invocation["toolExecutionNotifications"]:
            harmless = notification.get("level", "warning") in _HARMLESS
            files = {_file(location) for location in notification.get("locations", ())}
            if harmless and notification["descriptor"]["id"] == _EXTRACTED:
                extracted |= files
            elif not harmless:
                broken |= files
    if not extracted:
        raise ValueError(f"nothing is said by {_EXTRACTED}: use the standard query packs")
    return frozenset(extracted - broken)


def _found(run: Mapping[str, Any]) -> Iterator[Found]:
    rules = _rules(run)
    for result in run["results"]:
        rule = result.get("ruleId") or result["rule"]["id"]
        cwe, level = rules[rule]
        if result.get("level", level) in _HARMLESS:
            continue
        for location in result["locations"]:
            region = location["physicalLocation"]["region"]
            line = region.get("endLine", region["startLine"])
            if not isinstance(line, int) or line < 1:
                raise ValueError(f"no line is {line!r}")
            yield Found(_file(location), rule, cwe, line)


def _rules(run: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """(CWE, default level) of each rule: those of the tool itself and of its query packs."""
    tool = run["tool"]
    rules: dict[str, tuple[int, str]] = {}
    for component in (tool["driver"], *tool.get("extensions", ())):
        for rule in component.get("rules", ()):
            if not _RULE.fullmatch(rule["id"]):
                raise ValueError(f"no rule is called {rule['id']!r}")
            tags = (_CWE.fullmatch(tag) for tag in rule.get("properties", {}).get("tags", ()))
            cwe = next((int(tag[1]) for tag in tags if tag), 0)
            rules[rule["id"]] = cwe, rule.get("defaultConfiguration", {}).get("level", "warning")
    return rules


def _file(location: Mapping[str, Any]) -> str:
    return str(location["physicalLocation"]["artifactLocation"]["uri"])
