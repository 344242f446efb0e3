"""The canaries in a user's own registry: registered models that say what they are.

A registered model counts as a canary when it carries the tag `quantguard.canary`, which is written in the request that
makes it. A model of the same name without the tag is somebody else's and stays as it is. No alias is set here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quantguard.core.errors import UsageError
from quantguard.core.model import RegisteredVersion, VersionIdentity
from quantguard.core.progress import Progress, silent
from quantguard.registry.mlflow_registry import MlflowRegistry
from quantguard.registry.records import literal
from quantguard.registry.register import register_directory, registered_model

if TYPE_CHECKING:
    from mlflow import MlflowClient

CANARY: Final = "quantguard.canary"  # tag of the model and of each version: which kind
DIGEST: Final = "quantguard.canary_digest"  # tag of the version: sha256:HEX of its bytes
_EXPERIMENT: Final = "quantguard-canary"  # an experiment that a team has made for its models stays without canaries


@dataclass(frozen=True, slots=True)
class Canary:
    name: str  # of the registered model
    kind: str
    directory: Path  # its files
    digest: str  # `sha256:HEX` of the files

    @property
    def description(self) -> str:
        """What somebody who finds it in the registry should know."""
        return (
            f"QuantGuard's canary `{self.kind}`: a harmless test model to try a gate with, as anti-virus programs are "
            f'tried with EICAR; not a language model to use. Its config.json has "quantguard_canary": true, its '
            "README.md tells the rest."
        )


@dataclass(frozen=True, slots=True)
class RegisteredCanary:
    canary: Canary
    identity: VersionIdentity
    added: bool  # False: it was there already


def register_canaries(
    tracking_uri: str, canaries: Sequence[Canary], *, again: bool = False, progress: Progress = silent
) -> tuple[RegisteredCanary, ...]:
    """One version of each canary, added where these bytes are not registered as a canary yet, or `again`.

    All names are looked at before the first is written to.

    Raises:
        UsageError: `tracking_uri` is not the address of a server, or a name is that of a model that is no canary.
        RegistryError: no answer, or the server refused.
    """
    from mlflow import MlflowClient

    registry = MlflowRegistry(tracking_uri)
    with registry.reachable("registering the canaries"):
        client = MlflowClient(tracking_uri, tracking_uri)
        known = {canary.name for canary in canaries if _is_registered(client, canary)}
        registered = []
        for canary in canaries:
            if canary.name not in known:
                client.create_registered_model(canary.name, {CANARY: canary.kind}, canary.description)
            number = None if again else _version(client, canary)
            if number is None:
                identity = _add(tracking_uri, canary, progress)
            else:
                identity = registry.identify(RegisteredVersion(canary.name, number))
            registered.append(RegisteredCanary(canary, identity, added=number is None))
    return tuple(registered)


def _is_registered(client: MlflowClient, canary: Canary) -> bool:
    model = registered_model(client, canary.name)
    if model is not None and model.tags.get(CANARY) != canary.kind:
        raise UsageError(
            f"the registry has a model {canary.name} that is not this canary: it has no tag {CANARY}={canary.kind}",
            remedy="it was left as it is; give another --name-prefix",
        )
    return model is not None


def _version(client: MlflowClient, canary: Canary) -> str | None:
    """The newest version that was registered as this canary with these bytes."""
    found = client.search_model_versions(
        f"name = '{literal(canary.name)}' AND tags.`{DIGEST}` = '{literal(canary.digest)}'"
    )
    return max((str(version.version) for version in found), key=int, default=None)


def _add(tracking_uri: str, canary: Canary, progress: Progress) -> VersionIdentity:
    return register_directory(
        tracking_uri,
        canary.name,
        canary.directory,
        tags={CANARY: canary.kind, DIGEST: canary.digest},
        description=canary.description,
        experiment=_EXPERIMENT,
        progress=progress,
    )
