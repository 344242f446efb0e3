"""The last line: every flush of every session of the store is looked at, whichever method of MLflow it comes from.

A protected name may only move where a `Permit` says so. The store's own methods give permits after an admission; a
method that this version of the plugin does not know gives none, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from mlflow.store.model_registry.dbmodels.models import (
    SqlModelVersion,
    SqlModelVersionTag,
    SqlRegisteredModel,
    SqlRegisteredModelAlias,
)
from sqlalchemy import event, inspect, select
from sqlalchemy.orm import ORMExecuteState, Session

from quantguard.registry.enforce.answers import conflict, denied
from quantguard.registry.enforce.interface import ADMITTED, EVIDENCE, Denied, Protection

SessionMaker = Callable[..., AbstractContextManager[Session]]


@dataclass(frozen=True, slots=True)
class Permit:
    """One version may have one name, in one transaction."""

    workspace: str
    name: str
    version: int
    source: str
    created: int  # milliseconds since the epoch
    alias: str | None = None
    stage: str | None = None

    def is_for(self, row: Any) -> bool:
        """Whether `row` is of the version that this was given to."""
        return bool((row.workspace, row.name, row.version) == (self.workspace, self.name, self.version))


_PERMIT: ContextVar[Permit | None] = ContextVar("quantguard_permit", default=None)
_GUARDED: Final = (SqlRegisteredModelAlias, SqlModelVersion, SqlRegisteredModel, SqlModelVersionTag)
_REGISTERED_AGAIN: Final = "remove the protected alias or stage first, then set it again by evidence of its own"


@contextmanager
def permitted(permit: Permit) -> Iterator[None]:
    """Let what happens inside, in this thread, use `permit`."""
    token = _PERMIT.set(permit)
    try:
        yield
    finally:
        _PERMIT.reset(token)


def guarded(maker: SessionMaker, protection: Callable[[], Protection]) -> SessionMaker:
    """`maker`, whose sessions look at what they have flushed before it is committed."""

    @contextmanager
    def sessions(*, read_only: bool = True) -> Iterator[Session]:
        with maker(read_only=read_only) as session:
            event.listen(session, "after_flush", lambda flushed, _: _look_at(flushed, protection()))
            event.listen(session, "do_orm_execute", _refuse_bulk)
            yield session

    return sessions


def _refuse_bulk(state: ORMExecuteState) -> None:
    """Statements that change many rows at once pass no flush: of these tables, only the plugin's own."""
    if not (state.is_insert or state.is_update or state.is_delete) or _PERMIT.get() is not None:
        return
    if any(mapper.class_ in _GUARDED for mapper in state.all_mappers):
        reason = "this version of the plugin does not know this way of changing registered models"
        raise denied("a statement", Denied("store.unknown", reason, "update QuantGuard, or MLflow back"))


def _look_at(session: Session, protection: Protection) -> None:
    """After the flush and before the commit, with the locks of what was written: what others committed is seen."""
    permit = _PERMIT.get()
    for row in (*session.new, *session.dirty):
        if isinstance(row, SqlRegisteredModelAlias):
            _alias(row, permit, protection)
        elif isinstance(row, SqlModelVersion):
            _version(session, row, permit, protection)
        elif isinstance(row, SqlRegisteredModel) and _changed(row, "name", "workspace"):
            _renamed(session, row, protection)
        elif isinstance(row, SqlModelVersionTag) and str(row.key).startswith(ADMITTED):
            _memory(row, permit)
    for row in session.deleted:
        if isinstance(row, SqlModelVersionTag):
            _tag_gone(session, row, permit, protection)


def _alias(row: SqlRegisteredModelAlias, permit: Permit | None, protection: Protection) -> None:
    if protection.alias(str(row.alias)) is None:
        return
    if permit is None or permit.alias != row.alias or not permit.is_for(row):
        raise _unknown(f"alias {row.alias} of {row.name}")


def _version(session: Session, row: SqlModelVersion, permit: Permit | None, protection: Protection) -> None:
    if _changed(row, "current_stage") and row.current_stage in protection.stages:
        if permit is None or permit.stage != row.current_stage or not permit.is_for(row):
            raise _unknown(f"stage {row.current_stage} of {row.name} version {row.version}")
        require_same(session, permit)
    if _changed(row, "source", "storage_location", "creation_time", "version") and holds(session, row, protection):
        what = f"another source for {row.name} version {row.version}"
        raise denied(what, Denied("store.holder", "it holds a protected alias or stage", _REGISTERED_AGAIN))


def _renamed(session: Session, row: SqlRegisteredModel, protection: Protection) -> None:
    """Evidence names the model: under another name, or in another workspace, what stands now would have none."""
    mine = (SqlRegisteredModelAlias.workspace == row.workspace, SqlRegisteredModelAlias.name == row.name)
    aliases = session.scalars(select(SqlRegisteredModelAlias.alias).where(*mine)).all()
    own = (SqlModelVersion.workspace == row.workspace, SqlModelVersion.name == row.name)
    stages = session.scalars(select(SqlModelVersion.current_stage).where(*own).distinct()).all()
    held = [f"alias {name}" for name in aliases if protection.alias(str(name)) is not None]
    held += [f"stage {stage}" for stage in stages if stage in protection.stages]
    if held:
        reason = f"its versions hold {' and '.join(held)}, whose evidence names the model as it was"
        remedy = "register the version under the new name, and gate it there"
        raise denied(f"the new name {row.name}", Denied("store.rename", reason, remedy))


def _memory(row: SqlModelVersionTag, permit: Permit | None) -> None:
    if permit is None or not permit.is_for(row):
        raise denied(f"tag {row.key}", Denied("store.reserved", "only the plugin writes it", "use another key"))


def _tag_gone(session: Session, row: SqlModelVersionTag, permit: Permit | None, protection: Protection) -> None:
    key = str(row.key)
    if permit is not None or not key.startswith((EVIDENCE, ADMITTED)) or not _stands(session, row):
        return
    if key.startswith(ADMITTED) or holds(session, row, protection):
        what = f"to delete tag {key} of {row.name} version {row.version}"
        reason = "a protected alias or stage stands on it" if key.startswith(EVIDENCE) else "only the plugin writes it"
        raise denied(what, Denied("store.holder", reason, "remove the alias or stage first"))


def _stands(session: Session, row: SqlModelVersionTag) -> bool:
    """Whether the version of a tag is still there."""
    found = (SqlModelVersion.workspace == row.workspace, SqlModelVersion.name == row.name)
    return session.scalar(select(1).where(*found, SqlModelVersion.version == row.version)) is not None


def holds(session: Session, row: SqlModelVersion | SqlModelVersionTag, protection: Protection) -> bool:
    """Whether the version of `row` holds a protected alias or stage, as the database has it now."""
    mine = (SqlRegisteredModelAlias.workspace == row.workspace, SqlRegisteredModelAlias.name == row.name)
    held = select(SqlRegisteredModelAlias.alias).where(*mine, SqlRegisteredModelAlias.version == row.version)
    own = (SqlModelVersion.workspace == row.workspace, SqlModelVersion.name == row.name)
    stage = select(SqlModelVersion.current_stage).where(*own, SqlModelVersion.version == row.version)
    return (
        any(protection.alias(str(alias)) is not None for alias in session.scalars(held))
        or session.scalar(stage) in protection.stages
    )


def require_same(session: Session, permit: Permit) -> None:
    """Raises:
    MlflowException: the version is not the one that was admitted: deleted, or made again.
    """
    own = (SqlModelVersion.workspace == permit.workspace, SqlModelVersion.name == permit.name)
    found = session.execute(
        select(SqlModelVersion.source, SqlModelVersion.creation_time).where(
            *own, SqlModelVersion.version == permit.version
        )
    ).one_or_none()
    if found is None or tuple(found) != (permit.source, permit.created):
        raise conflict(f"anything to {permit.name} version {permit.version}", "it was deleted or made again meanwhile")


def _changed(row: Any, *names: str) -> bool:
    """Whether this flush wrote another value for one of the columns `names`."""
    attributes = inspect(row).attrs
    return any(attributes[name].history.has_changes() for name in names)


def _unknown(what: str) -> Exception:
    reason = "nobody has asked for its evidence"
    return denied(what, Denied("store.unknown", reason, "update QuantGuard: it does not know this way yet"))
