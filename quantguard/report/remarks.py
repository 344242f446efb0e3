"""What a report has to say at the lines of a policy: what annotations and code scanning show.

    promoted as it is       one notice
    not over                an error that says so
    hardened and promoted   that notice, and a warning for each rule that kept the original back
    blocked                 an error for each violated rule, a warning for each unmeasured one
    waived                  a notice at the rule, beside the above; a waiver that has expired is an error, an unused one
                            a warning, at their own lines
    held                    an error for each unmeasured rule: a job that could not tell is not green

What the scan found is told by the rule of the policy that it breaks. Only a report without a verdict has a remark for
each finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from quantguard.core.finding import Finding, Severity
from quantguard.core.remark import Level, Place, Remark
from quantguard.core.scheme import FULL_PRECISION, Scheme
from quantguard.core.verdict import Decision, GateOutcome, Outcome, Reason, Subject, Verdict
from quantguard.report.facts import ReportFacts
from quantguard.report.summary import grid_text, outcome_text, worst_first
from quantguard.report.text import visible
from quantguard.report.waived import ELSEWHERE, waived_remarks, waiver_remarks

VERDICT: Final = "gate.verdict"  # the rule of a remark about the verdict itself
_HARDEN_RULE = "harden.mode"
_SENTENCE = 1000  # characters
_SCHEMES = frozenset({FULL_PRECISION, *(scheme.value for scheme in Scheme)})


def remarks(facts: ReportFacts) -> tuple[Remark, ...]:
    """The remarks of a report. Where it has a verdict other than PROMOTE, one of them at least is an error."""
    if facts.outcome is None:
        return tuple(finding_remark(facts.model, finding) for finding in worst_first(facts.findings or ()))
    outcome = facts.outcome
    places = dict(facts.policy.anchors) if facts.policy is not None else {}
    told = tuple(
        _reason(facts, decision, reason, places)
        for decision in (outcome.original, outcome.hardened)
        if decision is not None
        for reason in decision.failures()
        if not _as_asked(reason, facts)
    )
    return (*told, *waiver_remarks(facts), *waived_remarks(facts, places), *_verdict(facts, outcome, told))


def suppressed(facts: ReportFacts) -> Mapping[Remark, str]:
    """Of the remarks of a report, those about what a waiver covers, each with who allowed it and why."""
    return waived_remarks(facts, dict(facts.policy.anchors) if facts.policy is not None else {})


def is_promotion(remark: Remark) -> bool:
    """Whether it says that something was promoted, or is no news: nothing for anybody to act on."""
    return remark.rule == ELSEWHERE or (remark.rule == VERDICT and remark.level is Level.NOTICE)


def _as_asked(reason: Reason, facts: ReportFacts) -> bool:
    """Where a policy hardens always, that the original is not the one promoted is no news."""
    return reason.rule == _HARDEN_RULE and facts.promoted is Subject.HARDENED


def _reason(facts: ReportFacts, decision: Decision, reason: Reason, places: Mapping[str, Place]) -> Remark:
    subject = decision.subject.value
    instead = ", not promoted" if facts.promoted is not None else ""
    return Remark(
        rule=reason.rule,
        level=_level(facts, decision, reason),
        message=f"{visible(facts.model)}, {subject}{instead}: {visible(reason.sentence(), _SENTENCE)}",
        place=places.get(reason.rule),
        # A tensor's name is left out: the worst one changes from run to run, and the rule stays broken.
        subject=f"{subject} {reason.where}" if reason.where in _SCHEMES else subject,
    )


def _level(facts: ReportFacts, decision: Decision, reason: Reason) -> Level:
    if facts.promoted is not None:
        return Level.WARNING
    violated = any(other.outcome is Outcome.VIOLATED for other in decision.reasons)
    # Where nothing is violated, what could not be measured is what holds it back, or blocks it.
    kept_back = reason.outcome is Outcome.VIOLATED or decision.verdict is Verdict.HOLD or not violated
    return Level.ERROR if kept_back else Level.WARNING


def _verdict(facts: ReportFacts, outcome: GateOutcome, told: Iterable[Remark]) -> Iterable[Remark]:
    outcome_said = outcome_text(outcome, registered=facts.registered)
    said = visible(facts.unfinished, _SENTENCE) if facts.unfinished else outcome_said
    verdict = facts.verdict.value if facts.verdict is not None else "no verdict"
    message = f"{visible(facts.model)}: {verdict}. {said}"
    if facts.promoted is not None:
        yield Remark(VERDICT, Level.NOTICE, message)
    elif facts.unfinished or not any(remark.level is Level.ERROR for remark in told):
        yield Remark(VERDICT, Level.ERROR, message)


def finding_remark(model: str, finding: Finding) -> Remark:
    """A finding as a report without a verdict tells it."""
    if finding.severity.at_least(Severity.HIGH):
        level = Level.ERROR
    else:
        level = Level.WARNING if finding.severity is Severity.MEDIUM else Level.NOTICE
    message = f"{visible(model)}: {visible(finding.message, _SENTENCE)}"
    return Remark(finding.rule, level, message, subject=f"{finding.where} {grid_text(finding) or FULL_PRECISION}")
