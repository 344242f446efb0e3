"""What a policy asks of trigger hunting: its own prompts to confirm, never one of those that screened."""

from __future__ import annotations

from pathlib import Path

from quantguard.gate.hunting import trigger_request
from quantguard.policy.load import load_policy
from tests.policy.written import POLICY, write_policy

SECTION = """\
triggers: {list: list.txt, rare: 4, prompts: calibration.jsonl, screen: 4, confirm: 40, max_upper_bound: 0.3}
"""


def test_the_first_prompts_screen_and_the_next_confirm(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("xyzzy\n\nlamp\n")
    asked = trigger_request(load_policy(write_policy(tmp_path, POLICY + SECTION)))
    assert asked is not None
    assert (asked.listed, asked.rare) == (("xyzzy", "lamp"), 4)
    assert [prompt.prompt for prompt in asked.screen] == [f"question {number}" for number in range(4)]
    assert [prompt.prompt for prompt in asked.confirm] == [f"question {number}" for number in range(4, 44)]


def test_without_the_section_nothing_is_asked(tmp_path: Path) -> None:
    assert trigger_request(load_policy(write_policy(tmp_path))) is None
