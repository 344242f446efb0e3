"""The report for programs: versioned JSON with everything in it, and its schema."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from quantguard.core.verdict import Subject, Verdict
from quantguard.evidence.records import to_plain
from quantguard.report.facts import ReportFacts

SCHEMA: Final = "quantguard.report/1"


@dataclass(frozen=True, slots=True)
class ReportDocument:
    """What the file holds. `verdict` and `promoted` follow from `facts` and stand first for shell scripts."""

    schema: Literal["quantguard.report/1"]
    verdict: Verdict | None  # None: nothing was decided
    promoted: Subject | None
    facts: ReportFacts


def render_json(facts: ReportFacts) -> str:
    """The report as indented ASCII JSON with sorted keys. A number that is not finite is null."""
    document = ReportDocument(SCHEMA, facts.verdict, facts.promoted, facts)
    plain = _finite(to_plain(ReportDocument, document))
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def report_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the report, made from the types: every key is always present, no other ever is."""
    body = _closed(TypeAdapter(ReportDocument).json_schema(mode="serialization"))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:quantguard.report:1", **body}


def report_schema_text() -> str:
    """The JSON Schema as it is checked in beside this file."""
    return json.dumps(report_schema(), indent=2, sort_keys=True, ensure_ascii=True) + "\n"


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items() if key != "default"}
    if closed.get("type") == "number":
        closed["type"] = ["number", "null"]
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
        closed["required"] = sorted(closed["properties"])
    return closed
