"""What a client of the registry is told, as MLflow's own errors: 403 where evidence is wanting, 409 where it moved."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, RESOURCE_CONFLICT

from quantguard.registry.enforce.interface import Denied
from quantguard.registry.errors import WHAT_TO_DO


def denied(what: str, reason: Denied) -> MlflowException:
    """`what` is what was asked, e.g. `alias champion for models:/m/3`."""
    text = f"QuantGuard refused {what} ({reason.rule}): {reason.message}{WHAT_TO_DO}{reason.remedy}"
    return MlflowException(text, error_code=PERMISSION_DENIED)


def conflict(what: str, found: str) -> MlflowException:
    """`found` is how the registry differs from what the promoter went by."""
    text = f"QuantGuard did not move {what}: {found}{WHAT_TO_DO}look at the model's versions, then ask again"
    return MlflowException(text, error_code=RESOURCE_CONFLICT)
