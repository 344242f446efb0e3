"""MLflow's stages: deprecated, and still a second door."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException

from quantguard.core.model import VersionIdentity
from tests.enforce.world import World


def move(world: World, identity: VersionIdentity, stage: str, archive: bool = False) -> requests.Response:
    body: dict[str, Any] = {
        "name": identity.name,
        "version": identity.version,
        "stage": stage,
        "archive_existing_versions": archive,
    }
    return requests.post(f"{world.uri}/api/2.0/mlflow/model-versions/transition-stage", json=body, timeout=30)


def stage(world: World, identity: VersionIdentity) -> str:
    return str(world.client.get_model_version(identity.name, identity.version).current_stage)


@pytest.mark.parametrize("spelling", ["Production", "production", "PRODUCTION"])
def test_production_wants_evidence_however_it_is_spelt(world: World, spelling: str) -> None:
    identity = world.version()
    answer = move(world, identity, spelling)
    assert answer.status_code == 403, answer.text
    assert "(evidence.missing)" in answer.json()["message"]
    assert stage(world, identity) == "None"


def test_production_is_open_with_evidence_and_the_other_stages_without(world: World) -> None:
    good, other = world.approved(), world.version()
    assert move(world, other, "Staging").status_code == 200
    assert move(world, good, "Production", archive=True).status_code == 200
    assert stage(world, good) == "Production"
    with pytest.raises(MlflowException, match=r"store\.rename"):
        world.client.rename_registered_model(good.name, f"{good.name}-renamed")
