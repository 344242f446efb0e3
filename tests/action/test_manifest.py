"""The manifests say what the programs behind them take and give, and the pages say what the manifests say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from action.options import OPTIONS, table

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "action.md").read_text(encoding="utf-8")


def step(name: str) -> dict[str, Any]:
    (found,) = [step for step in ACTION["runs"]["steps"] if step["name"] == name]
    return dict(found)


def between(mark: str) -> str:
    """What the page holds between two comment marks."""
    (found,) = re.findall(rf"<!-- {mark} -->\n(.*?)<!-- end of {mark} -->", PAGE, re.DOTALL)
    return str(found)


def test_the_inputs_are_the_launchers_options() -> None:
    """An empty value is no value, so a default in action.yml would be a second one."""
    told = [
        (option.name, {"description": description(option.help, option.default), "required": option.required})
        for option in OPTIONS
    ]
    assert list(ACTION["inputs"].items()) == told


def description(text: str, default: str) -> str:
    return f"{text} Default: {default}." if default else text


def test_every_input_reaches_the_launcher_and_the_secrets_reach_nothing_else() -> None:
    """A composite action hands its steps no inputs of itself."""
    every = {option.variable: f"${{{{ inputs.{option.name} }}}}" for option in OPTIONS}
    secret = {option.variable for option in OPTIONS if option.secret}
    assert step("Gate the model")["env"] == every
    assert step("Remove what is left")["env"] == {k: v for k, v in every.items() if k not in secret}
    assert "env" not in step("Prepare the launcher")


def test_a_run_that_said_nothing_is_a_hold() -> None:
    """A launcher that was killed, or never started, writes no output: `== 'BLOCK'` must not be the only way to stop."""
    assert ACTION["outputs"]["verdict"]["value"] == "${{ steps.gate.outputs.verdict || 'HOLD' }}"
    assert ACTION["outputs"]["exit-code"]["value"] == "${{ steps.gate.outputs.exit-code || '2' }}"


def test_outputs_come_from_the_gate_by_their_own_names() -> None:
    for name, output in ACTION["outputs"].items():
        assert re.match(rf"\${{{{ steps\.gate\.outputs\.{name}[ ]", output["value"]), name


def test_the_last_step_runs_whatever_happened_and_the_shell_never_stays() -> None:
    assert [s.get("if") for s in ACTION["runs"]["steps"]] == [
        None,
        None,
        "always() && steps.prepare.outcome == 'success'",
    ]
    assert {s["run"].split()[0] for s in ACTION["runs"]["steps"]} == {"exec"}


def test_the_page_holds_the_table_of_inputs() -> None:
    assert between("inputs") == table()


def test_the_page_holds_the_table_of_outputs() -> None:
    rows = "".join(f"| `{name}` | {output['description']} |\n" for name, output in ACTION["outputs"].items())
    assert between("outputs") == f"| output | what it is |\n| --- | --- |\n{rows}"


def test_the_page_holds_the_workflow_that_is_checked() -> None:
    workflow = (ROOT / "docs" / "workflows" / "gate.yml").read_text(encoding="utf-8")
    assert between("workflow") == f"```yaml\n{workflow}```\n"


def test_every_message_that_the_page_explains_is_one_that_is_said() -> None:
    told = re.findall(r"^\| `([^`]+)` \| ", PAGE.partition("## When it says")[2], re.MULTILINE)
    assert len(told) > 10
    sources = [*(ROOT / "action").glob("*.*"), *(ROOT / "quantguard" / "registry").glob("*.py")]
    said = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert [message for message in told if message not in said] == []


@pytest.mark.parametrize("page", ["docs/action.md", "docs/job-container.md"])
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    linked = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)]
    local = [target for target in linked if target and "://" not in target]
    assert local, "a page that links to nothing here is not checked"
    assert [target for target in local if not (ROOT / page).parent.joinpath(target).exists()] == []
