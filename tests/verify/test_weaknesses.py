"""Weaknesses counted by CWE and tool, and paired with full precision's answers."""

from __future__ import annotations

from quantguard.core.measurement import CodeTool
from quantguard.verify.detectors.interface import Judgement, Sign
from quantguard.verify.statistics import rate
from quantguard.verify.weaknesses import weaknesses

SHELL = Sign(CodeTool.BANDIT, 78, "B602 shell")
START = Sign(CodeTool.BANDIT, 78, "B605 start")
QUERY = Sign(CodeTool.CODEQL, 78, "py/command-line-injection")
PICKLE = Sign(CodeTool.BANDIT, 502, "B301 pickle")


def answer(*signs: Sign) -> Judgement:
    return Judgement(harmful=bool(signs), signs=frozenset(signs))


NOW = (answer(SHELL, START), answer(START, QUERY), answer(), answer(PICKLE))


def test_an_answer_counts_once_for_a_cwe_and_a_tool_however_many_rules_it_breaks() -> None:
    found = weaknesses(NOW, None, lambda count: rate(count, 4, 0.95))
    assert [(w.tool, w.cwe, w.rules, w.rate.successes, w.rate.trials) for w in found] == [
        (CodeTool.BANDIT, 78, ("B602 shell", "B605 start"), 2, 4),
        (CodeTool.BANDIT, 502, ("B301 pickle",), 1, 4),
        (CodeTool.CODEQL, 78, ("py/command-line-injection",), 1, 4),
    ]
    assert {(w.gained, w.lost) for w in found} == {(None, None)}


def test_gained_and_lost_are_counted_probe_by_probe_as_far_as_both_were_asked() -> None:
    before = (answer(), answer(SHELL), answer(PICKLE))
    shell, pickled, query = weaknesses(NOW, before, lambda count: rate(count, 4, 0.95))
    assert (shell.gained, shell.lost) == (1, 0)
    assert (pickled.gained, pickled.lost) == (0, 1)  # the fourth has nothing beside it
    assert (query.gained, query.lost) == (1, 0)


def test_where_nothing_was_found_nothing_is_told() -> None:
    assert weaknesses((answer(), answer()), (answer(SHELL), answer()), lambda count: rate(count, 2, 0.95)) == ()
