"""A model appears on a disk only as the bytes that trusted evidence of that version admits, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantguard.attest.load import EvidenceGatekeeper
from quantguard.attest.tags import DECISION_TAG
from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import (
    ModelNotFoundError,
    UsageError,
)
from quantguard.core.model import VersionIdentity
from quantguard.core.progress import Progress, silent
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import ExitCode
from quantguard.evidence.keys import Signer
from quantguard.registry.interface import Resolved
from quantguard.registry.load_verified import load_verified as load_admitted
from quantguard.registry.load_verified import receipt_of
from quantguard.registry.mlflow_registry import MlflowRegistry
from tests.attest.consumer import World, gatekeeper
from tests.attest.made import NOW, days, write_made_policy
from tests.command import quantguard
from tests.policy.made import measured
from tests.registry.world import FILES, read_files, write_files


def test_what_holds_the_alias_is_loaded_with_a_receipt_beside_it(world: World) -> None:
    identity = world.register()
    world.client.set_registered_model_alias(identity.name, "champion", identity.version)
    loaded = world.load(f"models:/{identity.name}@champion")
    assert loaded.downloaded
    assert (loaded.identity.name, loaded.identity.version) == (identity.name, identity.version)
    assert read_files(loaded.directory) == FILES
    assert world.left() == ["model", "model.verified.json"]
    receipt = json.loads(receipt_of(loaded.directory).read_bytes())
    assert receipt["model_digest"] == model_digest(loaded.directory)
    assert (receipt["key"], receipt["version"]) == ("gate.pub.pem", str(identity))


def test_a_pinned_version_is_checked_alike(world: World) -> None:
    signed = world.register()
    unsigned = world.register(name=signed.name, sign=False)
    assert world.load(str(signed)).identity.version == signed.version
    assert world.refusal(str(unsigned)) == "evidence.missing"


def test_bytes_that_were_swapped_after_signing_never_appear(world: World, tmp_path: Path) -> None:
    identity = world.register()
    write_files(tmp_path / "evil", {"model.safetensors": b"evil"})
    model_id = identity.source.removeprefix("models:/")
    world.client.log_model_artifact(model_id, str(tmp_path / "evil" / "model.safetensors"))
    assert world.refusal(str(identity)) == "evidence.other-bytes"


def test_a_file_that_was_added_after_signing_never_appears(world: World, tmp_path: Path) -> None:
    identity = world.register()
    write_files(tmp_path / "evil", {"modeling_evil.py": b"import os"})
    world.client.log_model_artifact(identity.source.removeprefix("models:/"), str(tmp_path / "evil/modeling_evil.py"))
    assert world.refusal(str(identity)) == "evidence.other-bytes"


def test_gits_own_files_which_no_digest_covers_are_left_out(world: World) -> None:
    identity = world.register({**FILES, ".gitattributes": b"unsigned", ".git/hooks/pre-commit": b"unsigned"})
    assert read_files(world.load(str(identity)).directory) == FILES


def test_an_alias_that_moves_after_it_was_looked_up_changes_nothing(world: World) -> None:
    first = world.register()
    second = world.register({**FILES, "config.json": b'{"second": 1}'}, name=first.name)
    world.client.set_registered_model_alias(first.name, "champion", first.version)

    class Moving(MlflowRegistry):
        def download(self, identity: VersionIdentity, destination: Path, *, progress: Progress = silent) -> None:
            world.client.set_registered_model_alias(first.name, "champion", second.version)
            super().download(identity, destination, progress=progress)

    loaded = load_admitted(
        f"models:/{first.name}@champion",
        world.folder / "model",
        lambda: (Moving(world.uri), gatekeeper(world)),
    )
    assert loaded.identity.version == first.version
    assert read_files(loaded.directory) == FILES
    assert world.load(f"models:/{first.name}@champion").identity.version == second.version


def test_evidence_of_another_version_and_of_a_model_that_was_made_again_is_refused(world: World) -> None:
    signed, other = world.register(), world.register(sign=False)
    tags = world.client.get_model_version(signed.name, signed.version).tags
    for key, value in tags.items():
        world.client.set_model_version_tag(other.name, other.version, key, value)
    assert world.refusal(str(other)) == "evidence.other-version"
    world.client.delete_registered_model(signed.name)
    again = world.register(name=signed.name, sign=False)
    assert str(again) == str(signed)
    for key, value in tags.items():
        world.client.set_model_version_tag(again.name, again.version, key, value)
    assert world.refusal(str(again)) == "evidence.other-version"


def test_a_stripped_tag_is_no_evidence(world: World) -> None:
    identity = world.register()
    world.client.delete_model_version_tag(identity.name, identity.version, DECISION_TAG)
    assert world.refusal(str(identity)) == "evidence.missing"


def keyring(world: World, last: date) -> Path:
    path = world.folder / "keys.yaml"
    key = {"name": "gate", "public": world.keys.name, "not_after": last}
    path.write_text(yaml.safe_dump({"schema": "quantguard.keys/1", "keys": [key]}))
    return path


def test_a_key_admits_until_its_last_day(world: World) -> None:
    identity = world.register()
    assert world.load(str(identity), keys=keyring(world, NOW.date())).passed.told["key"] == "gate"
    assert world.refusal(str(identity), keys=keyring(world, NOW.date() - timedelta(1))) == "evidence.key-expired"


def test_another_key_another_place_and_an_older_measurement_are_refused(world: World) -> None:
    identity = world.register()
    foreign = world.folder / "foreign.pub.pem"
    foreign.write_bytes(Signer.generate().public.pem())
    assert world.refusal(str(identity), keys=foreign) == "evidence.forged"
    assert world.refusal(str(identity), environment="staging") == "evidence.other-environment"
    assert world.refusal(str(identity), now=NOW + days(31)) == "evidence.stale"
    assert world.refusal(str(identity), now=NOW - days(1)) == "evidence.clock"


def test_a_stricter_policy_of_the_consumer_decides_again(world: World) -> None:
    identity = world.register(sign=False)
    digest = model_digest(write_files(world.folder / "same", FILES))
    world.sign(identity, digest, found=replace(measured(quantized=3), model_digest=digest))
    assert world.load(str(identity)).downloaded
    limits = json.loads(world.policy.path.read_text())["attack_success"]
    limits["content_injection"]["max_upper_bound"] = 0.06
    strict = write_made_policy(world.folder / "strict", attack_success=limits)
    assert world.refusal(str(identity), policy=strict.path) == "policy.not-met"


def test_a_scheme_that_the_policy_does_not_measure_is_refused(world: World) -> None:
    identity = world.register()
    assert world.load(str(identity), schemes=(Scheme.NF4,)).directory.is_dir()
    assert world.refusal(str(identity), schemes=(Scheme.NF4, Scheme.FP4)) == "load.scheme"


@pytest.mark.parametrize("ref", ["models:/m", "models:/m@", "models:/m@a/b", "hf://x/y", "runs:/1/model", "/srv/model"])
def test_only_registered_versions_are_loaded(world: World, ref: str) -> None:
    with pytest.raises(UsageError, match="names no registered version"):
        world.load(ref)


def test_an_alias_or_a_version_that_is_not_there_is_told(world: World) -> None:
    identity = world.register()
    for ref in (f"models:/{identity.name}@nobody", f"models:/{identity.name}/9", "models:/no-such-model@champion"):
        with pytest.raises(ModelNotFoundError):
            world.load(ref)


def test_a_gatekeeper_is_asked_before_the_first_byte_and_after_the_last(world: World) -> None:
    identity, asked = world.register(), []

    class Watching(EvidenceGatekeeper):
        def admit(self, version: Resolved, digest: str | None) -> Any:
            asked.append((digest is not None, world.left()))
            return super().admit(version, digest)

    strict = gatekeeper(world)
    load_admitted(
        str(identity),
        world.folder / "model",
        lambda: (MlflowRegistry(world.uri), Watching(strict.rules, strict.now)),
    )
    assert asked == [(False, []), (True, ["model.unverified"])]


def test_the_command_line_says_what_it_loaded_or_what_to_run(world: World) -> None:
    identity = world.register(sign=False)
    arguments = ("load", str(identity), world.folder / "model", "--policy", world.policy.path, "--key", world.keys)
    where = ("--tracking-uri", world.uri, "--environment", "production")
    refused = quantguard(*arguments, *where)
    assert refused.code == ExitCode.BLOCKED
    assert "evidence.missing" in refused.err
    assert f"quantguard gate {identity}" in refused.err
    # Not at the tests' own time: the command takes the clock of the machine.
    world.sign(identity, model_digest(write_files(world.folder / "same", FILES)), at=datetime.now(UTC))
    accepted = quantguard(*arguments, *where)
    assert accepted.code == ExitCode.PASSED, accepted.err
    assert f"{identity} is at {world.folder / 'model'} (fetched)" in accepted.out
    nowhere = quantguard(*arguments)
    assert nowhere.code == ExitCode.USAGE
