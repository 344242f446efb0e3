"""The first room: network and a read-only credential; parses nothing but JSON and headers."""

from __future__ import annotations

import shutil

from quantguard.checkpoint.admit import admit
from quantguard.checkpoint.digest import model_digest
from quantguard.core.errors import UsageError
from quantguard.core.model import LocalDirectory, VersionIdentity, parse_model_ref
from quantguard.core.progress import Progress, silent
from quantguard.evidence.records import read_record, write_record
from quantguard.gate.work import Fetched, Work
from quantguard.registry.interface import Registry


def fetch(work: Work, registry: Registry, *, progress: Progress = silent) -> Fetched:
    """Bring the bytes of one model version to `work/model`, look at its files, and write down what came.

    Raises:
        RegistryError: no such version, no answer, no permission.
        NothingToGateError, CheckpointError, UnsafeCheckpointError: what came cannot be gated; it is not kept.
        UsageError: the work directory lies inside the model.
    """
    ref = parse_model_ref(work.asked.ref)
    if isinstance(ref, LocalDirectory) and work.root.resolve().is_relative_to(ref.path.resolve()):
        raise UsageError(
            "the work directory lies inside the model", path=work.root, remedy="use another --work directory"
        )
    with work.opened():
        return _fetch(work, registry, registry.identify(ref), progress)


def _fetch(work: Work, registry: Registry, identity: VersionIdentity, progress: Progress) -> Fetched:
    before = read_record(work.fetched, "fetched", Fetched, inputs=work.asked.digest)
    if before is not None and before.identity == identity and _intact(work, before):
        return before
    for stale in (work.model, work.hardened, work.evidence, work.errands.root, work.scratch, work.report, work.signed):
        shutil.rmtree(stale, ignore_errors=True)
    work.fetched.unlink(missing_ok=True)
    work.published.unlink(missing_ok=True)
    registry.download(identity, work.model, progress=progress)
    try:
        admit(work.model)
        digest = model_digest(work.model)
    except BaseException:
        shutil.rmtree(work.model, ignore_errors=True)
        raise
    fetched = Fetched(identity, digest)
    write_record(work.fetched, "fetched", Fetched, fetched, inputs=work.asked.digest)
    return fetched


def _intact(work: Work, fetched: Fetched) -> bool:
    """Whether the bytes that came are still here, and are still what the user named."""
    if not work.model.is_dir() or model_digest(work.model) != fetched.model_digest:
        return False
    ref = parse_model_ref(work.asked.ref)
    # A registered version has an identity of its own; a directory may hold another model tomorrow.
    return not isinstance(ref, LocalDirectory) or model_digest(ref.path) == fetched.model_digest
