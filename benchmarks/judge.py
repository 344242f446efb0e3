"""How well a judged and corrected rate covers, what it costs in width, and what each kind of judge comes to.

The judges are the fake of `quantguard.judge.fake`, asked over real sockets: there is no language model in this. The
last table corrects the rules' own rate for their errors on the held-out half of the labelled answers.

    python benchmarks/judge.py [--draws 10000]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from quantguard.core.errand import pending
from quantguard.core.labelled import labelled_answers, misleading_refusals
from quantguard.core.measurement import AttackSuccess, Rate, Scenario, Unmeasured
from quantguard.core.suites import builtin_suite
from quantguard.core.wording import interval, percent, rate_text
from quantguard.evidence.errands import Errands
from quantguard.judge.fake import FakeJudge, Mode, Truth, known
from quantguard.judge.openai import Address, OpenAIJudge
from quantguard.judge.run import judge_errands
from quantguard.verify.detectors.over_refusal import over_refusal
from quantguard.verify.judged import COUNTS, corrected, settle_judged
from quantguard.verify.judging import JudgeRequest, ask_judge
from quantguard.verify.statistics import rate

ROWS = labelled_answers()
REFUSALS = sum(row.refuses for row in ROWS)
OTHERS = len(ROWS) - REFUSALS
ASKED = len(builtin_suite(Scenario.OVER_REFUSAL).prompts)
# true share of refusals, sensitivity, the same where misled, false alarms on labelled answers, and on the model's
WORLDS = (
    (0.0, 0.98, 0.95, 0.02, 0.02), (0.01, 0.98, 0.95, 0.02, 0.02), (0.1, 0.98, 0.95, 0.02, 0.02),
    (0.5, 0.98, 0.95, 0.02, 0.02), (0.01, 0.98, 0.4, 0.02, 0.02), (0.1, 0.85, 0.8, 0.15, 0.15),
    (0.1, 0.85, 0.8, 0.15, 0.02), (0.05, 0.98, 0.95, 0.15, 0.0), (0.1, 0.98, 0.95, 0.25, 0.0),
)  # fmt: skip


@cache
def counted(successes: int, trials: int) -> Rate:
    return rate(successes, trials, 1 - 0.05 / COUNTS)


def coverage(draws: int) -> Iterator[str]:
    yield f"{draws:,} draws each; {ASKED} answers; {REFUSALS} labelled refusals, also misleading, {OTHERS} others"
    yield "| true share | sees | misled | false alarms, labelled / model's | covers | upper end | if subtracted |"
    yield "|---|---|---|---|---|---|---|"
    rng = np.random.default_rng(1)
    for share, sees, misled, alarms, real in WORLDS:
        chances = (share * sees + (1 - share) * real, sees, misled, 1 - alarms)
        trials = (ASKED, REFUSALS, REFUSALS, OTHERS)
        rows = np.stack([rng.binomial(n, p, draws) for n, p in zip(trials, chances, strict=True)], axis=1)
        counts = [tuple(counted(int(k), n) for k, n in zip(row, trials, strict=True)) for row in rows]
        told = [one for four in counts if not isinstance(one := corrected(*four), Unmeasured)]
        covers = np.mean([one[1] <= share <= one[2] for one in told])
        others = np.array([subtracted(*four) for four in counts])
        upper = f"{100 * covers:.2f} % | {percent(float(np.median([one[2] for one in told])))}"
        other = f"{percent(float(np.median(others)))}, covers {100 * np.mean(others >= share):.2f} %"
        yield f"| {percent(share)} | {sees} | {misled} | {alarms} / {real} | {upper} | {other} |"


def subtracted(said: Rate, sensitivity: Rate, misled: Rate, specificity: Rate) -> float:
    """The upper end that takes the fewest false alarms on labelled answers for those on the model's."""
    alarms, seen = 1 - specificity.upper, min(sensitivity.lower, misled.lower)
    return min(1.0, max(0.0, (said.upper - alarms) / (seen - alarms)))


def judges() -> Iterator[str]:
    """10 refusals among the answers, which the rules see; what each judge makes of them."""
    answers = [f"Plain answer number {n}." for n in range(ASKED - 10)]
    answers += [f"{row}, in truth" for row in [r.answer for r in ROWS if r.refuses and r.kind == "plain"][:10]]
    truth = {answer: answer.endswith("in truth") for answer in answers}

    def refuses(answer: str) -> bool:
        return truth.get(answer, known(answer))

    yield (f"\n10 refusals in {ASKED} answers\n\n| judge | what the gate is told |\n|---|---|")
    perfect, good, weak = Truth(refuses), Truth(refuses, 0.97, 0.97), Truth(refuses, 0.8, 0.9)
    cases = (
        ("never errs", Mode.HONEST, perfect),
        ("sees 97 %, lets 97 % pass", Mode.HONEST, good),
        ("sees 80 %, lets 90 % pass", Mode.HONEST, weak),
        ("does what an answer tells it", Mode.GULLIBLE, perfect),
        ("explains itself", Mode.CHATTY, perfect),
        ("says no always", Mode.HONEST, Truth(lambda _: False)),
    )
    for name, mode, said in cases:
        with FakeJudge(mode, said) as fake, tempfile.TemporaryDirectory() as folder:
            yield (f"| {name} | {asked(fake, Errands(Path(folder)), answers)} |")


def asked(fake: FakeJudge, errands: Errands, answers: list[str]) -> str:
    attack = AttackSuccess(
        Scenario.OVER_REFUSAL, None, rate(0, len(answers), 0.95), None, "",
        judged=ask_judge(JudgeRequest("fake"), answers, "", errands.ask),
    )  # fmt: skip
    digest = pending(attack)[0]
    judge = OpenAIJudge(Address(fake.endpoint, "fake"))
    judge_errands(errands, judge, model="fake", concurrency=8)
    judge.close()
    found = settle_judged(attack, {digest: errands.answered(digest)}).judged
    if found is None or isinstance(found, Unmeasured):
        return "" if found is None else f"unmeasured: {found.reason}"
    said = f"{found.said.successes} said; corrected {percent(found.value)} {interval(found.lower, found.upper)}"
    return f"{said}; saw {found.sensitivity.successes}, misled {found.misled.successes} of {REFUSALS}"


def rules() -> Iterator[str]:
    """What the rules' own rate would be, corrected by the held-out half, where refusals that mislead are no matter."""
    held = ROWS[1::2]
    harmful = [row.harmful for row in over_refusal()([row.answer for row in held])]
    seen = sum(h for h, row in zip(harmful, held, strict=True) if row.refuses)
    passed = sum(not h for h, row in zip(harmful, held, strict=True) if not row.refuses)
    refuse = sum(row.refuses for row in held)
    yield ("\n| the rules say | corrected for their errors on the held-out half |\n|---|---|")
    for said in (0, 3, 8, 16, 60):
        found = corrected(
            counted(said, ASKED), counted(seen, refuse), counted(seen, refuse), counted(passed, len(held) - refuse)
        )
        told = found.reason if isinstance(found, Unmeasured) else f"{percent(found[0])} {interval(found[1], found[2])}"
        yield (f"| {rate_text(rate(said, ASKED, 0.95))} | {told} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000)
    for line in (*coverage(parser.parse_args().draws), *judges(), *rules()):
        print(line)  # noqa: T201
    print(f"\nquestions of one calibration: {len(ROWS) + len(misleading_refusals())}")  # noqa: T201


if __name__ == "__main__":
    main()
