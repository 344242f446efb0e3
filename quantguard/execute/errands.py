"""The errands of generated programs: each is handed to a container as it lies there, and so is what comes back."""

from __future__ import annotations

import json
from typing import Final

from quantguard.core.errand import Errand, ErrandKind, ErrandOutcome
from quantguard.core.errors import EvidenceError, MachineError
from quantguard.core.progress import Progress, silent
from quantguard.evidence.errands import Errands
from quantguard.evidence.records import canonical_json, from_plain, to_plain
from quantguard.execute.container import find_engine, run_container

IMAGE_VARIABLE: Final = "QUANTGUARD_EXECUTOR_IMAGE"
_START_SECONDS: Final = 120.0
_AGAIN: Final = "run again, and look at the programs where it stays"
_REMEDY: Final = f"set {IMAGE_VARIABLE} to QuantGuard's own image, by digest (docs/code.md)"


def execute_errands(errands: Errands, image: str, *, progress: Progress = silent) -> tuple[str, ...]:
    """Have the programs of every open errand run; the problems that kept some from being run.

    Raises:
        EvidenceError: the directory cannot be read or written.
    """
    problems = []
    found = errands.open(ErrandKind.EXECUTE)
    for number, (digest, errand) in enumerate(found):
        progress("execute", number, len(found), errand.about)
        try:
            outcome = _outcome(digest, errand, image)
        except MachineError as error:
            outcome = ErrandOutcome(digest, (), str(error))
        if outcome.problem:
            problems.append(outcome.problem)
        errands.leave(errand, outcome)
    progress("execute", len(found), len(found))
    return tuple(dict.fromkeys(problems))


def _outcome(digest: str, errand: Errand, image: str) -> ErrandOutcome:
    if not image:
        raise MachineError(
            "generated programs are run in a sealed container only, and no image is named", remedy=_REMEDY
        )
    settings = dict(errand.settings)
    asked = {"schema": "quantguard.errand/1", "inputs": digest, "body": to_plain(Errand, errand)}
    seconds = _START_SECONDS + len(errand.items) * (float(settings["seconds"]) + 1)
    said = run_container(canonical_json(asked), image=image, engine=find_engine(), seconds=seconds)
    return read_outcome(said, digest, errand)


def read_outcome(said: bytes, digest: str, errand: Errand) -> ErrandOutcome:
    """What a container wrote, where it is an outcome of this errand.

    Raises:
        MachineError: it is not. A program may have had a hand in it.
    """
    try:
        body = json.loads(said)["body"]
        outcome = from_plain(ErrandOutcome, body)
    except (EvidenceError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise MachineError(f"what the container wrote is no outcome ({type(error).__name__})", remedy=_AGAIN) from error
    if misfit := outcome.misfit(errand, digest):
        raise MachineError(f"what the container wrote is unusable: {misfit}", remedy=_AGAIN)
    return outcome
