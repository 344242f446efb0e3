"""A model appears on a disk only as the bytes that trusted evidence of that version admits, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from quantguard.attest.load import EvidenceGatekeeper, load_verified
from quantguard.attest.tags import DECISION_TAG
from quantguard.checkpoint.digest import model_digest
from quantguard.core.attestation import Binding
from quantguard.core.errors import (
    ModelNotFoundError,
    NotAdmittedError,
    PolicyError,
    QuantGuardError,
    RegistryError,
    RegistryUnreachableError,
    UnsafeCheckpointError,
    UsageError,
)
from quantguard.core.model import VersionIdentity
from quantguard.core.progress import Progress, silent
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import ExitCode
from quantguard.evidence.keys import Signer
from quantguard.policy.load import LoadedPolicy
from quantguard.registry.embedded import EmbeddedServer
from quantguard.registry.interface import Resolved
from quantguard.registry.load_verified import Loaded, receipt_of
from quantguard.registry.load_verified import load_verified as load_admitted
from quantguard.registry.mlflow_registry import MlflowRegistry
from quantguard.registry.register import register_directory
from tests.attest.made import NOW, SIGNER, days, signed_tags, write_made_policy
from tests.command import quantguard
from tests.policy.made import measured
from tests.registry.world import FILES, fresh_name, read_files, write_files


@dataclass(frozen=True)
class World:
    """A registry, a policy and a key; models are registered and signed for as the gate does it."""

    uri: str
    client: MlflowClient
    policy: LoadedPolicy
    keys: Path
    folder: Path

    def register(self, files: Mapping[str, bytes] = FILES, *, name: str = "", sign: bool = True) -> VersionIdentity:
        source = write_files(self.folder / fresh_name("files"), dict(files))
        identity = register_directory(self.uri, name or fresh_name("served"), source)
        if sign:
            self.sign(identity, model_digest(source))
        return identity

    def sign(self, identity: VersionIdentity, digest: str, **given: Any) -> None:
        binding = Binding(identity, digest, given.pop("environment", "production"))
        for key, value in signed_tags(self.policy, binding=binding, **given).items():
            self.client.set_model_version_tag(identity.name, identity.version, key, value)

    def load(self, ref: str, **given: Any) -> Loaded:
        settings = {
            "keys": self.keys,
            "policy": self.policy.path,
            "tracking_uri": self.uri,
            "environment": "production",
            "now": NOW,
        }
        return load_verified(ref, self.folder / "model", **{**settings, **given})

    def refusal(self, ref: str, **given: Any) -> str:
        """The rule by which it is refused; nothing is left of the model."""
        with pytest.raises(NotAdmittedError) as refused:
            self.load(ref, **given)
        assert refused.value.exit_code is ExitCode.BLOCKED
        assert refused.value.remedy
        assert self.left() == []
        return refused.value.rule

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("model*"))


@pytest.fixture(scope="module")
def client(mlflow_server: EmbeddedServer) -> MlflowClient:
    return MlflowClient(mlflow_server.uri, mlflow_server.uri)


@pytest.fixture
def world(mlflow_server: EmbeddedServer, client: MlflowClient, tmp_path: Path) -> World:
    keys = tmp_path / "gate.pub.pem"
    keys.write_bytes(SIGNER.public.pem())
    return World(mlflow_server.uri, client, write_made_policy(tmp_path / "policy"), keys, tmp_path)


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


def gatekeeper(world: World) -> EvidenceGatekeeper:
    from quantguard.attest.admission import Rules
    from quantguard.evidence.trusted import read_trusted

    return EvidenceGatekeeper(Rules(world.policy, read_trusted(world.keys), "production"), NOW)


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


def test_the_same_bytes_are_not_fetched_again_and_are_checked_again(world: World) -> None:
    identity = world.register()
    loaded = world.load(str(identity))
    assert not world.load(str(identity)).downloaded
    (loaded.directory / "config.json").write_bytes(b"changed on this disk")
    assert world.load(str(identity)).downloaded
    assert read_files(loaded.directory) == FILES


def not_there(world: World, identity: VersionIdentity) -> dict[str, Any]:
    return {"tracking_uri": "http://127.0.0.1:9"}


def bad_policy(world: World, identity: VersionIdentity) -> dict[str, Any]:
    return {"policy": write_files(world.folder, {"bad.yaml": b"schema: other"}) / "bad.yaml"}


def stale(world: World, identity: VersionIdentity) -> dict[str, Any]:
    return {"now": NOW + days(60)}


@pytest.mark.parametrize(
    ("change", "kind"), [(not_there, RegistryUnreachableError), (bad_policy, PolicyError), (stale, NotAdmittedError)]
)
def test_a_model_of_yesterday_is_not_there_after_a_failure_of_today(
    world: World, change: Callable[[World, VersionIdentity], dict[str, Any]], kind: type[QuantGuardError]
) -> None:
    identity = world.register()
    directory = world.load(str(identity)).directory
    with pytest.raises(kind):
        world.load(str(identity), **change(world, identity))
    assert not directory.exists()
    assert not receipt_of(directory).exists()
    assert world.load(str(identity)).downloaded is (kind is NotAdmittedError)


def test_what_somebody_else_put_there_stays(world: World, tmp_path: Path) -> None:
    identity = world.register()
    write_files(tmp_path / "model", {"mine.txt": b"mine"})
    with pytest.raises(UsageError, match="did not put there"):
        world.load(str(identity))
    assert read_files(tmp_path / "model") == {"mine.txt": b"mine"}
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="did not put there"):
        world.load(str(identity))


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_directory_without_a_name_of_its_own_is_told(world: World, name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        load_admitted("models:/m/1", Path(name), lambda: (MlflowRegistry(world.uri), gatekeeper(world)))


def test_two_loads_to_one_place_do_not_meet(world: World) -> None:
    identity = world.register()

    def opened() -> tuple[MlflowRegistry, EvidenceGatekeeper]:
        with pytest.raises(UsageError, match="somebody is loading"):
            world.load(str(identity))
        return MlflowRegistry(world.uri), gatekeeper(world)

    assert load_admitted(str(identity), world.folder / "model", opened).downloaded


def test_a_link_in_the_place_of_what_is_not_verified_yet_is_not_followed(world: World) -> None:
    """The right bytes behind it do not help: whoever owns them may change them afterwards."""
    identity = world.register()
    write_files(world.folder / "elsewhere", FILES)
    (world.folder / "model.unverified").symlink_to(world.folder / "elsewhere")
    loaded = world.load(str(identity))
    assert loaded.downloaded
    assert not loaded.directory.is_symlink()
    assert read_files(world.folder / "elsewhere") == FILES


def test_a_directory_that_cannot_be_written_is_told(world: World) -> None:
    identity = world.register()
    (world.folder / "model.unverified").write_bytes(b"a file in the way")
    with pytest.raises(RegistryError):
        world.load(str(identity))
    (world.folder / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be written"):
        load_admitted(str(identity), world.folder / "file" / "model", lambda: (MlflowRegistry(""), gatekeeper(world)))


def test_a_link_among_the_files_never_appears(world: World) -> None:
    identity = world.register()

    class Linking(MlflowRegistry):
        def download(self, identity: VersionIdentity, destination: Path, *, progress: Progress = silent) -> None:
            super().download(identity, destination, progress=progress)
            (destination / ".git").symlink_to("/etc")

    with pytest.raises(UnsafeCheckpointError):
        load_admitted(str(identity), world.folder / "model", lambda: (Linking(world.uri), gatekeeper(world)))
    assert world.left() == []


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
