"""The page about policies: every key of the schema, and examples that are true."""

from __future__ import annotations

import re
from pathlib import Path

from quantguard.core.bundled import bundled_folder
from quantguard.policy.diff import diff, diff_lines
from quantguard.policy.load import load_policy, policy_problems
from quantguard.policy.schema import Policy
from quantguard.policy.show import effective_text
from tests.policy.keys import leaves
from tests.test_house import ROOT

PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def blocks() -> dict[str, list[str]]:
    """Lines that each pasted command printed."""
    found: dict[str, list[str]] = {}
    for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL):
        command = ""
        for line in block.splitlines():
            if line.startswith("$ "):
                command = line
            else:
                found.setdefault(command, []).append(line)
    return found


def test_every_key_has_a_row() -> None:
    table = PAGE[PAGE.index("## Every key") : PAGE.index("## What a policy says")]
    for key in leaves(Policy):
        *above, last = key.replace("[]", "").split(".")
        rows = [row for row in table.splitlines() if re.search(rf"\b{last}\b", row)]
        assert any(row.startswith("| `.") or not above or any(part in row for part in above) for row in rows), key


def test_the_example_is_what_the_page_says_of_it(tmp_path: Path) -> None:
    assert EXAMPLE is not None
    mine = tmp_path / "mine.yaml"
    mine.write_text(EXAMPLE[1], encoding="utf-8")
    loaded, printed = load_policy(mine), blocks()
    shown = printed["$ quantguard policy show mine.yaml --effective"]
    assert effective_text(loaded).splitlines()[: len(shown) - 1] == shown[:-1]
    compared = diff(load_policy(bundled_folder() / "standard.yaml"), loaded)
    assert list(diff_lines(compared)) == printed["$ quantguard policy diff standard mine.yaml"]


def test_the_errors_are_those_of_the_page(tmp_path: Path) -> None:
    assert EXAMPLE is not None
    told = blocks()["$ quantguard policy validate typo.yaml other.yaml"]
    spoilt = {
        "typo.yaml": EXAMPLE[1].replace("extends: standard", "extends: standrad"),
        "other.yaml": EXAMPLE[1].replace("keywords", "keyword").replace("nf4", "nf5"),
    }
    found = []
    for name, text in spoilt.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        found += [str(problem).removeprefix(f"{tmp_path}/") for problem in policy_problems(tmp_path / name)]
    assert found == told
