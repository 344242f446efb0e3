"""What every format tells of waivers. Those that are not in force come first: nobody may take them for a pass.

Reasons and names of approvers are text from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, assert_never

from junitparser import Failure, Skipped, TestCase

from quantguard.core.remark import Level, Place, Remark
from quantguard.core.verdict import Decision, Reason, Subject, Verdict
from quantguard.core.waiver import AppliedWaiver, Waiver, WaiverState
from quantguard.report.facts import ReportFacts
from quantguard.report.markup import NOTHING, Html, element, join
from quantguard.report.text import code_span, visible

EXPIRED: Final = "waiver.expired"
REFUSED: Final = "waiver.refused"
UNUSED: Final = "waiver.unused"
ELSEWHERE: Final = "waiver.elsewhere"
_ORDER: Final = (WaiverState.EXPIRED, WaiverState.REFUSED, WaiverState.UNUSED, WaiverState.IN_FORCE)
_MOST: Final = 50  # entries of a list; the JSON report holds all of them
_SENTENCE: Final = 400  # characters
_WHY: Final = 200  # characters of a reason in a sentence


def applied(facts: ReportFacts) -> tuple[tuple[Subject, AppliedWaiver], ...]:
    """What became of every waiver for these bytes, those that are not in force first."""
    found = [(d.subject, waiver) for d in decisions(facts) for waiver in d.waivers]
    return tuple(sorted(found, key=lambda pair: (_ORDER.index(pair[1].state), pair[1].days_left)))


def decisions(facts: ReportFacts) -> tuple[Decision, ...]:
    if facts.outcome is None:
        return ()
    return tuple(d for d in (facts.outcome.original, facts.outcome.hardened) if d is not None)


def sentence(subject: Subject, told: AppliedWaiver) -> str:
    """One line about one waiver. Untrusted text."""
    waiver = told.waiver
    why = waiver.reason if len(waiver.reason) <= _WHY else waiver.reason[: _WHY - 3] + "..."
    what = f"{waiver.rule} ({waiver.scheme}) of the {subject.value}, approved by {waiver.approver}: {why}"
    match told.state:
        case WaiverState.IN_FORCE:
            return f"in force, {left(told)}: {what}"
        case WaiverState.EXPIRED:
            return f"EXPIRED {_days(-told.days_left)} ago, on {waiver.expires}, and covers nothing: {what}"
        case WaiverState.UNUSED:
            return f"unused, {left(told)}, {told.note}: {what}"
        case WaiverState.REFUSED:
            return f"REFUSED by the policy, {told.note}, and covers nothing: {what}"
        case _:
            assert_never(told.state)


def left(told: AppliedWaiver) -> str:
    """`34 days left (until 2026-12-31)`."""
    return f"{_days(told.days_left)} left (until {told.waiver.expires})"


def _days(number: int) -> str:
    return f"{number} day{'' if number == 1 else 's'}"


def elsewhere(facts: ReportFacts) -> str:
    """That the file has waivers for other bytes too, as a sentence; empty where it has none."""
    if facts.waivers is None or facts.outcome is None:
        return ""
    other = len(facts.waivers.anchors) - len(applied(facts))
    return f"{other} of the waivers in {facts.waivers.path} are for other bytes than these" if other > 0 else ""


def lines(facts: ReportFacts) -> tuple[str, ...]:
    """Everything that there is to tell of waivers, a line each, the loud ones first. Untrusted text."""
    told = [sentence(subject, waiver) for subject, waiver in applied(facts)]
    return (*told, *([elsewhere(facts)] if elsewhere(facts) else ()))


def with_waivers(decision: Decision) -> str:
    """`, by 2 waivers until 2026-12-31`: what a sentence about a verdict must not leave out; empty without them."""
    used = [told.waiver for told in decision.waivers if told.state is WaiverState.IN_FORCE]
    if not used:
        return ""
    return f", by {len(used)} waiver{'' if len(used) == 1 else 's'} until {min(w.expires for w in used)}"


def markdown_sections(facts: ReportFacts) -> tuple[str, ...]:
    told = lines(facts)
    if not told:
        return ()
    listed = [f"- {code_span(line, _SENTENCE)}" for line in told[:_MOST]]
    more = [f"- and {len(told) - _MOST} more, all in the JSON report"] if len(told) > _MOST else []
    return ("## Waivers\n\n" + "\n".join([*listed, *more]),)


def html_sections(facts: ReportFacts) -> Html:
    told = lines(facts)
    if not told:
        return NOTHING
    entries = (element("li", line) for line in told[:_MOST])
    more = f"and {len(told) - _MOST} more, all in the JSON report"
    rest = element("p", more, class_="more") if len(told) > _MOST else NOTHING
    return element("section", element("h2", "Waivers"), join((element("ul", *entries), rest)))


def waiver_remarks(facts: ReportFacts) -> tuple[Remark, ...]:
    """What is to be done about waivers, at their lines; and that there are others, which may be a digest misspelt."""
    places = dict(facts.waivers.anchors) if facts.waivers is not None else {}
    told = [remark for subject, waiver in applied(facts) for remark in _remark(facts, subject, waiver, places)]
    if other := elsewhere(facts):
        told.append(Remark(ELSEWHERE, Level.NOTICE, f"{visible(facts.model)}: {visible(other, _SENTENCE)}"))
    return tuple(told)


def _remark(
    facts: ReportFacts, subject: Subject, told: AppliedWaiver, places: Mapping[Waiver, Place]
) -> Iterable[Remark]:
    rules = {
        WaiverState.EXPIRED: (EXPIRED, Level.ERROR),
        WaiverState.REFUSED: (REFUSED, Level.ERROR),
        WaiverState.UNUSED: (UNUSED, Level.WARNING),
    }
    if told.state in rules:  # one in force is told with what it covers
        rule, level = rules[told.state]
        message = f"{visible(facts.model)}: a waiver is {visible(sentence(subject, told), 1000)}"
        about = f"{told.waiver.rule} {told.waiver.scheme} {told.waiver.model_digest}"
        yield Remark(rule, level, message, places.get(told.waiver), about)


def waived_remarks(facts: ReportFacts, rules: Mapping[str, Place]) -> Mapping[Remark, str]:
    """Everything that a waiver covers, at the line of the policy's rule, with the justification of the suppression."""
    return {
        Remark(
            reason.rule,
            Level.NOTICE,
            f"{visible(facts.model)}, {decision.subject.value}, waived, {visible(left(told))}: "
            f"{visible(reason.sentence(), 1000)}",
            rules.get(reason.rule),
            f"{decision.subject.value} {' '.join(reason.waived_as)} waived",
        ): f"approved by {told.waiver.approver} until {told.waiver.expires}: {told.waiver.reason}"
        for decision in decisions(facts)
        for reason in decision.waived()
        for told in (covering(decision, reason),)
        if told is not None
    }


def covering(decision: Decision, reason: Reason) -> AppliedWaiver | None:
    """The waiver that covers a reason that is waived."""
    in_force = (told for told in decision.waivers if told.state is WaiverState.IN_FORCE)
    return next((told for told in in_force if (told.waiver.rule, told.waiver.scheme) == reason.waived_as), None)


def junit_skipped(decision: Decision, reason: Reason) -> Skipped:
    """Why the case of a waived reason is neither passed nor failed."""
    told = covering(decision, reason)
    said = f"{sentence(decision.subject, told)}; " if told is not None else ""
    return Skipped(visible(f"{said}{reason.sentence()}", 1000), "waived")


def junit_cases(facts: ReportFacts) -> list[TestCase]:
    """A case for each waiver. One that has expired fails where the model does not pass without it."""
    verdicts = {decision.subject: decision.verdict for decision in decisions(facts)}
    cases = []
    for subject, told in applied(facts):
        case = TestCase(visible(f"{told.waiver.rule} ({told.waiver.scheme})"), classname="waivers")
        said = visible(sentence(subject, told), 1000)
        if told.state in (WaiverState.IN_FORCE, WaiverState.UNUSED):
            case.system_out = said
        elif verdicts[subject] is Verdict.PROMOTE:
            case.result = [Skipped(said, told.state.value)]
        else:
            case.result = [Failure(said, told.state.value)]
        cases.append(case)
    return cases
