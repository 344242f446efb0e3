"""An evidence bundle: a directory of plain files that can be checked without registry, torch or MLflow.

    decision.dsse.json         what was decided, with the digest of every other file: signed
    measurements.dsse.json     what was measured: signed, and named by the decision
    policy.yaml                the policy as one file, of which the decision has the digest
    policy/N-NAME.yaml         the files that it was written in, its own first
    waivers.yaml               as they were given, where there were any
    evidence/                  what the gate's second room left, as it was
    report/                    the report in forms for readers and programs
    environment.json           device, seed, libraries and network of the measurements
    ml-bom.cdx.json, model.sig the bill of materials, and the bytes' signature that other tools verify

Written whole or not at all. The same facts and key give the same bytes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from quantguard.attest.opened import Opened, open_evidence
from quantguard.attest.statements import Decided, Measured, decided_payload, measured_payload
from quantguard.attest.tags import SignedPair
from quantguard.core.errors import EvidenceError
from quantguard.evidence.dsse import MOST_BYTES, sign
from quantguard.evidence.keys import Signer
from quantguard.evidence.records import digest_bytes, digest_file
from quantguard.evidence.statement import PAYLOAD_TYPE
from quantguard.evidence.trusted import TrustedKeys

DECISION: Final = "decision.dsse.json"
MEASUREMENTS: Final = "measurements.dsse.json"
POLICY: Final = "policy.yaml"
MODEL_SIGNATURE: Final = "model.sig"
ML_BOM: Final = "ml-bom.cdx.json"
ENVIRONMENT: Final = "environment.json"
MOST_FILES: Final = 10_000
_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


def write_bundle(
    folder: Path, measured: Measured, decided: Decided, files: Mapping[str, bytes], signer: Signer
) -> SignedPair:
    """Sign both statements and write them with `files` (path in the bundle -> bytes) to `folder`, which is replaced.

    `decided.measurements` and `decided.files` are filled in here.

    Raises:
        EvidenceError: it cannot be written; then `folder` is as it was, or absent.
    """
    envelope = sign(PAYLOAD_TYPE, measured_payload(measured), signer).to_json()
    whole = {**files, MEASUREMENTS: envelope}
    digests = tuple(sorted((name, digest_bytes(data)) for name, data in whole.items()))
    decided = replace(decided, measurements=digest_bytes(envelope), files=digests)
    pair = SignedPair(envelope, sign(PAYLOAD_TYPE, decided_payload(decided), signer).to_json())
    _write(folder, {**whole, DECISION: pair.decision})
    return pair


def read_pair(folder: Path) -> SignedPair:
    """The two envelopes of a bundle.

    Raises:
        EvidenceError: one is not there, or is no ordinary file of a possible size.
    """
    return SignedPair(read_member(folder, MEASUREMENTS), read_member(folder, DECISION))


def read_member(folder: Path, name: str) -> bytes:
    """One file of a bundle; no link is followed.

    Raises:
        EvidenceError: it is not there, or is no ordinary file of at most 32 MiB.
    """
    path = folder / name
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        remedy = "name a bundle as the gate wrote it, or fetch it again"
        raise EvidenceError(f"cannot be read: {error.strerror or error}", path=path, remedy=remedy) from error
    if len(data) > MOST_BYTES:
        raise EvidenceError(f"larger than {MOST_BYTES} bytes", path=path, remedy="fetch the bundle again")
    return data


def members(folder: Path) -> dict[str, str]:
    """(path -> sha256:HEX) of every file of a bundle but the decision; empty for what is no ordinary file.

    Raises:
        EvidenceError: a file cannot be read, or there are more than 10,000.
    """
    found: dict[str, str] = {}
    try:
        for top, folders, names in os.walk(folder, onerror=_raise):
            links = [name for name in folders if (Path(top) / name).is_symlink()]
            for name in (*names, *links):
                path = Path(top) / name
                relative = path.relative_to(folder).as_posix()
                ordinary = path.is_file() and not path.is_symlink()
                found[relative] = digest_file(path) if ordinary else ""
                if len(found) > MOST_FILES:
                    raise EvidenceError(f"more than {MOST_FILES} files", path=folder, remedy="name a bundle")
    except OSError as error:
        remedy = "name a bundle as the gate wrote it"
        raise EvidenceError(f"cannot be read: {error.strerror or error}", path=folder, remedy=remedy) from error
    found.pop(DECISION, None)
    return found


def intact(folder: Path, keys: TrustedKeys) -> Opened | None:
    """The statements of a bundle whose signatures hold and whose files are those that were signed; otherwise None."""
    try:
        opened = open_evidence(read_pair(folder), keys)
        return opened if members(folder) == dict(opened.decided.files) else None
    except EvidenceError:
        return None


def folder_files(folder: Path, prefix: str) -> dict[str, bytes]:
    """Every file below `folder`, as it is to lie under `prefix` of a bundle; hidden ones, which are unfinished, not.

    Raises:
        EvidenceError: a file cannot be read, or is too large.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    names = (path.relative_to(folder).as_posix() for path in paths)
    return {f"{prefix}/{name}": read_member(folder, name) for name in names}


def file_name(text: str) -> str:
    """`text` as one component of a path in a bundle."""
    return _NAME.sub("-", text).strip(".-")[-80:] or "file"


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for name, data in files.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise EvidenceError(f"{name!r} is no path in a bundle", path=folder)
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        message = f"cannot write the bundle: {error.strerror or error}"
        raise EvidenceError(message, path=folder, remedy="free space there and run again") from error


def _raise(error: OSError) -> None:
    raise error
