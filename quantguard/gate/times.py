"""When something was measured: written once by the room that measured, and kept however often the job is run again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from quantguard.core.attestation import moment, timestamp
from quantguard.core.errors import EvidenceError
from quantguard.core.measurement import Measurements
from quantguard.core.verdict import Subject
from quantguard.evidence.records import digest_of, read_record, to_plain
from quantguard.gate.work import Work


@dataclass(frozen=True, slots=True)
class MeasuredAt:
    at: str  # as `core.attestation.timestamp`


def keep_time(work: Work, measured: Measurements, now: datetime) -> None:
    """Leave `now` as the time of these measurements, unless they have one.

    Raises:
        EvidenceError: it cannot be written.
    """
    work.step(_name(measured.subject), MeasuredAt, _inputs(measured), lambda: MeasuredAt(timestamp(now)))


def measured_at(work: Work, subject: Subject, measured: Measurements | None) -> str:
    """When they were measured.

    Raises:
        EvidenceError: the room that measured has left no time for them.
    """
    path = work.evidence / f"{_name(subject)}.json"
    found = None if measured is None else read_record(path, _name(subject), MeasuredAt, inputs=_inputs(measured))
    if found is None:
        raise EvidenceError("when this was measured is not known", path=path, remedy="run --stage assess again")
    moment(found.at)
    return found.at


def _name(subject: Subject) -> str:
    return f"measured-{subject.value}"


def _inputs(measured: Measurements) -> str:
    return digest_of(to_plain(Measurements, measured))
