"""The inputs of the action, told once: `action.yml`, the command line and the table in `docs/action.md` follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "QUANTGUARD_"


@dataclass(frozen=True, slots=True)
class Option:
    name: str  # as in action.yml
    help: str  # one line of Markdown
    default: str = ""  # what an empty value means, in words where it is no value
    required: bool = False
    secret: bool = False  # never an argument, never printed

    @property
    def variable(self) -> str:
        """The environment variable that carries it."""
        return PREFIX + self.name.replace("-", "_").upper()


OPTIONS: Final = (
    Option("model", "`models:/NAME/VERSION`, or a directory in the workspace.", required=True),
    Option("policy", "Policy file in the workspace; the files that it names are found from there.", required=True),
    Option("waivers", "File of waivers in the workspace (docs/waivers.md); none is looked for elsewhere.", "none"),
    Option("tracking-uri", "Address of the MLflow server. Needed for `models:/`."),
    Option(
        "read-token",
        "Registry token of the fetch container, which may only read. `user:password` for basic authentication.",
        secret=True,
    ),
    Option(
        "write-token",
        "Registry token of the publish container, which may tag and register versions and move aliases.",
        secret=True,
    ),
    Option("image", "QuantGuard's image by digest: `NAME@sha256:...`, or a local image id.", "that of this release"),
    Option("gpus", "`auto` (all there are), `all` (and at least one), a number, or `0` for the CPU.", "auto"),
    Option("memory", "Memory limit of the sealed container, e.g. `48g`.", "what is available, less 1 GiB"),
    Option("disk", "GiB that must be free before anything is downloaded.", "20"),
    Option("work", "Directory to keep the job in; a rerun there resumes.", "a temporary one; evidence and report stay"),
    Option("timeout", "Minutes that the whole gate may take.", "330"),
    Option("network", "Docker network of the fetch and publish containers.", "bridge"),
    Option("registry-env", "Names of further variables that fetch and publish may see, separated by spaces."),
    Option("judge-endpoint", "Where the judge of the policy is asked.", "the policy's `judge.endpoint`"),
    Option("judge-key", "Key of the judge, which only its container is given.", secret=True),
    Option(
        "signing-key",
        "Private key (PEM) that signs the evidence; only the publish container is given it.",
        "unsigned",
        secret=True,
    ),
    Option(
        "environment",
        "Your word for this registry: evidence for one counts in no other.",
        "default",
    ),
    Option("ledger", "File on the runner in which every decision is entered before an alias moves.", "none"),
    Option("ledger-anchors", "Where its head is kept besides: `file:PATH` or `mlflow`, separated by spaces.", "none"),
    Option("seed", "Of everything random.", "0"),
)


def read(environment: Mapping[str, str]) -> dict[str, str]:
    """The value of every option by name: as given, stripped; empty where it was not."""
    return {option.name: environment.get(option.variable, "").strip() for option in OPTIONS}


def table() -> str:
    """The options as a Markdown table."""
    rows = ["| input | what it is | default |", "| --- | --- | --- |"]
    for option in OPTIONS:
        default = "**required**" if option.required else option.default or "-"
        rows.append(f"| `{option.name}`{' (secret)' if option.secret else ''} | {option.help} | {default} |")
    return "\n".join(rows) + "\n"
