"""The registry's plugin, decided by signed evidence: the answer to `registry.enforce.interface.Admission`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from quantguard.attest.admission import Admitted, Rules, admit
from quantguard.core.attestation import DEFAULT_ENVIRONMENT
from quantguard.core.errors import QuantGuardError
from quantguard.evidence.trusted import read_trusted
from quantguard.policy.load import LoadedPolicy, load_policy
from quantguard.registry.enforce.interface import Allowed, Candidate, Denied, Protection
from quantguard.registry.enforce.settings import StoreSettings, store_settings

if TYPE_CHECKING:
    from quantguard.registry.enforce.store import EnforcingStore, EnforcingWorkspaceStore

_logger: Final = logging.getLogger(__name__)
_FOREVER: Final = 1_000_000  # days
_BROKEN: Final = Denied(
    "store.settings",
    "the policy or the keys of this server cannot be read any more",
    "ask whoever runs the server: its log says what is wrong, and it needs no restart once that is mended",
)


def registry_store(store_uri: str, tracking_uri: str | None = None) -> EnforcingStore | EnforcingWorkspaceStore:
    """What MLflow calls for a registry store at `quantguard://...`: one that moves no alias without evidence.

    Raises:
        QuantGuardError: the address, the policy or the keys are not usable: then the server does not start.
    """
    del tracking_uri
    from quantguard.registry.enforce.store import enforcing_store

    settings = store_settings(store_uri, default_environment=DEFAULT_ENVIRONMENT)
    return enforcing_store(settings.db, EvidenceAdmission(settings))


@dataclass(frozen=True, slots=True)
class _Loaded:
    rules: Rules
    protection: Protection
    files: tuple[tuple[int, int, int], ...]  # inode, size and modification time of every file that was read


class EvidenceAdmission:
    """Decides by the policy and the keys as they are in their files now: a change needs no restart.

    Where they cannot be read any more, what was protected stays protected and nothing is admitted.
    """

    def __init__(self, settings: StoreSettings, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises:
        QuantGuardError: the policy or the keys cannot be read.
        """
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._loaded = _load(settings)
        self._broken: tuple[tuple[int, int, int], ...] | None = None  # the files as they were when reading them failed

    def protection(self) -> Protection:
        self._current()
        return self._loaded.protection

    def admit(self, candidate: Candidate) -> Allowed | Denied:
        rules = self._current()
        if rules is None:
            return _BROKEN
        policy = rules.policy
        if candidate.returning and policy.policy.registry.rollback:
            rules = replace(rules, policy=_ageless(policy))
        answer = admit(candidate.tags, candidate.identity, rules, now=self._clock())
        if isinstance(answer, Admitted):
            return Allowed(f"{policy.policy.name} {policy.digest}")
        return Denied(answer.rule.value, answer.message, answer.remedy)

    def _current(self) -> Rules | None:
        """The rules in force; None where they cannot be read."""
        with self._lock:
            files = _stats(self._settings, self._loaded.rules.policy)
            if files == self._broken:
                return None
            if files != self._loaded.files:
                try:
                    self._loaded = _load(self._settings)
                except QuantGuardError as error:
                    self._broken = files
                    _logger.error("no protected alias is given until this is mended: %s", error)  # noqa: TRY400
                    return None
                _logger.info("policy and keys were read again")
            self._broken = None
            return self._loaded.rules


def _load(settings: StoreSettings) -> _Loaded:
    before = tuple(_stat(path) for path in _named(settings))  # a file that changes meanwhile is read again next time
    policy = load_policy(settings.policy)
    rules = Rules(policy, read_trusted(settings.keys), settings.environment)
    registry = policy.policy.registry
    aliases = tuple(dict.fromkeys((registry.alias, *registry.protected)))
    stages = tuple(stage.value for stage in registry.stages)
    return _Loaded(rules, Protection(aliases, stages), (*before, *_inputs(policy)))


def _ageless(policy: LoadedPolicy) -> LoadedPolicy:
    """`policy`, which takes evidence of any age."""
    evidence = policy.policy.evidence.model_copy(update={"max_age_days": _FOREVER})
    return replace(policy, policy=policy.policy.model_copy(update={"evidence": evidence}))


def _stats(settings: StoreSettings, policy: LoadedPolicy) -> tuple[tuple[int, int, int], ...]:
    return (*(_stat(path) for path in _named(settings)), *_inputs(policy))


def _named(settings: StoreSettings) -> Iterator[Path]:
    """The files of the address: the policy, the keys, and the keys beside a keyring."""
    yield settings.policy
    yield settings.keys
    folder = settings.keys if settings.keys.is_dir() else settings.keys.parent
    yield from sorted(folder.glob("*.pem"))


def _inputs(policy: LoadedPolicy) -> Iterator[tuple[int, int, int]]:
    yield from (_stat(layer.document.path) for layer in policy.written.layers)
    yield from (_stat(file.path) for file in policy.inputs)


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)
