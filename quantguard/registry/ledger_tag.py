"""The anchor in MLflow: a tag of the experiment that holds the gate's evidence."""

from __future__ import annotations

from typing import Final

from quantguard.core.errors import RegistryError
from quantguard.registry.mlflow_registry import MlflowRegistry
from quantguard.registry.records import EXPERIMENT

TAG: Final = "quantguard.ledger"
_MOST: Final = 5000  # characters of an experiment's tag


class MlflowAnchor:
    """As `evidence.ledger_anchors.Anchor`.

    MLflow has no compare-and-set: of two that move the tag at once the last one stays. So it may be behind the ledger
    by what others appended meanwhile, until the next append; it is never ahead.
    """

    def __init__(self, tracking_uri: str) -> None:
        """Raises:
        UsageError: not the address of a server.
        """
        from mlflow import MlflowClient

        self._registry = MlflowRegistry(tracking_uri)
        self._client = MlflowClient(tracking_uri, tracking_uri)

    @property
    def where(self) -> str:
        return "mlflow"

    def read(self) -> bytes | None:
        with self._registry.reachable("reading the ledger's anchor"):
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
        value = None if experiment is None else experiment.tags.get(TAG)
        return None if value is None else str(value).encode("utf-8", "replace")

    def move(self, line: bytes, before: bytes | None) -> bool:
        if len(line) > _MOST:
            remedy = "use shorter names of models, policies and environments, or another anchor"
            raise RegistryError(f"the entry has {len(line)} bytes, and a tag holds {_MOST}", remedy=remedy)
        if self.read() != before:
            return False
        with self._registry.reachable("writing the ledger's anchor"):
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            known = self._client.create_experiment(EXPERIMENT) if experiment is None else experiment.experiment_id
            self._client.set_experiment_tag(str(known), TAG, line.decode("ascii"))
        return True
