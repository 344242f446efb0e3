"""`quantguard.waivers/1`: a file of waivers, read as strictly as a policy and held against the policy it is for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError

from quantguard.core.errors import PolicyError, UsageError
from quantguard.core.remark import Place
from quantguard.core.waiver import Waiver
from quantguard.evidence.records import digest_bytes
from quantguard.policy.document import Document, parse_document, read_bounded
from quantguard.policy.json_schema import json_schema, schema_text
from quantguard.policy.problems import translate
from quantguard.policy.schema import Policy
from quantguard.policy.section import Keyword, Section, no_blank
from quantguard.policy.waivers import expiry, waiver_problem

MOST: Final = 1000  # waivers in a file
_ALL_FINDINGS: Final = "scan.fail_on"
_DIGEST: Final = r"^sha256:[0-9a-f]{64}$"
_RULE: Final = r"^[a-z][a-z_]*\.[A-Za-z0-9][A-Za-z0-9._/-]*$"
_ROOMS: Final = ("scan", "checkpoint", "attack_success", "benchmarks", "counterfactual", "perplexity", "triggers",
                 "differential", "requires", "harden")  # fmt: skip
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
_TEXT: Final = "tag:yaml.org,2002:str"


def _one_rule(value: str) -> str:
    if set(value) & set("*?[]"):
        raise ValueError(f"expected one rule, got the pattern {value[:60]!r}: write a waiver for each rule")
    if value == _ALL_FINDINGS:
        raise ValueError("expected the rule of a finding, as scan.boundary: scan.fail_on would waive whatever is found")
    room = value.partition(".")[0]
    if not re.match(_RULE, value) or "\n" in value or room not in _ROOMS:
        close = get_close_matches(room, _ROOMS, n=1)
        meant = f" (did you mean {close[0]}.{value.partition('.')[2][:60]}?)" if close and room not in _ROOMS else ""
        raise ValueError(f"expected a rule as a report names it, as scan.boundary, got {value[:60]!r}{meant}")
    return value


def _a_day(value: str) -> str:
    if not _DATE.match(value):
        raise ValueError(f"expected a date as 2027-01-31, the last day on which it is in force, got {value[:40]!r}")
    try:
        date.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"expected a date as 2027-01-31, got {value!r}, which no calendar has") from error
    return value


def _one_line(value: str) -> str:
    if not no_blank(value).isprintable():
        raise ValueError("expected one line of plain text")
    return value


class WaiverEntry(Section):
    """One waiver as it is written."""

    rule: Annotated[
        str, Field(min_length=1, max_length=200, json_schema_extra={"pattern": _RULE}), AfterValidator(_one_rule)
    ]
    model: Annotated[str, Field(pattern=_DIGEST)]  # the model digest of the only bytes that it is for
    scheme: Literal["full", "int8", "fp4", "nf4", "fp4-double", "nf4-double", "none"]  # none: about no scheme
    reason: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line)]
    approver: Annotated[Keyword, AfterValidator(_one_line)]
    expires: Annotated[str, Field(json_schema_extra={"format": "date"}), AfterValidator(_a_day)]  # the last day, in UTC

    def waiver(self) -> Waiver:
        return Waiver(self.rule, self.model, self.scheme, self.reason, self.approver, self.expires)


class WaiversFile(Section):
    schema_: Literal["quantguard.waivers/1"] = Field(alias="schema")
    waivers: Annotated[tuple[WaiverEntry, ...], Field(max_length=MOST)]


@dataclass(frozen=True, slots=True)
class LoadedWaivers:
    path: Path
    data: bytes  # of the file, as it was read
    digest: str  # sha256:HEX of `data`
    waivers: tuple[Waiver, ...]  # in the order of the file
    places: tuple[Place, ...]  # where each begins


def load_waivers(path: Path, policy: Policy, today: date) -> LoadedWaivers:
    """Read a file of waivers that `policy` is to accept on `today`. One that has expired is accepted.

    Raises:
        PolicyError: the first problem in the file, with line, column, key and what was expected.
    """
    read = parse_waivers(path, read_bounded(path), policy, today)
    if isinstance(read, LoadedWaivers):
        return read
    raise read[0]


def parse_waivers(
    path: Path, data: bytes, policy: Policy | None, today: date
) -> LoadedWaivers | tuple[PolicyError, ...]:
    """The waivers that `data` is, or everything wrong with it in the order of the file. `path` is for the errors.

    `policy=None` leaves out what a policy says of waivers.
    """
    try:
        document = parse_document(path, data)
        _dates_as_text(document)
        file = WaiversFile.model_validate_json(json.dumps(document.values()))
    except PolicyError as error:
        return (error,)
    except ValidationError as error:
        return tuple(translate(document, error, WaiversFile))
    waivers = tuple(entry.waiver() for entry in file.waivers)
    problems = (*_doubled(document, waivers), *_not_accepted(document, waivers, policy, today))
    if problems:
        return tuple(sorted(problems, key=lambda problem: problem.line))
    places = tuple(document.place(("waivers", index)) for index in range(len(waivers)))
    return LoadedWaivers(path, data, digest_bytes(data), waivers, places)


def require_apart(path: Path, model: Path | None, here: Path) -> None:
    """Refuse a file that somebody may have put there who may not: whoever makes a model waives nothing about it.

    `model` is the model's directory, None where it is in a registry; `here` is the working directory.

    Raises:
        UsageError: no regular file; in the model's directory; in the working directory by a link that leads out of it.
    """
    remedy = "keep waivers in the repository of the policy, as a plain file"
    if not path.is_file():
        raise UsageError("these waivers are no file", path=path, remedy="check the path, or leave --waivers out")
    real, named = path.resolve(), Path(os.path.normpath(here / path))
    if model is not None and real.is_relative_to(model.resolve()):
        raise UsageError("these waivers lie in the model's own directory", path=path, remedy=remedy)
    if named.is_relative_to(here) and not real.is_relative_to(here.resolve()):
        raise UsageError("a symbolic link leads out of the working directory", path=path, remedy=remedy)
    if path.is_symlink():
        raise UsageError("these waivers are a symbolic link", path=path, remedy=remedy)


def _dates_as_text(document: Document) -> None:
    """YAML reads 2027-01-31 as a point in time; here it is a day, quoted or not."""
    listed = document.node("waivers")
    for entry in listed.value if isinstance(listed, yaml.SequenceNode) else ():
        for key, value in entry.value if isinstance(entry, yaml.MappingNode) else ():
            is_day = isinstance(value, yaml.ScalarNode) and value.tag == _TIMESTAMP and _DATE.match(value.value)
            if key.value == "expires" and is_day:
                value.tag = _TEXT


def _doubled(document: Document, waivers: tuple[Waiver, ...]) -> Iterator[PolicyError]:
    first: dict[tuple[str, str, str], int] = {}
    for index, waiver in enumerate(waivers):
        key = (waiver.rule, waiver.model_digest, waiver.scheme)
        if key in first:
            line, _ = document.spot(("waivers", first[key]))
            message = f"{waiver.rule} of these bytes under {waiver.scheme} is waived in line {line} already"
            yield document.error(("waivers", index), message, "keep one of them")
        first.setdefault(key, index)


def _not_accepted(
    document: Document, waivers: tuple[Waiver, ...], policy: Policy | None, today: date
) -> Iterator[PolicyError]:
    if policy is None:
        return
    for index, waiver in enumerate(waivers):
        if problem := waiver_problem(waiver, policy.waivers, today):
            late = (expiry(waiver) or today) > today and "lasts at most" in problem
            key = "expires" if late else "approver"
            remedy = "let it expire sooner" if late else "ask somebody who may, or change waivers.approvals"
            yield document.error(("waivers", index, key), problem, f"{remedy}; policy {policy.name}")


def waivers_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a file of waivers. What a policy says of them is checked by `load_waivers`."""
    return json_schema(WaiversFile, "urn:quantguard.waivers:1")


def waivers_schema_text() -> str:
    """The JSON Schema as it is checked in at `policies/waivers.schema.json`."""
    return schema_text(waivers_schema())
