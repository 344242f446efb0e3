"""Every method of MLflow's registry store is known here: an MLflow with another one fails until that was read."""

from __future__ import annotations

import inspect
from types import FunctionType

from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.store.model_registry.dbmodels import models
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore

from quantguard.registry.enforce.store import EnforcingStore, EnforcingWorkspaceStore

# The plugin asks for evidence, or leaves out what is another version's.
ENFORCED = {"set_registered_model_alias", "transition_model_version_stage", "create_model_version"}
# The guard looks at what they write: names of holders, evidence of holders, the plugin's own tags.
GUARDED = {"rename_registered_model", "set_model_version_tag", "delete_model_version_tag"}
# They take a protected name away from somebody, which is always allowed, and give it to nobody.
TAKING = {"delete_registered_model_alias", "delete_model_version", "delete_registered_model"}
# They call one of those above on the same store.
THROUGH = {
    "copy_model_version",
    "create_prompt_version",
    "set_prompt_alias",
    "delete_prompt_alias",
    "delete_prompt",
    "delete_prompt_version",
    "set_prompt_version_tag",
    "delete_prompt_version_tag",
    "link_prompt_version_to_model",
    "link_prompt_version_to_run",
    "link_prompts_to_trace",
}
# They write descriptions, tags of models and webhooks: no alias, stage, source, name or tag of a version.
ELSEWHERE = {
    "create_registered_model",
    "update_registered_model",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "update_model_version",
    "create_prompt",
    "set_prompt_tag",
    "delete_prompt_tag",
    "create_webhook",
    "update_webhook",
    "delete_webhook",
    "test_webhook",
}
READING = {
    "get_registered_model",
    "search_registered_models",
    "get_latest_versions",
    "get_model_version",
    "get_model_version_by_alias",
    "get_model_version_download_uri",
    "search_model_versions",
    "get_prompt",
    "get_prompt_version",
    "get_prompt_version_by_alias",
    "search_prompts",
    "search_prompt_versions",
    "get_webhook",
    "list_webhooks",
    "list_webhooks_by_event",
    "supports_workspaces",
}
# Columns of the tables that decide which bytes a protected name stands for.
WATCHED = {
    "SqlRegisteredModelAlias": {"workspace", "name", "alias", "version"},
    "SqlModelVersion": {
        "workspace", "name", "version", "creation_time", "current_stage", "source", "storage_location",
        # of no consequence for which bytes a name stands for
        "last_updated_time", "description", "user_id", "run_id", "run_link", "status", "status_message",
    },
}  # fmt: skip


def public(kind: type) -> set[str]:
    found = {name for name, value in inspect.getmembers(kind) if isinstance(value, FunctionType | property)}
    return {name for name in found if not name.startswith("_")}


def test_every_method_of_mlflows_store_is_classified_once() -> None:
    classes = (ENFORCED, GUARDED, TAKING, THROUGH, ELSEWHERE, READING)
    known = set().union(*classes)
    assert len(known) == sum(map(len, classes))
    assert public(AbstractStore) | public(SqlAlchemyStore) | public(WorkspaceAwareSqlAlchemyStore) == known


def test_the_plugin_overrides_what_asks_for_evidence_and_nothing_else() -> None:
    for kind in (EnforcingStore, EnforcingWorkspaceStore):
        own = {name for name in public(kind) if getattr(kind, name) is not getattr(WorkspaceAwareSqlAlchemyStore, name)}
        assert own - {"supports_workspaces"} == ENFORCED
    # These would pass the guard by were they to write by themselves.
    assert not {name for name in THROUGH if name in vars(SqlAlchemyStore)}


def test_the_columns_that_say_what_a_name_stands_for_are_known() -> None:
    for name, columns in WATCHED.items():
        assert {column.key for column in getattr(models, name).__table__.columns} == columns
