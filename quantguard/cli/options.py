"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from quantguard.core.attestation import DEFAULT_ENVIRONMENT

F = TypeVar("F", bound=Callable[..., Any])

DIRECTORY = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)

environment_option = click.option(
    "--environment",
    envvar="QUANTGUARD_ENVIRONMENT",
    default=DEFAULT_ENVIRONMENT,
    show_default=True,
    metavar="WORD",
    help="The registry's, as the gate was told it. Also QUANTGUARD_ENVIRONMENT.",
)


def common(command: F) -> F:
    """--output, --device, --seed and --quiet."""
    command = click.option("--quiet", is_flag=True, help="No progress and no table; errors and the exit code stay.")(
        command
    )
    command = click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random."
    )(command)
    command = click.option(
        "--device", default="auto", show_default=True, help="cpu, cuda, cuda:N, or auto: CUDA where there is one."
    )(command)
    return click.option(
        "--output",
        "outputs",
        multiple=True,
        metavar="FORMAT=FILE",
        help="Also write a report: html, json, md, sarif, junit or annotations. May be given several times.",
    )(command)


def judge_options(command: F) -> F:
    """--judge-endpoint and --judge-key-file. The key itself is never an argument."""
    command = click.option(
        "--judge-key-file",
        type=FILE,
        help="File that holds the judge's key. Default: QUANTGUARD_JUDGE_KEY, or no key.",
    )(command)
    return click.option(
        "--judge-endpoint",
        metavar="URL",
        help="Where the judge of the policy is, instead of the policy's address. Default: QUANTGUARD_JUDGE_ENDPOINT.",
    )(command)


def waivers_option(command: F) -> F:
    """--waivers."""
    return click.option(
        "--waivers",
        "waivers_file",
        type=FILE,
        metavar="FILE",
        help="What has been allowed although the policy forbids it (docs/waivers.md). None is looked for elsewhere.",
    )(command)


def examples(text: str) -> str:
    """An epilog that click does not re-wrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in text.strip().splitlines())
