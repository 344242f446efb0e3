"""The store by itself, with an admission that goes by a list, on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModelAlias
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import insert, update

from quantguard.registry.enforce.fake import ListedAdmission
from quantguard.registry.enforce.interface import ADMITTED, EVIDENCE, EXPECTS, Allowed, Candidate, Denied
from quantguard.registry.enforce.store import enforcing_store
from tests.postgres import postgres

_numbers = itertools.count(1)
CHAMPION = f"{ADMITTED}champion"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
        return
    with postgres() as uri:
        yield uri


@pytest.fixture(scope="module")
def admission() -> ListedAdmission:
    return ListedAdmission()


@pytest.fixture(scope="module")
def store(database: str, admission: ListedAdmission) -> Iterator[SqlAlchemyStore]:
    made: SqlAlchemyStore = enforcing_store(database, admission)
    yield made
    made._dispose_engine()


@pytest.fixture
def name(store: SqlAlchemyStore, admission: ListedAdmission) -> str:
    """A model with three versions, of which 1 and 2 are admitted."""
    name = f"model-{next(_numbers)}"
    store.create_registered_model(name)
    for number in range(3):
        store.create_model_version(name, f"s3://store/{number}")
    admission.listed |= {(name, "1"), (name, "2")}
    return name


def refused(code: str, rule: str, act: Any, *arguments: object) -> None:
    with pytest.raises(MlflowException, match=rule) as caught:
        act(*arguments)
    assert caught.value.error_code == code
    assert "What to do: " in str(caught.value)


def holder(store: SqlAlchemyStore, name: str) -> str | None:
    found = store.get_registered_model(name).aliases.get("champion")
    return None if found is None else str(found)


def tags(store: SqlAlchemyStore, name: str, version: str) -> dict[str, str]:
    return dict(store.get_model_version(name, version).tags)


def test_an_alias_goes_to_an_admitted_version_and_to_no_other(store: SqlAlchemyStore, name: str) -> None:
    store.set_registered_model_alias(name, "champion", "1")
    refused("PERMISSION_DENIED", "evidence.missing", store.set_registered_model_alias, name, "champion", "3")
    assert holder(store, name) == "1"
    store.set_registered_model_alias(name, "champion", 2)
    assert holder(store, name) == "2"
    store.set_registered_model_alias(name, "blue", "3")
    store.delete_registered_model_alias(name, "champion")
    assert store.get_registered_model(name).aliases == {"blue": 3}


def test_a_stage_goes_to_an_admitted_version_and_to_no_other(store: SqlAlchemyStore, name: str) -> None:
    move = store.transition_model_version_stage
    refused("PERMISSION_DENIED", "evidence.missing", move, name, "3", "pRoduction", False)
    move(name, "3", "Staging", False)
    move(name, "1", "Production", False)
    move(name, "2", "production", True)
    stages = [store.get_model_version(name, number).current_stage for number in "123"]
    assert stages == ["Archived", "Production", "Staging"]


def test_names_that_read_the_same_are_refused_even_with_evidence(store: SqlAlchemyStore, name: str) -> None:
    for spelling in ("Champion", "champion\n", "\uff43hampion", "ch\xe1mpion", "champion\u3164"):
        refused("PERMISSION_DENIED", "store.lookalike", store.set_registered_model_alias, name, spelling, "1")
    store.set_registered_model_alias(name, "champions", "3")
    assert store.get_registered_model(name).aliases == {"champions": 3}


def test_a_model_whose_version_holds_a_protected_name_keeps_its_own(store: SqlAlchemyStore, name: str) -> None:
    store.set_registered_model_alias(name, "champion", "1")
    refused("PERMISSION_DENIED", "store.rename", store.rename_registered_model, name, f"{name}-x")
    store.delete_registered_model_alias(name, "champion")
    store.transition_model_version_stage(name, "1", "Production", False)
    refused("PERMISSION_DENIED", "store.rename", store.rename_registered_model, name, f"{name}-x")
    store.transition_model_version_stage(name, "1", "None", False)
    store.rename_registered_model(name, f"{name}-x")
    # The memory of version 1 names the model as it was: nothing comes with the name.
    refused("PERMISSION_DENIED", "evidence.missing", store.set_registered_model_alias, f"{name}-x", "champion", "1")


def test_what_a_promoter_expects_to_replace_is_compared_and_used_up(store: SqlAlchemyStore, name: str) -> None:
    def expect(version: str, replaced: str) -> None:
        store.set_model_version_tag(name, version, ModelVersionTag(f"{EXPECTS}champion", replaced))

    expect("1", "none")
    store.set_registered_model_alias(name, "champion", "1")
    assert f"{EXPECTS}champion" not in tags(store, name, "1")
    expect("2", "none")
    refused("RESOURCE_CONFLICT", "champion is at 1|at 1 now", store.set_registered_model_alias, name, "champion", "2")
    assert holder(store, name) == "1"
    expect("2", "1")
    store.set_registered_model_alias(name, "champion", "2")
    assert holder(store, name) == "2"


@pytest.mark.parametrize("before", [None, "3"])
def test_of_two_promoters_at_once_one_wins_and_the_other_is_told(
    store: SqlAlchemyStore, admission: ListedAdmission, name: str, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is not None:
        admission.listed.add((name, before))
        store.set_registered_model_alias(name, "champion", before)
    both = Barrier(2)  # each has seen the incumbent before one of them moves it

    def admit(candidate: Candidate) -> Allowed | Denied:
        both.wait(30)
        return Allowed("both")

    monkeypatch.setattr(admission, "admit", admit)

    def promote(version: str) -> str | None:
        try:
            store.set_registered_model_alias(name, "champion", version)
        except MlflowException as error:
            return str(error.error_code)
        return None

    with ThreadPoolExecutor(2) as pool:
        answers = dict(zip("12", pool.map(promote, "12"), strict=True))
    assert sorted(answers.values(), key=str) == [None, "RESOURCE_CONFLICT"]
    assert answers[str(holder(store, name))] is None


def test_a_version_made_again_while_it_is_verified_gets_nothing(
    store: SqlAlchemyStore, admission: ListedAdmission, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def admit(candidate: Candidate) -> Allowed | Denied:
        store.delete_registered_model(name)
        store.create_registered_model(name)
        store.create_model_version(name, "s3://store/evil")
        return Allowed("the one before")

    monkeypatch.setattr(admission, "admit", admit)
    refused("RESOURCE_CONFLICT", "made again", store.set_registered_model_alias, name, "champion", "1")
    refused("RESOURCE_CONFLICT", "made again", store.transition_model_version_stage, name, "1", "Production", False)
    assert store.get_model_version(name, "1").current_stage == "None"
    assert holder(store, name) is None


def test_a_version_returns_only_as_itself_with_the_evidence_of_then(
    store: SqlAlchemyStore, admission: ListedAdmission, name: str
) -> None:
    def returning() -> bool:
        store.set_registered_model_alias(name, "champion", "1")
        return admission.asked[-1].returning

    assert not returning()
    assert returning()
    store.set_registered_model_alias(name, "champion", "2")
    assert returning()
    store.set_model_version_tag(name, "1", ModelVersionTag(f"{EVIDENCE}decision", "another"))
    assert not returning()


def test_nobody_but_the_plugin_writes_what_a_version_remembers(store: SqlAlchemyStore, name: str) -> None:
    store.set_registered_model_alias(name, "champion", "1")
    memory = tags(store, name, "1")[CHAMPION]
    set_tag = store.set_model_version_tag
    refused("PERMISSION_DENIED", "store.reserved", set_tag, name, "2", ModelVersionTag(CHAMPION, memory))
    refused("PERMISSION_DENIED", "store.reserved", set_tag, name, "1", ModelVersionTag(CHAMPION, "{}"))
    refused("PERMISSION_DENIED", "store.holder", store.delete_model_version_tag, name, "1", CHAMPION)
    copied = store.create_model_version(name, "s3://store/9", tags=[ModelVersionTag(CHAMPION, memory)])
    assert CHAMPION not in tags(store, name, str(copied.version))
    assert tags(store, name, "1")[CHAMPION] == memory


def test_evidence_stays_while_a_protected_name_stands_on_it(store: SqlAlchemyStore, name: str) -> None:
    key = f"{EVIDENCE}decision"
    store.set_model_version_tag(name, "1", ModelVersionTag(key, "signed"))
    store.set_registered_model_alias(name, "champion", "1")
    refused("PERMISSION_DENIED", "store.holder", store.delete_model_version_tag, name, "1", key)
    store.set_model_version_tag(name, "1", ModelVersionTag(key, "signed again"))
    store.delete_registered_model_alias(name, "champion")
    store.delete_model_version_tag(name, "1", key)
    assert key not in tags(store, name, "1")


def test_what_holds_a_protected_name_can_be_taken_down(store: SqlAlchemyStore, name: str) -> None:
    store.set_registered_model_alias(name, "champion", "1")
    store.transition_model_version_stage(name, "1", "Production", False)
    store.delete_model_version(name, "1")
    assert holder(store, name) is None
    store.set_registered_model_alias(name, "champion", "2")
    store.delete_registered_model(name)


def test_a_way_that_the_plugin_does_not_know_is_refused(store: SqlAlchemyStore, name: str) -> None:
    """What a later MLflow may do: write rows by methods of its own, or many rows at once."""
    row = {"workspace": "default", "name": name, "alias": "champion", "version": 3}

    def writes(act: Any) -> None:
        with store.ManagedSessionMaker(read_only=False) as session:
            act(session)

    def stage(session: Any) -> None:
        session.get(SqlModelVersion, ("default", name, 3)).current_stage = "Production"

    refused("PERMISSION_DENIED", "store.unknown", writes, lambda s: s.add(SqlRegisteredModelAlias(**row)))
    refused("PERMISSION_DENIED", "store.unknown", writes, lambda s: s.execute(insert(SqlRegisteredModelAlias), [row]))
    refused("PERMISSION_DENIED", "store.unknown", writes, stage)
    everywhere = update(SqlModelVersion).values(source="s3://evil")
    refused("PERMISSION_DENIED", "store.unknown", writes, lambda s: s.execute(everywhere))

    store.set_registered_model_alias(name, "champion", "1")

    def source(session: Any) -> None:
        session.get(SqlModelVersion, ("default", name, 1)).storage_location = "s3://evil"

    refused("PERMISSION_DENIED", "store.holder", writes, source)
    assert store.get_model_version_download_uri(name, "1") == "s3://store/0"


def test_a_prompt_is_a_registered_model_like_any_other(store: SqlAlchemyStore) -> None:
    """Its tag could be put on a model, and taken off again once the alias stands."""
    prompt = f"prompt-{next(_numbers)}"
    store.create_prompt(prompt)
    store.create_prompt_version(prompt, "Hello")
    refused("PERMISSION_DENIED", "evidence.missing", store.set_prompt_alias, prompt, "champion", 1)
    store.set_prompt_alias(prompt, "blue", 1)


def test_a_copy_brings_no_alias(store: SqlAlchemyStore, name: str) -> None:
    store.set_registered_model_alias(name, "champion", "1")
    copied = store.copy_model_version(store.get_model_version(name, "1"), f"{name}-copy")
    assert copied.aliases == []
    assert tags(store, f"{name}-copy", "1") == {}
