"""The same law where MLflow is deployed in earnest: PostgreSQL, four workers, basic-auth and workspaces."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from quantguard.core.model import VersionIdentity
from quantguard.registry.embedded import EmbeddedServer
from tests.enforce.world import Settings, World, made_settings
from tests.postgres import postgres

ADMIN = ("admin", "a long password of admins")


@dataclass(frozen=True, slots=True)
class Deployment:
    uri: str
    settings: Settings

    def ask(self, path: str, body: dict[str, Any], workspace: str, who: tuple[str, str] = ADMIN) -> requests.Response:
        headers = {"X-MLFLOW-WORKSPACE": workspace}
        return requests.post(f"{self.uri}/api/2.0/mlflow/{path}", json=body, headers=headers, auth=who, timeout=60)

    def version(self, name: str, workspace: str, *, first: bool = True) -> VersionIdentity:
        assert not first or self.ask("registered-models/create", {"name": name}, workspace).ok
        made = self.ask("model-versions/create", {"name": name, "source": "s3://store/1"}, workspace).json()
        found = made["model_version"]
        return VersionIdentity(name, found["version"], found["source"], found["creation_timestamp"])

    def promote(self, identity: VersionIdentity, workspace: str, who: tuple[str, str] = ADMIN) -> requests.Response:
        body = {"name": identity.name, "version": identity.version, "alias": "champion"}
        return self.ask("registered-models/alias", body, workspace, who)

    def attach(self, identity: VersionIdentity, workspace: str) -> None:
        for key, value in World.evidence(self, identity).items():  # type: ignore[arg-type]  # it has settings too
            body = {"name": identity.name, "version": identity.version, "key": key, "value": value}
            assert self.ask("model-versions/set-tag", body, workspace).ok


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    root = tmp_path_factory.mktemp("deployment")
    settings = made_settings(root)
    (root / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = MANAGE\ndatabase_uri = sqlite:///{root / 'auth.db'}\n"
        f"admin_username = {ADMIN[0]}\nadmin_password = {ADMIN[1]}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "grant_default_workspace_access = true\n",
        encoding="utf-8",
    )
    variables = {"MLFLOW_AUTH_CONFIG_PATH": str(root / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "made up"}
    options = ("--app-name", "basic-auth", "--enable-workspaces")
    with (
        postgres() as database,
        EmbeddedServer(
            root / "server",
            database=database,
            registry=settings.uri(database),
            workers=4,
            options=options,
            settings=variables,
        ) as server,
    ):
        yield Deployment(server.uri, settings)


def test_administrators_and_workspaces_need_evidence_too(deployment: Deployment) -> None:
    made = requests.post(f"{deployment.uri}/api/3.0/mlflow/workspaces", json={"name": "team-a"}, auth=ADMIN, timeout=60)
    assert made.ok, made.text
    for workspace in ("default", "team-a"):
        identity = deployment.version("assistant", workspace)
        answer = deployment.promote(identity, workspace)
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), answer.text
        assert "QuantGuard refused alias champion" in answer.json()["message"]
        deployment.attach(identity, workspace)
        assert deployment.promote(identity, workspace).status_code == 200
    # Without a password nobody gets so far.
    assert deployment.promote(identity, "default", ("admin", "wrong")).status_code == 401


def test_of_two_promoters_before_several_workers_one_wins_and_the_other_is_told(deployment: Deployment) -> None:
    rivals = [deployment.version("contested", "default", first=first) for first in (True, False)]
    for rival in rivals:
        deployment.attach(rival, "default")
        tag = {"name": rival.name, "version": rival.version, "key": "quantguard.expects.champion", "value": "none"}
        assert deployment.ask("model-versions/set-tag", tag, "default").ok
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda rival: deployment.promote(rival, "default"), rivals))
    assert sorted(answer.status_code for answer in answers) == [200, 409], [answer.text for answer in answers]
