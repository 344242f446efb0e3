"""What the registry's plugin asks before a protected name moves. This module knows neither MLflow nor policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from quantguard.core.model import VersionIdentity
from quantguard.evidence.records import canonical_json, digest_of
from quantguard.registry.names import folded

EVIDENCE: Final = "quantguard.attestation."  # tags that hold signed evidence begin so
# A version was admitted under this name; only the plugin writes these tags, and nobody's copy of them is kept.
ADMITTED: Final = "quantguard.admitted."
# The version that a promoter expects to replace (`none` for nothing); used up by the move.
EXPECTS: Final = "quantguard.expects."


@dataclass(frozen=True, slots=True)
class Protection:
    aliases: tuple[str, ...]  # as they are to be written
    stages: tuple[str, ...]  # as MLflow writes them, e.g. Production

    def alias(self, name: str) -> str | None:
        """The protected alias that a reader takes `name` for, None where it is none."""
        if name in self.aliases:
            return name
        return next((alias for alias in self.aliases if folded(alias) == folded(name)), None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that asks for a protected name."""

    identity: VersionIdentity
    tags: Mapping[str, str]
    returning: bool  # it held this name before, by the very evidence that it has now


@dataclass(frozen=True, slots=True)
class Allowed:
    policy: str  # name and digest of the policy that admits it


@dataclass(frozen=True, slots=True)
class Denied:
    rule: str  # dotted, e.g. evidence.stale
    message: str  # what is wrong, in words
    remedy: str  # what to do next, in one sentence


class Admission(Protocol):
    """Who decides. Asked from several threads at once."""

    def protection(self) -> Protection:
        """What is protected now. Where that cannot be read any more, what it was when it could."""

    def admit(self, candidate: Candidate) -> Allowed | Denied:
        """Whether the candidate may have the name today. What cannot be told is denied; nothing is raised."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a version remembers of the day on which it was admitted under a name: one tag, written by the plugin."""

    identity: str  # sha256:HEX of what makes the version that version
    evidence: str  # sha256:HEX of the tags that held its evidence
    policy: str  # name and digest
    admitted_at: str  # ISO date and time, UTC

    def text(self) -> str:
        """As a tag holds it."""
        return canonical_json(
            {
                "admitted_at": self.admitted_at,
                "evidence": self.evidence,
                "identity": self.identity,
                "policy": self.policy,
            }
        ).decode("ascii")


def remembers(tag: str | None, identity: VersionIdentity, tags: Mapping[str, str]) -> bool:
    """Whether `tag` is the memory of this very version with the evidence that it has in `tags`."""
    if tag is None:
        return False
    try:
        memory = json.loads(tag)
    except ValueError:
        return False
    wanted = {"identity": identity_digest(identity), "evidence": evidence_digest(tags)}
    return isinstance(memory, dict) and all(memory.get(key) == value for key, value in wanted.items())


def identity_digest(identity: VersionIdentity) -> str:
    """`sha256:HEX` of name, number, source and creation time."""
    return digest_of([identity.name, identity.version, identity.source, identity.created])


def evidence_digest(tags: Mapping[str, str]) -> str:
    """`sha256:HEX` of the tags that hold evidence."""
    return digest_of({key: value for key, value in tags.items() if key.startswith(EVIDENCE)})
