"""What one run of the action was asked, checked and in the types that the rest works with."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from action.options import OPTIONS, read
from quantguard.core.errors import UsageError
from quantguard.core.model import LocalDirectory, parse_model_ref

GIBIBYTE: Final = 1024**3
IMAGE_LOCK: Final = Path(__file__).with_name("image.lock")
_UNITS: Final = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": GIBIBYTE}
_DIGEST: Final = re.compile(r"(?:[a-z0-9][a-z0-9._:/-]*@)?sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Job:
    model: str
    policy: Path  # as given; relative to `workspace`
    waivers: Path | None  # as the policy
    workspace: Path  # absolute
    work: Path  # absolute
    kept: bool  # whether the user named the work directory, and with it wants what is in it
    image: str  # NAME@sha256:HEX or sha256:HEX
    gpus: str  # auto, all, or a number
    memory: int | None  # bytes; None: what is available less 1 GiB
    disk: int  # bytes
    timeout: float  # seconds
    network: str
    seed: int
    read_environment: Mapping[str, str]  # of the fetch container
    write_environment: Mapping[str, str]  # of the publish container
    judge_environment: Mapping[str, str]  # of the judge's container
    ledgers: tuple[Path, ...] = ()  # directories of the ledger and its anchors, absolute, which publish writes

    @property
    def directory(self) -> Path | None:
        """The model where it is a directory, absolute; None where it is in a registry."""
        ref = parse_model_ref(self.model)
        return self.workspace / ref.path if isinstance(ref, LocalDirectory) else None


def make_job(environment: Mapping[str, str]) -> Job:
    """The job that the environment describes.

    Raises:
        UsageError: an input is missing or malformed; it is named.
    """
    given = read(environment)
    for option in OPTIONS:
        if option.required and not given[option.name]:
            raise UsageError(f"the input {option.name} is missing", remedy=option.help.replace("`", ""))
    parse_model_ref(given["model"])
    workspace = Path(environment.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    uri = given["tracking-uri"] or environment.get("MLFLOW_TRACKING_URI", "")
    shared = _further(given["registry-env"], environment) | ({"MLFLOW_TRACKING_URI": uri} if uri else {})
    ledger = _ledger(given, workspace)
    credentials = {name: _credential(given[f"{name}-token"]) for name in ("read", "write")}
    return Job(
        model=given["model"],
        policy=Path(given["policy"]),
        waivers=Path(given["waivers"]) if given["waivers"] else None,
        workspace=workspace,
        work=_work(given, environment, workspace),
        kept=bool(given["work"]),
        image=_image(given["image"]),
        gpus=_matching("gpus", given["gpus"] or "auto", r"auto|all|[0-9]{1,2}", "auto, all or a number"),
        memory=_memory(given["memory"]) if given["memory"] else None,
        disk=int(_number("disk", given["disk"] or "20") * GIBIBYTE),
        timeout=60 * _number("timeout", given["timeout"] or "330"),
        network=_matching("network", given["network"] or "bridge", r"[A-Za-z0-9][\w.-]*", "a Docker network"),
        seed=int(_matching("seed", given["seed"] or "0", r"[0-9]{1,9}", "a whole number")),
        read_environment=shared | credentials["read"],
        write_environment=shared | credentials["write"] | _signing(given) | ledger[0],
        judge_environment=_judge(given),
        ledgers=ledger[1],
    )


def _work(given: Mapping[str, str], environment: Mapping[str, str], workspace: Path) -> Path:
    """The same for every step with the same inputs in one attempt of a job: a step that is run again resumes."""
    if given["work"]:
        return (workspace / given["work"]).resolve()
    attempt = [environment.get(f"GITHUB_{name}", "") for name in ("RUN_ID", "RUN_ATTEMPT", "JOB")]
    asked = [given[name] for name in ("model", "policy", "tracking-uri", "seed")]
    name = hashlib.sha256("\0".join([*attempt, *asked]).encode()).hexdigest()[:16]
    parent = environment.get("RUNNER_TEMP") or os.path.join(workspace, ".quantguard")  # noqa: PTH118
    return Path(parent).resolve() / "quantguard" / name


def _image(given: str) -> str:
    if not given and IMAGE_LOCK.exists():
        given = IMAGE_LOCK.read_text(encoding="ascii").strip()
    if not given:
        remedy = "pin the action to a release, or give the input image by digest"
        raise UsageError("this checkout of the action names no image", remedy=remedy)
    if not _DIGEST.match(given):
        remedy = "write NAME@sha256:HEX: a tag can be moved to another image"
        raise UsageError(f"the input image is {given!r}, which names no digest", remedy=remedy)
    return given


def _matching(name: str, value: str, pattern: str, expected: str) -> str:
    if not re.fullmatch(pattern, value):
        raise UsageError(f"the input {name} is {value!r}", remedy=f"expected {expected}")
    return value


def _number(name: str, value: str) -> float:
    return float(_matching(name, value, r"[0-9]{1,6}(\.[0-9]{1,3})?", "a number"))


def _memory(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})([bkmg]?)", text.lower())
    if match is None:
        raise UsageError(f"the input memory is {text!r}", remedy="expected a number and a unit, e.g. 48g")
    return int(match[1]) * _UNITS[match[2]]


def _credential(token: str) -> dict[str, str]:
    """MLflow's variables for a bearer token, or for the user and password of basic authentication."""
    user, colon, password = token.partition(":")
    if colon:
        return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    return {"MLFLOW_TRACKING_TOKEN": token} if token else {}


def _judge(given: Mapping[str, str]) -> dict[str, str]:
    variables = {"QUANTGUARD_JUDGE_ENDPOINT": given["judge-endpoint"], "QUANTGUARD_JUDGE_KEY": given["judge-key"]}
    return {name: value for name, value in variables.items() if value}


def _signing(given: Mapping[str, str]) -> dict[str, str]:
    word = given["environment"]
    if word:
        _matching("environment", word, r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "a word")
    variables = {"QUANTGUARD_SIGNING_KEY": given["signing-key"], "QUANTGUARD_ENVIRONMENT": word}
    return {name: value for name, value in variables.items() if value}


def _ledger(given: Mapping[str, str], workspace: Path) -> tuple[dict[str, str], tuple[Path, ...]]:
    """What publish is told of the ledger, and the directories that it writes for it."""
    if not given["ledger"]:
        if given["ledger-anchors"]:
            raise UsageError("the input ledger-anchors without ledger", remedy="name the ledger's file on the runner")
        return {}, ()
    files, anchors = [(workspace / given["ledger"]).absolute()], []
    for anchor in given["ledger-anchors"].split():
        kind, _, where = anchor.partition(":")
        if kind == "file" and where:
            files.append((workspace / where).absolute())
            anchors.append(f"file:{files[-1]}")
        elif anchor == "mlflow":
            anchors.append(anchor)
        else:  # the image has no git
            remedy = "use file:PATH or mlflow; in git, run quantguard ledger anchor in a later step"
            raise UsageError(f"the input ledger-anchors has {anchor!r}", remedy=remedy)
    for directory in (file.parent for file in files):
        if not directory.is_dir():  # which a mount would make, as root, where a disk is not mounted
            raise UsageError(
                f"the directory {directory} is not there", remedy="make it, or mount what holds the ledger"
            )
    variables = {"QUANTGUARD_LEDGER": str(files[0]), "QUANTGUARD_LEDGER_ANCHORS": " ".join(anchors)}
    return {name: value for name, value in variables.items() if value}, tuple(file.parent for file in files)


def _further(names: str, environment: Mapping[str, str]) -> dict[str, str]:
    missing = [name for name in names.split() if name not in environment]
    if missing:
        remedy = "set them in the step's env, or take them out of the input"
        raise UsageError(f"registry-env names what is not set: {', '.join(missing)}", remedy=remedy)
    return {name: environment[name] for name in names.split()}


def secrets_in(environment: Mapping[str, str]) -> frozenset[str]:
    """Values that no log may hold, and the parts of them that could be printed alone."""
    given = read(environment)
    uri = given["tracking-uri"] or environment.get("MLFLOW_TRACKING_URI", "")
    found = {given[option.name] for option in OPTIONS if option.secret}
    found |= {token.partition(":")[2] for token in found}
    found |= {environment.get(name, "") for name in given["registry-env"].split()}
    try:
        found.add(urlsplit(uri).password or "")
    except ValueError:  # no address at all
        found.add(uri)
    lines = {line.strip() for value in found for line in value.splitlines()}
    return frozenset(line for line in found | lines if line)
