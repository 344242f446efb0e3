"""in-toto Statements, version 1: what is said (a predicate) of what (subjects, by digest)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from quantguard.core.errors import EvidenceError
from quantguard.evidence.records import canonical_json

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"  # of the DSSE envelope that holds one
STATEMENT: Final = "https://in-toto.io/Statement/v1"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_REMEDY: Final = "gate the version again"


@dataclass(frozen=True, slots=True)
class About:
    """A subject: in-toto's word is ours for something else."""

    name: str
    sha256: str  # 64 hexadecimal digits


@dataclass(frozen=True, slots=True)
class Statement:
    about: tuple[About, ...]  # at least one
    predicate_type: str  # a URI
    predicate: Mapping[str, Any]  # JSON types only

    def to_json(self) -> bytes:
        """Canonical JSON: what is signed."""
        subject = [{"digest": {"sha256": one.sha256}, "name": one.name} for one in self.about]
        document = {"_type": STATEMENT, "subject": subject, "predicateType": self.predicate_type}
        return canonical_json({**document, "predicate": dict(self.predicate)})


def read_statement(data: bytes, *, predicate_type: str) -> Statement:
    """A statement from JSON.

    Raises:
        EvidenceError: it is none, or says something of another type.
    """
    try:
        document = json.loads(data)
        kind, said = document["_type"], document["predicateType"]
        about = tuple(About(one["name"], one["digest"]["sha256"]) for one in document["subject"])
        predicate = document["predicate"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EvidenceError(f"not an in-toto statement: {type(error).__name__}", remedy=_REMEDY) from error
    if kind != STATEMENT or said != predicate_type:
        raise EvidenceError(f"a statement of type {str(said)[:100]!r}, expected {predicate_type!r}", remedy=_REMEDY)
    named = all(isinstance(one.name, str) and isinstance(one.sha256, str) for one in about)
    if not about or not named or not all(_SHA256.fullmatch(one.sha256) for one in about):
        raise EvidenceError("a statement about nothing that has a SHA-256", remedy=_REMEDY)
    if not isinstance(predicate, dict):
        raise EvidenceError("a statement that says nothing", remedy=_REMEDY)
    return Statement(about, said, predicate)
