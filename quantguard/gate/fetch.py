"""The first room: network and a read-only credential; parses nothing but JSON and headers."""

from __future__ import annotations

import shutil

from quantguard.checkpoint.admit import admit
from quantguard.checkpoint.digest import model_digest
from quantguard.core.model import parse_model_ref
from quantguard.core.progress import Progress, silent
from quantguard.evidence.records import read_record, write_record
from quantguard.gate.work import Fetched, Work
from quantguard.registry.interface import Registry


def fetch(work: Work, registry: Registry, *, progress: Progress = silent) -> Fetched:
    """Bring the bytes of one model version to `work/model`, look at its files, and write down what came.

    Raises:
        RegistryError: no such version, no answer, no permission.
        NothingToGateError, CheckpointError, UnsafeCheckpointError: what came cannot be gated; it is not kept.
    """
    work.open()
    identity = registry.identify(parse_model_ref(work.asked.ref))
    before = read_record(work.fetched, "fetched", Fetched, inputs=work.asked.digest)
    if before is not None and before.identity == identity and _intact(work, before):
        return before
    for stale in (work.model, work.hardened, work.evidence, work.scratch):
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
    return work.model.is_dir() and model_digest(work.model) == fetched.model_digest
