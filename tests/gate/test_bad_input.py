"""Each bad input, through the real command and a real server: what is said, the exit code, an untouched registry."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.register import register_directory
from tests.checkpoint.build import entry, safetensors_bytes, write_index
from tests.command import Ran, quantguard
from tests.gate.jobs import GatedOnce, NewJob
from tests.gate.picture import picture
from tests.registry.world import fresh_name, version_of_logged_model
from tests.stories import POLICY, Kind, write_policy

WEIGHTS = "model.safetensors"


def truncated_shard(model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    names = sorted(weights)
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for number, file in enumerate(files):
        save_file({name: weights[name] for name in names[number::2]}, model / file, metadata={"format": "pt"})
    write_index(model, {name: files[i % 2] for i, name in enumerate(names)})
    with (model / files[1]).open("r+b") as stream:
        stream.truncate((model / files[1]).stat().st_size // 2)


def lying_header(model: Path) -> None:
    header = {"model.norm.weight": entry("F32", (1 << 40, 1 << 40), 0, 4)}
    (model / WEIGHTS).write_bytes(safetensors_bytes(header, b"\0\0\0\0"))


def absurd_header(model: Path) -> None:
    (model / WEIGHTS).write_bytes(safetensors_bytes({}, declared=1 << 62))


def foreign_index(model: Path) -> None:
    names = list(load_file(model / WEIGHTS))
    write_index(model, dict.fromkeys(names, "../../etc/passwd"))


def pickled(model: Path) -> None:
    (model / WEIGHTS).unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": [1.0]}))


def auto_map(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil--repo.Model"}
    (model / "config.json").write_text(json.dumps(config))


def no_weights(model: Path) -> None:
    (model / WEIGHTS).unlink()


REFUSALS: Mapping[Callable[[Path], None], tuple[int, tuple[str, ...]]] = {
    truncated_shard: (2, ("model-00002-of-00002.safetensors", "truncated", "fetch it again")),
    lying_header: (2, (WEIGHTS, "model.norm.weight")),
    absurd_header: (2, (WEIGHTS, "header")),
    foreign_index: (2, ("model.safetensors.index.json", "'../../etc/passwd'", "save the model again")),
    pickled: (1, ("pytorch_model.bin", "checkpoint.pickle", "remove these and register a new version")),
    auto_map: (1, ("config.json", "checkpoint.remote_code", "auto_map", "register a new version")),
    no_weights: (3, ("holds no model.safetensors", "save_pretrained")),
}


@pytest.fixture
def spoilt(models: Mapping[Kind, Path], tmp_path: Path) -> Path:
    """A copy of the clean model, to be spoilt."""
    return Path(shutil.copytree(models[Kind.CLEAN], tmp_path / "spoilt"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def gate(policy_file: Path, mlflow_server: EmbeddedServer, work: Path) -> Callable[[str], Ran]:
    """Gates `models:/NAME/VERSION` in `work`."""
    options = ("--policy", policy_file, "--tracking-uri", mlflow_server.uri, "--work", work)
    return lambda ref: quantguard("gate", ref, *options)


def left_in(work: Path) -> set[str]:
    return {path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()}


def require_message(ran: Ran, code: int, words: tuple[str, ...]) -> None:
    """One line that says all of `words` and a remedy, the right exit code, and no traceback."""
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    line = ran.err.splitlines()[-1]
    assert [word for word in words if word not in line] == [], line
    assert line.endswith(")"), f"no remedy: {line}"


def require_refused(work: Path) -> None:
    """Nothing is left of the job but what was asked: no model, nothing half written."""
    assert left_in(work) == {"job.json"}
    assert {path.name for path in work.iterdir()} == {"job.json"}


@pytest.mark.parametrize("spoil", REFUSALS, ids=lambda spoil: spoil.__name__)
def test_a_model_that_cannot_be_gated_is_refused_and_not_kept(
    spoil: Callable[[Path], None], spoilt: Path, gate: Callable[[str], Ran], client: MlflowClient, work: Path
) -> None:
    spoil(spoilt)
    identity = register_directory(str(client.tracking_uri), fresh_name("spoilt"), spoilt)
    before = picture(client)
    require_message(gate(str(identity)), *REFUSALS[spoil])
    assert picture(client) == before
    require_refused(work)


def test_weights_that_are_not_finite_are_refused(
    spoilt: Path, gate: Callable[[str], Ran], client: MlflowClient, work: Path
) -> None:
    weights = load_file(spoilt / WEIGHTS)
    weights["lm_head.weight"][1, 2] = torch.nan
    save_file(weights, spoilt / WEIGHTS, metadata={"format": "pt"})
    identity = register_directory(str(client.tracking_uri), fresh_name("nan"), spoilt)
    before = picture(client)
    require_message(gate(str(identity)), 2, (WEIGHTS, "lm_head.weight", "holds nan at index [1, 2]"))
    assert picture(client) == before
    evidence = {name for name in left_in(work) if not name.startswith("model/")}
    assert evidence == {"job.json", "fetched.json", "evidence/policy.yaml", "evidence/asked.json"}


def test_what_is_not_in_the_registry_is_named(gate: Callable[[str], Ran], client: MlflowClient, work: Path) -> None:
    before = picture(client)
    require_message(gate("models:/nobody/7"), 2, ("models:/nobody/7", "check"))
    assert picture(client) == before
    require_refused(work)


def test_a_version_without_files_is_nothing_to_gate(
    gate: Callable[[str], Ran], client: MlflowClient, work: Path
) -> None:
    logged = client.create_logged_model("0", name="empty")
    client.finalize_logged_model(logged.model_id, "READY")
    identity = version_of_logged_model(client, f"models:/{logged.model_id}", fresh_name("empty"))
    before = picture(client)
    require_message(gate(str(identity)), 3, (str(identity), "holds no files"))
    assert picture(client) == before
    require_refused(work)


@pytest.mark.parametrize("ref", ["models:/name", "models:/name@champion", "runs:/1/model", "s3://bucket/model"])
def test_what_names_no_version_is_a_usage_error(ref: str, gate: Callable[[str], Ran], work: Path) -> None:
    require_message(gate(ref), 4, (ref, "use models:/NAME/VERSION or a directory"))
    assert not work.exists()


def test_an_empty_directory_is_nothing_to_gate(policy_file: Path, work: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for missing in ("empty", "absent"):
        ran = quantguard("gate", tmp_path / missing, "--policy", policy_file, "--work", work / missing)
        require_message(ran, 3, (str(tmp_path / missing), "name"))
        require_refused(work / missing)


def test_a_typo_in_the_policy_is_told_with_its_line_before_anything_is_done(
    mlflow_server: EmbeddedServer, client: MlflowClient, work: Path, tmp_path: Path
) -> None:
    policy = write_policy(tmp_path / "policy", POLICY.replace("max_upper_bound", "max_uper_bound"))
    lines = enumerate(policy.read_text().splitlines(), 1)
    place = next(f"{i}:{text.index('max_uper') + 1}" for i, text in lines if "max_uper_bound" in text)
    before = picture(client)
    options = ("--policy", policy, "--tracking-uri", mlflow_server.uri, "--work", work)
    ran = quantguard("gate", "models:/any/1", *options)
    assert ran.code == 4
    assert "Traceback" not in ran.err
    key = "attack_success.content_injection.max_uper_bound"
    assert f"{policy}:{place}: {key}:" in ran.err
    assert "did you mean max_upper_bound" in ran.err
    assert picture(client) == before
    assert not work.exists()


@pytest.mark.parametrize("listening", [False, True], ids=["nobody-listens", "nobody-answers"])
def test_a_server_that_cannot_be_reached_is_told_in_seconds(listening: bool, policy_file: Path, work: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = monotonic()
        ran = quantguard("gate", "models:/any/1", "--policy", policy_file, "--tracking-uri", uri, "--work", work)
    require_message(ran, 2, (uri, "check the tracking URI"))
    assert monotonic() - started < 40  # MLflow's own client goes on asking for minutes
    require_refused(work)


def test_a_version_deleted_after_it_was_fetched_gets_nothing(
    gated: GatedOnce, new_job: NewJob, client: MlflowClient, tmp_path: Path
) -> None:
    job = new_job(Kind.CLEAN, tmp_path)
    assert quantguard(*job.command, "--stage", "fetch").code == 0
    gated(Kind.CLEAN).lend_evidence(job)
    client.delete_model_version(job.name, "1")
    before = picture(client)
    ran = quantguard(*job.command, "--stage", "publish")
    require_message(ran, 2, (job.ref, "was deleted", "fetch stage"))
    assert picture(client) == before
    assert not (tmp_path / "published.json").exists()
    assert list(tmp_path.rglob("*.partial")) == []


# Lower, and Python would truncate its own bytecode caches; the policy is therefore made larger than this.
_ROOM = 600_000


def test_a_full_disk_while_writing_evidence_publishes_nothing(
    new_job: NewJob, client: MlflowClient, work: Path, tmp_path: Path
) -> None:
    policy = write_policy(tmp_path / "policy", POLICY + "#" * _ROOM + "\n")
    job = replace(new_job(Kind.CLEAN, work), policy=policy)
    before = picture(client)
    limited = (
        "import resource, runpy; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({_ROOM}, {_ROOM})); "
        "runpy.run_module('quantguard.cli.main', run_name='__main__')"
    )
    ran = quantguard(*job.command, prefix=(sys.executable, "-c", limited))
    evidence = str(work / "evidence" / "policy.yaml")
    require_message(ran, 2, (evidence, "cannot write evidence", "free space there and run again"))
    assert picture(client) == before
    assert not [name for name in left_in(work) if name.startswith("evidence/") or name.endswith(".partial")]
