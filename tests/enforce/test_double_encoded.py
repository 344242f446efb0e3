"""The same request by every road into the server, and in every wrapping that it unpacks."""

from __future__ import annotations

import json

import pytest
import requests

from tests.enforce.world import World

ROADS = ["/api/2.0/mlflow", "/ajax-api/2.0/mlflow"]


def post(world: World, path: str, body: bytes, kind: str = "application/json") -> requests.Response:
    return requests.post(f"{world.uri}{path}", data=body, headers={"Content-Type": kind}, timeout=30)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("wrapping", ["plain", "twice", "escaped", "text", "twice keys"])
def test_no_wrapping_gets_past(world: World, road: str, wrapping: str) -> None:
    identity = world.version()
    asked = {"name": identity.name, "alias": "champion", "version": identity.version}
    plain = json.dumps(asked)
    bodies = {
        "plain": plain,
        "twice": json.dumps(plain),
        "escaped": plain.replace("champion", "\\u0063hampion"),
        "text": plain,
        "twice keys": plain.replace('"alias": "champion"', '"alias": "blue", "alias": "champion"'),
    }
    kind = "text/plain" if wrapping == "text" else "application/json"
    answer = post(world, f"{road}/registered-models/alias", bodies[wrapping].encode(), kind)
    assert world.holder(identity.name) is None
    assert answer.status_code in (400, 403, 415), answer.text
    if wrapping in ("plain", "escaped", "twice keys"):
        assert answer.status_code == 403
        assert answer.json()["error_code"] == "PERMISSION_DENIED"
        assert "quantguard gate" in answer.json()["message"]


@pytest.mark.parametrize("road", ROADS)
def test_the_same_roads_are_open_with_evidence(world: World, road: str) -> None:
    """So the test above does not pass because nothing gets in."""
    identity = world.approved()
    asked = {"name": identity.name, "alias": "champion", "version": identity.version}
    answer = post(world, f"{road}/registered-models/alias", json.dumps(asked).encode())
    assert answer.status_code == 200, answer.text
    assert world.holder(identity.name) == identity.version


def test_an_alias_in_the_making_of_a_version_is_not_read(world: World) -> None:
    identity = world.version()
    body = {"name": identity.name, "source": "s3://store/evil", "aliases": ["champion"], "current_stage": "Production"}
    post(world, "/api/2.0/mlflow/model-versions/create", json.dumps(body).encode())
    assert world.holder(identity.name) is None
    stages = {found.current_stage for found in world.client.search_model_versions(f"name='{identity.name}'")}
    assert stages == {"None"}
