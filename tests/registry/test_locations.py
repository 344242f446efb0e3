from __future__ import annotations

from pathlib import Path

import pytest

from quantguard.core.errors import RegistryError
from quantguard.registry.locations import ArtifactRoots, logged_model_id

SERVED = ArtifactRoots("gate.example:5000", "mlflow-artifacts:/0")
BUCKET = ArtifactRoots("gate.example:5000", "s3://models/prod/0", ("/srv/models",))


@pytest.mark.parametrize(
    ("roots", "location"),
    [
        (SERVED, "mlflow-artifacts:/1/models/m-1/artifacts"),
        (SERVED, "mlflow-artifacts://gate.example:5000/1/models/m-1/artifacts"),
        (BUCKET, "mlflow-artifacts:/1/models/m-1/artifacts"),
        (BUCKET, "s3://models/prod/7/models/m-1/artifacts"),
        (BUCKET, "/srv/models/7/artifacts"),
        (BUCKET, "file:///srv/models/7/artifacts"),
    ],
)
def test_the_registrys_own_places_are_allowed(roots: ArtifactRoots, location: str) -> None:
    roots.require(location, "models:/x/1")


@pytest.mark.parametrize(
    ("roots", "location"),
    [
        (SERVED, "mlflow-artifacts://other.example/1/artifacts"),  # MLflow would send its credentials there
        (SERVED, "mlflow-artifacts://user@gate.example:5000/1"),
        (SERVED, "mlflow-artifacts:/1/../../etc"),
        (SERVED, "mlflow-artifacts:/1/%2e%2e/etc"),
        (SERVED, "mlflow-artifacts:/1/%252e%252e/etc"),
        (SERVED, "mlflow-artifacts:/1/artifacts?x=1"),
        (SERVED, "mlflow-artifacts:/1/artifacts#x"),
        (SERVED, "s3://models/prod/7"),
        (SERVED, "/etc"),
        (SERVED, "file:///etc"),
        (SERVED, "file://host/etc"),
        (SERVED, "relative/path"),
        (SERVED, "http://gate.example:5000/api"),
        (SERVED, "models:/x/1"),
        (SERVED, "http://["),
        (SERVED, ""),
        (BUCKET, "s3://models/production/7"),
        (BUCKET, "s3://models/other"),
        (BUCKET, "s3://models2/prod/7"),
        (BUCKET, "/srv/models-not"),
        (BUCKET, "/srv/models/../x"),
        (ArtifactRoots("h", "/0"), "/etc"),  # a default root of / would trust the whole machine
        (ArtifactRoots("h", None, ("/",)), "/etc"),
    ],
)
def test_every_other_place_is_refused(roots: ArtifactRoots, location: str) -> None:
    with pytest.raises(RegistryError, match="outside the registry's own artifact store"):
        roots.require(location, "models:/x/1")


def test_a_link_that_leads_out_of_a_local_root_is_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "model").symlink_to(outside)
    roots = ArtifactRoots("h", None, (str(root),))
    with pytest.raises(RegistryError, match="leads out"):
        roots.local_path(str(root / "model"))
    assert roots.local_path("mlflow-artifacts:/1") is None


def test_a_logged_model_is_read_from_the_source() -> None:
    assert logged_model_id("models:/m-0a1b") == "m-0a1b"
    for source in ("models:/m-0a1b/1", "models:/name/3", "models:/m-../x", "runs:/m-1", "models:/m-0a1b\n"):
        assert logged_model_id(source) is None
