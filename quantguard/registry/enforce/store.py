"""MLflow's registry store, enforcing: aliases and stages that are protected go only to versions that are admitted.

What is refused is answered with 403 (PERMISSION_DENIED), a lost race with 409 (RESOURCE_CONFLICT). The verification
runs outside any transaction; the move itself is one statement, `UPDATE ... WHERE version = :incumbent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mlflow.entities.model_registry.model_version_stages import get_canonical_stage
from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
from mlflow.store.model_registry.dbmodels.models import SqlModelVersionTag, SqlRegisteredModelAlias
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
from sqlalchemy import CursorResult, delete, update
from sqlalchemy.exc import IntegrityError

from quantguard.core.model import VersionIdentity
from quantguard.registry.enforce.answers import conflict, denied
from quantguard.registry.enforce.guard import Permit, SessionMaker, guarded, permitted, require_same
from quantguard.registry.enforce.interface import (
    ADMITTED,
    EXPECTS,
    Admission,
    Allowed,
    Candidate,
    Denied,
    Memory,
    evidence_digest,
    identity_digest,
    remembers,
)

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersionTag
    from sqlalchemy.orm import Session

_NOTHING: Final = "none"


@dataclass(frozen=True, slots=True)
class _Seen:
    """A version as one transaction saw it, and who held the alias then."""

    workspace: str
    identity: VersionIdentity
    tags: dict[str, str]
    incumbent: int | None

    def permit(self, *, alias: str | None = None, stage: str | None = None) -> Permit:
        identity = self.identity
        return Permit(
            self.workspace, identity.name, int(identity.version), identity.source, identity.created, alias, stage
        )


class _Enforcing(SqlAlchemyStore):  # type: ignore[misc]  # half annotated: see pyproject.toml
    def __init__(self, db_uri: str, admission: Admission) -> None:
        self._admission = admission
        # Never a read replica: what it has not heard of yet would be decided upon.
        super().__init__(db_uri)
        unguarded: SessionMaker = self.ManagedSessionMaker
        self.ManagedSessionMaker: SessionMaker = guarded(unguarded, admission.protection)

    def set_registered_model_alias(self, name: str, alias: str, version: int | str) -> None:
        protected = self._admission.protection().alias(alias)
        if protected is None:
            super().set_registered_model_alias(name, alias, version)
            return
        what = f"alias {alias!r} for models:/{name}/{version}"
        if alias != protected:
            reason = f"it reads as {protected}, which is protected"
            raise denied(what, Denied("store.lookalike", reason, f"write it as {protected}, or use another name"))
        what = f"alias {alias} for models:/{name}/{version}"
        seen = self._see(name, version, alias)
        self._require_expected(seen, alias, what)
        allowed = self._admitted(seen, alias, what)
        with permitted(seen.permit(alias=alias)), self.ManagedSessionMaker(read_only=False) as session:
            if not _move(session, seen, alias):
                raise conflict(what, f"another promoter moved the alias, which was at {seen.incumbent or _NOTHING}")
            require_same(session, seen.permit(alias=alias))
            _remember(session, seen, alias, allowed)

    def transition_model_version_stage(
        self, name: str, version: int | str, stage: str, archive_existing_versions: bool
    ) -> Any:
        wanted = get_canonical_stage(stage)
        if wanted not in self._admission.protection().stages:
            return super().transition_model_version_stage(name, version, stage, archive_existing_versions)
        key = f"stage.{wanted}"
        seen = self._see(name, version)
        allowed = self._admitted(seen, key, f"stage {wanted} for models:/{name}/{version}")
        with permitted(seen.permit(stage=wanted)):
            moved = super().transition_model_version_stage(name, version, stage, archive_existing_versions)
            with self.ManagedSessionMaker(read_only=False) as session:
                _remember(session, seen, key, allowed)
        return moved

    def create_model_version(
        self, name: str, source: str, run_id: str | None = None, tags: list[ModelVersionTag] | None = None, **more: Any
    ) -> Any:
        """As MLflow's. Copies bring the tags of another version: what the plugin wrote for that one is left out."""
        kept = [tag for tag in tags or [] if not str(tag.key).startswith((ADMITTED, EXPECTS))]
        return super().create_model_version(name, source, run_id, kept, **more)

    def _see(self, name: str, version: int | str, alias: str | None = None) -> _Seen:
        with self.ManagedSessionMaker() as session:
            row = self._get_sql_model_version(session, name, version, eager=True)
            holder = self._get_registered_model_alias(session, name, alias) if alias is not None else None
            identity = VersionIdentity(str(row.name), str(row.version), str(row.source), int(row.creation_time))
            tags = {str(tag.key): str(tag.value) for tag in row.model_version_tags}
            return _Seen(str(row.workspace), identity, tags, int(holder.version) if holder is not None else None)

    def _require_expected(self, seen: _Seen, alias: str, what: str) -> None:
        expected, found = seen.tags.get(EXPECTS + alias), str(seen.incumbent or _NOTHING)
        if expected is not None and expected != found:
            told = f"it was to replace {expected}, by its tag {EXPECTS}{alias}, and the alias is at {found} now"
            raise conflict(what, told)

    def _admitted(self, seen: _Seen, key: str, what: str) -> Allowed:
        returning = remembers(seen.tags.get(ADMITTED + key), seen.identity, seen.tags)
        answer = self._admission.admit(Candidate(seen.identity, seen.tags, returning))
        if isinstance(answer, Denied):
            raise denied(what, answer)
        return answer


class EnforcingStore(_Enforcing):
    """Without workspaces."""


class EnforcingWorkspaceStore(_Enforcing, WorkspaceAwareSqlAlchemyStore):  # type: ignore[misc]  # as above
    """With workspaces: each request sees the models of its own."""


def enforcing_store(db_uri: str, admission: Admission) -> EnforcingStore | EnforcingWorkspaceStore:
    """The store for `mlflow server`, with or without `--enable-workspaces`.

    Raises:
        MlflowException: the database does not answer, or is not MLflow's.
    """
    workspaces = MLFLOW_ENABLE_WORKSPACES.get()  # type: ignore[no-untyped-call]  # untyped in MLflow
    return EnforcingWorkspaceStore(db_uri, admission) if workspaces else EnforcingStore(db_uri, admission)


def _move(session: Session, seen: _Seen, alias: str) -> bool:
    """Point the alias at the version if it is still where it was seen; the first statement, so that SQLite locks."""
    identity = seen.identity
    if seen.incumbent is None:
        session.add(
            SqlRegisteredModelAlias(
                workspace=seen.workspace, name=identity.name, alias=alias, version=int(identity.version)
            )
        )
        try:
            session.flush()
        except IntegrityError:
            return False
        return True
    row = SqlRegisteredModelAlias
    done = session.execute(
        update(row)
        .where(row.workspace == seen.workspace, row.name == identity.name, row.alias == alias)
        .where(row.version == seen.incumbent)
        .values(version=int(identity.version))
        .execution_options(synchronize_session=False)
    )
    return isinstance(done, CursorResult) and done.rowcount == 1


def _remember(session: Session, seen: _Seen, key: str, allowed: Allowed) -> None:
    """Write down that the version was admitted, and take what it expected away: it has happened."""
    identity, tag = seen.identity, SqlModelVersionTag
    now = datetime.now(UTC).isoformat(timespec="seconds")
    memory = Memory(identity_digest(identity), evidence_digest(seen.tags), allowed.policy, now)
    number = int(identity.version)
    session.merge(
        tag(workspace=seen.workspace, name=identity.name, version=number, key=ADMITTED + key, value=memory.text())
    )
    if EXPECTS + key in seen.tags:
        mine = (tag.workspace == seen.workspace, tag.name == identity.name, tag.version == number)
        session.execute(delete(tag).where(*mine, tag.key == EXPECTS + key))
