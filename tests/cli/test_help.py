"""`--help` of every command: an example, at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import click
import pytest

from quantguard.cli.main import cli
from tests.command import environment

HEAVY = {
    "torch", "transformers", "bitsandbytes", "mlflow", "lm_eval", "datasets", "numpy", "scipy", "pydantic", "rich",
    "yaml", "safetensors", "bandit",
}  # fmt: skip
_MODULES = """\
import json, sys
from quantguard.cli.main import main
try:
    main()
finally:
    sys.stderr.write(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))


@pytest.mark.parametrize("path", list(commands(cli)), ids=lambda path: " ".join(path) or "quantguard")
def test_help_has_an_example_and_imports_nothing_heavy(
    path: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    command = [sys.executable, "-c", _MODULES, *path, "--help"]
    started = perf_counter()
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    record_property("seconds", round(perf_counter() - started, 3))
    assert ran.returncode == 0, ran.stderr
    _, _, examples = ran.stdout.partition("Example")
    assert re.search(rf"^ +quantguard {' '.join(path)}".rstrip(), examples, re.MULTILINE), ran.stdout
    assert HEAVY & set(json.loads(ran.stderr)) == set()


def test_every_command_that_the_contract_names_is_there() -> None:
    assert {"gate", "scan", "harden", "verify", "check", "policy", "canary", "demo"} <= set(cli.commands)
    assert isinstance(cli.commands["policy"], click.Group)
    assert "validate" in cli.commands["policy"].commands


def test_the_help_of_harden_lists_every_method() -> None:
    from quantguard.harden.harden import METHODS

    text = cli.commands["harden"].help
    assert text is not None
    listed = text.partition("Methods:")[2].strip().splitlines()
    assert [line.split()[0] for line in listed] == list(METHODS)


def test_the_installed_command_says_its_version() -> None:
    installed = Path(sys.executable).with_name("quantguard")
    ran = subprocess.run([installed, "--version"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.split(",")[0]) == (0, "quantguard")


@pytest.mark.parametrize(
    "wrong", [("gait",), ("scan",), ("gate", "m"), ("scan", "m", "--fail-on", "mild"), ("policy",)], ids=" ".join
)
def test_a_command_line_that_is_none_exits_4(wrong: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "quantguard.cli.main", *wrong], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 4
    assert "Usage:" in ran.stderr
