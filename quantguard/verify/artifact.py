"""Prove that a quantized checkpoint is the nearest rounding of vetted full-precision weights, and nothing else.

Nothing of the artefact is loaded: its tensors are read as bytes with checked headers, its JSON is parsed with limits.
The rounding it should have is computed from the vetted weights by bitsandbytes itself, one tensor at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from quantguard.checkpoint.admit import REFUSED_FROM, admit
from quantguard.checkpoint.digest import model_digest
from quantguard.checkpoint.layout import CONFIG, Checkpoint, open_checkpoint
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.artifact import ArtifactProof, Difference, Kind
from quantguard.core.errors import CheckpointError, UsageError
from quantguard.core.progress import Progress, silent
from quantguard.models.device import device_label, library_versions
from quantguard.models.foreign import said
from quantguard.models.quiet import quiet_libraries
from quantguard.verify.artifact_claim import Claim, named_dtype, read_claim
from quantguard.verify.artifact_files import compare_files, ties_embeddings
from quantguard.verify.artifact_names import Pairing, PlainTensor, QuantizedTensor, pair
from quantguard.verify.artifact_tensors import Judged, judge_plain, judge_quantized

STAGE = "proof, bytes"


def prove(
    vetted_directory: Path,
    artifact_directory: Path,
    *,
    device: str,
    allow_cast: bool = False,
    progress: Progress = silent,
) -> ArtifactProof:
    """Compare every tensor and every file of the artefact with the vetted model.

    Args:
        device: `cpu` or `cuda:N`; where the rounding is computed.
        allow_cast: weights that were converted to the artefact's dtype before they were quantized are no difference.

    Raises:
        UsageError: one of the two is no directory, or the vetted model is quantized itself.
        UnsafeCheckpointError: the vetted model holds what must never be loaded.
        CheckpointError: one of the two cannot be read as a checkpoint; or the artefact is not quantized, or not with
            bitsandbytes.
    """
    vetted = admit(vetted_directory)
    if vetted.config.get("quantization_config") is not None:
        message = "is quantized itself, so that nothing can be proved against it"
        raise UsageError(message, path=vetted_directory, remedy="name the full-precision model that was vetted")
    unsafe = _unsafe(artifact_directory)
    artifact = open_checkpoint(artifact_directory)
    claim = read_claim(artifact.config, artifact_directory)
    dtype = named_dtype(vetted.config, vetted_directory)
    pairing = pair(vetted, artifact, claim, tied=ties_embeddings(vetted.config))
    judged = _judge(vetted, artifact, claim, pairing, vetted_dtype=dtype, device=device, progress=progress)
    files, absent = compare_files(vetted, artifact)
    differences = (*unsafe, *_settings(claim, pairing), *pairing.differences, *_of(judged), *files)
    cast = sum(one.cast for one in judged)
    return ArtifactProof(
        vetted=str(vetted_directory),
        vetted_digest=model_digest(vetted_directory, progress=_told_in_bytes(progress, "vetted model")),
        artifact=str(artifact_directory),
        artifact_digest=model_digest(artifact_directory, progress=_told_in_bytes(progress, "artefact")),
        scheme=claim.scheme,
        nested=claim.nested,
        dtype=claim.dtype,
        quantized=len(pairing.quantized),
        codes=sum(one.values for one in judged[: len(pairing.quantized)]),
        unquantized=len(pairing.plain),
        cast=cast,
        differences=tuple(d for d in differences if not (allow_cast and d.kind is Kind.CAST)),
        notes=(*claim.notes, *_cast_note(cast, claim, allowed=allow_cast), *pairing.notes, *absent),
        device=device_label(device),
        libraries=library_versions(),
    )


def _of(judged: Iterable[Judged]) -> Iterator[Difference]:
    return (difference for one in judged for difference in one.differences)


def _told_in_bytes(progress: Progress, what: str) -> Progress:
    def told(stage: str, done: int, total: int, detail: str = "") -> None:
        progress(f"{stage} of the {what}, bytes", done, total, detail)

    return told


def _unsafe(directory: Path) -> tuple[Difference, ...]:
    findings = (finding for finding in unsafe_files(directory) if finding.severity.at_least(REFUSED_FROM))
    return tuple(Difference(Kind.UNSAFE, found.where, f"[{found.rule}] {found.message}") for found in findings)


def _settings(claim: Claim, pairing: Pairing) -> Iterator[Difference]:
    for setting in claim.unusual:
        yield Difference(Kind.SETTINGS, CONFIG, setting)
    if not pairing.quantized:
        message = "its quantization_config says that it is quantized, and none of its tensors is"
        yield Difference(Kind.SETTINGS, CONFIG, message)


def _cast_note(count: int, claim: Claim, *, allowed: bool) -> tuple[str, ...]:
    if not count or not allowed:
        return ()
    return (
        f"{count} tensors were converted to {claim.dtype}, with a loss: what was measured in another dtype is not it",
    )


def _judge(
    vetted: Checkpoint,
    artifact: Checkpoint,
    claim: Claim,
    pairing: Pairing,
    *,
    vetted_dtype: str,
    device: str,
    progress: Progress,
) -> tuple[Judged, ...]:
    """The quantized tensors first, in the order of the pairing."""
    tensors: list[QuantizedTensor | PlainTensor] = [*pairing.quantized, *pairing.plain]
    total = sum(tensor.entry.end - tensor.entry.begin for tensor in tensors)
    done, judged = 0, []
    with quiet_libraries():
        for tensor in tensors:
            progress(STAGE, done, total)
            if isinstance(tensor, QuantizedTensor):
                judged.append(_quantized(vetted, artifact, tensor, claim, device))
            else:
                judged.append(judge_plain(vetted, artifact, tensor, claim, vetted_dtype=vetted_dtype))
            done += tensor.entry.end - tensor.entry.begin
    progress(STAGE, done, total)
    return tuple(judged)


def _quantized(vetted: Checkpoint, artifact: Checkpoint, tensor: QuantizedTensor, claim: Claim, device: str) -> Judged:
    try:
        return judge_quantized(vetted, artifact, tensor, claim, device)
    except (RuntimeError, MemoryError) as error:  # torch's word for too little memory, and for a kernel that fails
        raise CheckpointError(
            f"{tensor.entry.name!r:.120}: bitsandbytes cannot quantize the vetted weight: {said(error)}",
            path=vetted.root,
            remedy="use a machine with more memory, or another --device",
        ) from error
