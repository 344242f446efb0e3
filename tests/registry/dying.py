"""An MLflow client that dies, as a process does under kill -9, after so many writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient

WRITES = frozenset(
    {
        "create_experiment",
        "create_run",
        "update_run",
        "set_tag",
        "log_artifacts",
        "log_inputs",
        "log_outputs",
        "create_logged_model",
        "log_model_artifact",
        "finalize_logged_model",
        "create_model_version",
        "set_model_version_tag",
        "set_registered_model_alias",
        "delete_registered_model_alias",
    }
)


class KilledError(BaseException):
    """Not an Exception: nothing on the way may handle it, as nothing handles a kill."""


class DyingClient(MlflowClient):
    """`survives` writes go through, the next one raises instead; `done` names those that went through."""

    def __init__(self, uri: str, survives: int) -> None:
        self.survives = survives
        self.done: list[str] = []
        super().__init__(uri, uri)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        return self._mortal(name, value) if name in WRITES else value

    def _mortal(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if len(self.done) >= self.survives:
                raise KilledError(name)
            result = method(*args, **kwargs)
            self.done.append(name)
            return result

        return call


class WatchingClient(MlflowClient):
    """Calls `after[name]` once the method `name` returned: another user of the registry, at the worst moment."""

    def __init__(self, uri: str, after: dict[str, Callable[[], None]]) -> None:
        self.after = after
        super().__init__(uri, uri)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name == "after" or name not in self.after:
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            self.after[name]()
            return result

        return call
