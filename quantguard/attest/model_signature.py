"""A signature over a model's files in OpenSSF's format, so that anybody's `model_signing verify` accepts it.

The format is model-signing's v1.0: an in-toto statement that lists every file with its SHA-256, in a DSSE envelope, in
a Sigstore bundle that names the key by a hash. It is written and read here, from the manifest that the gate has anyway
(`checkpoint.digest`), so that the files are hashed once and the private key is never a file for another library; the
tests have the real command line verify ours, and ours verify what it signs.

model-signing lets a signature say which paths it ignores, and a verifier then leaves them out. Here a signature says
nothing of the kind that counts: the files of the directory must be those that are listed, neither more nor less. Only
git's own files at the top are no part of a model, for both (`checkpoint.digest.GIT_FILES`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from quantguard.checkpoint.digest import GIT_FILES, FileDigest, manifest, root_digest
from quantguard.checkpoint.files import distinct, parse_json, quote
from quantguard.core.errors import EvidenceError, ForgedEvidenceError
from quantguard.core.progress import Progress, silent
from quantguard.evidence.dsse import Envelope, read_envelope, sign, verify
from quantguard.evidence.keys import Signer
from quantguard.evidence.records import canonical_json
from quantguard.evidence.trusted import TrustedKey, TrustedKeys

T = TypeVar("T")

FILE_NAME: Final = "model.sig"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_LONGEST: Final = 16 * 1024 * 1024  # bytes; 20,000 files, as many as a model may have, take 6 million
_REMEDY: Final = "sign the model again"
_FETCH: Final = "fetch the model again; if it comes the same, find out who changed it"


def sign_model(directory: Path, signer: Signer, *, name: str = "", progress: Progress = silent) -> bytes:
    """The content of a `model.sig` for the files of `directory`; `progress` counts hashed bytes.

    `name` is for a reader; without one it is the directory's. Keep the file outside of the directory: inside it would
    be one file more than was signed.

    Raises:
        UsageError, UnsafeCheckpointError, CheckpointError: as `checkpoint.digest.manifest`.
    """
    return sign_manifest(manifest(directory, progress=progress), signer, name=name or directory.resolve().name)


def sign_manifest(files: Sequence[FileDigest], signer: Signer, *, name: str) -> bytes:
    """As `sign_model`, of files that were hashed before."""
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root_digest(files).removeprefix("sha256:")}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": sorted(GIT_FILES),
            },
            "resources": [{"name": file.path, "algorithm": "sha256", "digest": file.sha256} for file in files],
        },
    }
    envelope = sign(PAYLOAD_TYPE, canonical_json(statement), signer)
    signatures = [
        {"sig": base64.b64encode(found.value).decode("ascii"), "keyid": found.key_id} for found in envelope.signatures
    ]
    bundle = {
        "mediaType": _BUNDLE,
        # model-signing compares this with the SHA-256 of the public key in PEM.
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(signer.public.pem()).hexdigest()}},
        "dsseEnvelope": {
            "payload": base64.b64encode(envelope.payload).decode("ascii"),
            "payloadType": envelope.payload_type,
            "signatures": signatures,
        },
    }
    return canonical_json(bundle) + b"\n"


def verify_model(directory: Path, signature: bytes, keys: TrustedKeys, *, progress: Progress = silent) -> TrustedKey:
    """Whose signature it is, once the files of `directory` are known to be exactly those that it lists.

    When a key is in force the caller asks of the key: a signature of this format says no time.

    Raises:
        ForgedEvidenceError: by nobody who is trusted, or a file was changed, added or taken away; it is named.
        EvidenceError: not a signature of this format.
        UsageError, UnsafeCheckpointError, CheckpointError: as `checkpoint.digest.manifest`.
    """
    # The signature first: reading what an untrusted directory holds may take long.
    listed, key = read_signature(signature, keys)
    _compare(listed, manifest(directory, progress=progress))
    return key


def verify_manifest(files: Sequence[FileDigest], signature: bytes, keys: TrustedKeys) -> TrustedKey:
    """As `verify_model`, of files that were hashed before."""
    listed, key = read_signature(signature, keys)
    _compare(listed, files)
    return key


def read_signature(signature: bytes, keys: TrustedKeys) -> tuple[dict[str, str], TrustedKey]:
    """(path -> SHA-256 in hexadecimal digits) of the files that were signed, and by whom.

    Raises:
        ForgedEvidenceError: by nobody who is trusted.
        EvidenceError: not a signature of this format, or one that lists no whole files.
    """
    if len(signature) > _LONGEST:
        raise EvidenceError(f"a model signature of more than {_LONGEST} bytes", remedy=_REMEDY)
    envelope = _read(_envelope, signature)
    verified = verify(envelope, keys, payload_type=PAYLOAD_TYPE)
    return _read(_listed, verified.payload), verified.signers[0]


def _read(reader: Callable[[Any], T], data: bytes) -> T:
    try:
        return reader(parse_json(data, pairs=distinct))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvidenceError(f"not a signature over the files of a model: {error!r:.100}", remedy=_REMEDY) from error


def _envelope(bundle: Any) -> Envelope:
    if bundle["mediaType"] != _BUNDLE:
        raise ValueError("another kind of bundle")
    return read_envelope(canonical_json(bundle["dsseEnvelope"]))


def _listed(statement: Any) -> dict[str, str]:
    """The files of model-signing's statement, each once; a signed root digest that is not theirs is a ValueError."""
    if (statement["_type"], statement["predicateType"]) != (_STATEMENT, _PREDICATE):
        raise ValueError("another kind of statement")
    predicate = statement["predicate"]
    how = predicate["serialization"]
    if (how["method"], how["hash_type"]) != ("files", "sha256"):
        raise ValueError("files that are hashed in pieces, or not by SHA-256")
    rows = [FileDigest(row["name"], row["digest"], 0) for row in predicate["resources"] if row["algorithm"] == "sha256"]
    listed = {row.path: row.sha256 for row in rows}
    if len(listed) != len(predicate["resources"]):
        raise ValueError("a file is listed twice, or not by SHA-256")
    if any(path.split("/", 1)[0] in GIT_FILES for path in listed):
        raise ValueError("git's own files, which are no part of a model here")
    (subject,) = statement["subject"]
    if "sha256:" + subject["digest"]["sha256"] != root_digest(rows):
        raise ValueError("the subject's digest is not that of the files")
    return listed


def _compare(listed: dict[str, str], files: Sequence[FileDigest]) -> None:
    found = {file.path: file.sha256 for file in files}
    for said, paths in (
        ("was not signed", found.keys() - listed.keys()),
        ("was signed and is not there", listed.keys() - found.keys()),
        ("is not what was signed", {path for path in found.keys() & listed.keys() if found[path] != listed[path]}),
    ):
        if paths:
            more = f", and {len(paths) - 1} more" if len(paths) > 1 else ""
            raise ForgedEvidenceError(f"{quote(min(paths))} {said}{more}", remedy=_FETCH)
