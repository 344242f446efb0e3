"""How the gate waits for errands: it stops, other rooms do them, and it goes on from the same measurements.

    assess                measures, leaves what is asked, raises AwaitsErrands        no outcome.json yet
    the stages it names   do what is asked, each in a process or container of its own
    assess                settles the same measurements and goes on, to the next stop or to the outcome

A run that goes on takes whatever came back, and for what did not come back says why: so it stops for each errand once,
and ends. Killed at any moment and run again, what was answered is not asked again and what was measured stays.
"""

from __future__ import annotations

from quantguard.core.errand import ErrandKind, pending
from quantguard.core.errors import QuantGuardError
from quantguard.core.measurement import Measurements, Unmeasured
from quantguard.evidence.errands import Errands
from quantguard.evidence.records import write_record
from quantguard.gate.work import Work
from quantguard.verify.settle import settle


class AwaitsErrands(QuantGuardError):  # noqa: N818  not a failure: the gate goes on once they are done
    """What was measured awaits errands of these `kinds`."""

    def __init__(self, kinds: tuple[ErrandKind, ...]) -> None:
        self.kinds = kinds
        names = [kind.value for kind in kinds]
        stages = ", then ".join(f"--stage {name}" for name in (*names, "assess"))
        super().__init__(f"awaits the {' and the '.join(names)}", remedy=f"run {stages}")


def settled(
    work: Work, name: str, measured: Measurements, inputs: str, *, reference: Measurements | None = None
) -> Measurements:
    """`measured`, which is the body of `evidence/NAME.json` made from `inputs`, with its errands' figures filled.

    Raises:
        AwaitsErrands: something is asked that was not yet, in this run.
    """
    digests = pending(measured)
    if not digests:
        return measured
    answers = {digest: work.errands.answered(digest) for digest in digests}
    awaited = work.errands.awaited()
    sent = awaited.errands if awaited is not None else ()
    new = [d for d, answer in answers.items() if isinstance(answer, Unmeasured) and d not in sent]
    if askable := [digest for digest in new if work.errands.errand(digest) is not None]:
        raise AwaitsErrands(work.errands.await_(askable).kinds)
    found = settle(measured, answers, reference=reference, confidence=work.policy.policy.confidence)
    write_record(work.evidence / f"{name}.json", name, Measurements, found, inputs=inputs)
    return found


def open_errands(errands: Errands, figure: Unmeasured) -> bool:
    """Whether a figure that is not measured may be yet, without measuring again: what it awaits can be asked."""
    return bool(figure.errand) and errands.errand(figure.errand) is not None
