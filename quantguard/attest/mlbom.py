"""The ML-BOM of one decided version: CycloneDX 1.6 as a document, built by hand and validated strictly.

The library that writes other bills of materials knows no model cards, so the document is made here; what it must look
like is said by CycloneDX's own JSON schema, which the library brings and `require_valid` applies.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from quantguard import __version__
from quantguard.attest.mlbom_metrics import Metric, metrics
from quantguard.checkpoint.digest import FileDigest, root_digest
from quantguard.core.attestation import Attested
from quantguard.core.errors import EvidenceError
from quantguard.core.finding import Finding
from quantguard.core.hardening import HardeningSummary
from quantguard.core.measurement import Measurements
from quantguard.core.model import VersionIdentity
from quantguard.core.scheme import FULL_PRECISION
from quantguard.core.verdict import Decision
from quantguard.evidence.records import canonical_json
from quantguard.report.text import visible

_SHA256: Final = re.compile(r"sha256:([0-9a-f]{64})\Z")
_MODEL: Final = "model"  # bom-ref of the version itself
# Listed at most: the validator compares every component with every other, 20,000 for more than ten minutes. The digest
# of the model and its signature cover all files.
_MOST_FILES: Final = 200
_MOST_ROWS: Final = 200  # of findings and of reasons
_NAME, _SENTENCE = 200, 500  # characters kept of names and of sentences that others wrote

_LIMITATIONS: Final = (
    "The figures are of the probes and tasks that are listed as datasets, and say nothing of other prompts.",
    "A scheme that is not among the slices was not measured.",
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a hardened derivative was made of, and how."""

    identity: VersionIdentity
    model_digest: str  # sha256:HEX of the original's bytes
    summary: HardeningSummary


def ml_bom(
    attested: Attested, decision: Decision, *, files: Sequence[FileDigest] = (), origin: Origin | None = None
) -> bytes:
    """The document as canonical JSON. The same facts give the same bytes: its number is made of its content.

    `files` are those of the model, as `checkpoint.digest.manifest` gives them; `origin` is for a hardened derivative.
    What others wrote (names of models, files and tasks) is cut and holds no control characters.

    Raises:
        EvidenceError: it is not valid CycloneDX 1.6; a defect of ours.
    """
    rows = metrics(attested.measurements) if attested.measurements is not None else ()
    datasets = tuple(_datasets(attested.measurements))
    libraries = tuple(_libraries(attested))
    model = {
        **_model(attested.binding.identity, attested.binding.model_digest, ref=_MODEL),
        "components": [_file(file) for file in files[:_MOST_FILES]],
        "modelCard": _card(attested, decision, rows, datasets),
        "properties": _properties(attested, decision, files),
        **({"pedigree": _pedigree(origin)} if origin is not None else {}),
    }
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": attested.decided_at,
            "tools": {"components": [{"type": "application", "name": "quantguard", "version": __version__}]},
            "component": model,
        },
        "components": [*datasets, *libraries],
        "dependencies": [{"ref": _MODEL, "dependsOn": [library["bom-ref"] for library in libraries]}],
        **({"formulation": [_formula(origin)]} if origin is not None else {}),
    }
    number = uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(canonical_json(document)).hexdigest())
    data = canonical_json({**document, "serialNumber": f"urn:uuid:{number}"})
    require_valid(data)
    return data


def require_valid(data: bytes) -> None:
    """Raises:
    EvidenceError: `data` is not CycloneDX 1.6 by its strict JSON schema.
    """
    # 1.4 s to import, nearly all of it jsonschema: nobody pays who writes no bill of materials.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if (problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode())) is not None:
        raise EvidenceError(
            f"the ML-BOM is not CycloneDX 1.6: {visible(str(problem), _SENTENCE)}",
            remedy="this is a defect of QuantGuard: report it with the model's evidence",
        )


def _model(identity: VersionIdentity, digest: str, *, ref: str) -> dict[str, Any]:
    registered = {"purl": f"pkg:mlflow/{_quoted(identity.name)}@{_quoted(identity.version)}"}
    return {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": visible(identity.name, _NAME),
        "version": visible(identity.version, _NAME),
        "hashes": _hashes(digest),
        **(registered if identity.created else {}),  # a directory that was never registered has no address
    }


def _quoted(text: str) -> str:
    return quote(visible(text, _NAME), safe="")


def _hashes(digest: str) -> list[dict[str, str]]:
    match = _SHA256.match(digest)
    return [{"alg": "SHA-256", "content": match[1]}] if match else []


def _file(file: FileDigest) -> dict[str, Any]:
    return {
        "type": "file",
        "name": visible(file.path, _NAME),
        "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        "properties": [_property("size", str(file.size))],
    }


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"quantguard:{visible(name, _NAME)}", "value": visible(value, _SENTENCE)}


def _properties(attested: Attested, decision: Decision, files: Sequence[FileDigest]) -> list[dict[str, str]]:
    identity = attested.binding.identity
    return [
        # The hash of the component is this digest, over names, sizes and hashes of all files (docs/decisions/0003).
        _property("model-digest", attested.binding.model_digest),
        *([_property("openssf-digest", root_digest(files)), _property("files", str(len(files)))] if files else []),
        _property("verdict", attested.verdict.value),
        _property("subject", decision.subject.value),
        _property("environment", attested.binding.environment),
        _property("policy", f"{attested.policy_name} {attested.policy_digest}"),
        _property("source", identity.source),
        _property("created", str(identity.created)),
        _property("measured-at", attested.measured_at),
        *_rows("reason", [f"{reason.outcome.value}: {reason.sentence()}" for reason in decision.reasons]),
        *_rows("finding", [_finding(found) for found in attested.findings]),
        *(
            _property("waiver", f"{w.rule} ({w.scheme}) until {w.expires}, by {w.approver}: {w.reason}")
            for w in attested.waivers
        ),
    ]


def _finding(found: Finding) -> str:
    return f"{found.severity.value}: {found.rule} ({visible(found.where, _NAME)}): {found.message}"


def _rows(name: str, told: Sequence[str]) -> Iterator[dict[str, str]]:
    for text in told[:_MOST_ROWS]:
        yield _property(name, text)
    if len(told) > _MOST_ROWS:
        yield _property(name, f"and {len(told) - _MOST_ROWS} more, in the evidence")


def _datasets(measured: Measurements | None) -> Iterator[dict[str, Any]]:
    """What the model was asked, each once, by the digest that its measurement names."""
    if measured is None:
        return
    names: dict[str, list[str]] = {}
    for digest, name in _asked(measured):
        if digest and name not in names.setdefault(digest, []):
            names[digest].append(name)
    for number, (digest, uses) in enumerate(names.items(), 1):
        yield {
            "type": "data",
            "bom-ref": f"dataset-{number}",
            "name": visible(", ".join(uses), _NAME),
            "hashes": _hashes(digest),
            "data": [{"type": "dataset", "description": visible(f"evaluation, {digest}", _SENTENCE)}],
        }


def _asked(measured: Measurements) -> Iterator[tuple[str, str]]:
    """(digest, what it is: its suite where it is a built-in one)."""
    for attack in measured.attacks:
        yield attack.probe_set, attack.suite or f"attack_success.{attack.scenario.value}"
    for benchmark in measured.benchmarks:
        yield benchmark.task_digest, ", ".join(benchmark.suites) or f"benchmark.{benchmark.task}"
    for drift in measured.drifts:
        yield drift.prompts, "counterfactual"
    for perplexity in measured.perplexities:
        yield perplexity.prompts, "perplexity"
    for hunt in measured.hunts:
        yield hunt.prompts, "triggers"


def _libraries(attested: Attested) -> Iterator[dict[str, Any]]:
    if attested.measurements is None:
        return
    for number, (name, version) in enumerate(attested.measurements.environment.versions, 1):
        yield {
            "type": "library",
            "bom-ref": f"library-{number}",
            "name": visible(name, _NAME),
            "version": visible(version, _NAME),
            "purl": f"pkg:pypi/{_quoted(name.lower().replace('_', '-'))}@{_quoted(version)}",
        }


def _card(
    attested: Attested, decision: Decision, rows: Sequence[Metric], datasets: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    unknown = [f"{row.kind} ({row.scheme}): {row.said}" for row in rows if row.value is None]
    failed = [reason.sentence() for reason in decision.failures()]
    schemes = sorted({row.scheme for row in rows if row.value is not None})
    limits = [*_LIMITATIONS, *failed, *unknown]
    if attested.measurements is None:
        limits.append("Nothing was measured.")
    return {
        "bom-ref": "model-card",
        "modelParameters": {"datasets": [{"ref": dataset["bom-ref"]} for dataset in datasets]},
        "quantitativeAnalysis": {"performanceMetrics": [_metric(row) for row in rows if row.value is not None]},
        "considerations": {
            "useCases": [_use(scheme) for scheme in schemes],
            "technicalLimitations": [visible(limit, _SENTENCE) for limit in limits],
        },
        "properties": [
            *(_property(f"counts:{row.kind}:{row.scheme}", _counted(row)) for row in rows),
            *_surroundings(attested),
        ],
    }


def _use(scheme: str) -> str:
    return "measured in full precision" if scheme == FULL_PRECISION else f"measured as it is deployed: {scheme}"


def _surroundings(attested: Attested) -> list[dict[str, str]]:
    if attested.measurements is None:
        return []
    environment = attested.measurements.environment
    return [_property("device", environment.device), _property("seed", str(environment.seed))]


def _counted(row: Metric) -> str:
    return row.said if row.bounds is None else f"{row.said}; confidence {row.bounds[2]:g}"


def _metric(row: Metric) -> dict[str, Any]:
    found: dict[str, Any] = {"type": visible(row.kind, _NAME), "value": _figure(row.value), "slice": row.scheme}
    if row.bounds is not None:
        lower, upper, _ = row.bounds
        found["confidenceInterval"] = {"lowerBound": _figure(lower), "upperBound": _figure(upper)}
    return found


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _pedigree(origin: Origin) -> dict[str, Any]:
    ancestor = _model(origin.identity, origin.model_digest, ref="original")
    shares = ", ".join(f"{share:.3%} of {scheme.value}" for scheme, share in origin.summary.flipped_share)
    return {
        "ancestors": [ancestor],
        "notes": visible(f"roundings changed by {origin.summary.method}: {shares or 'none'}", _SENTENCE),
    }


def _formula(origin: Origin) -> dict[str, Any]:
    summary = origin.summary
    properties = [
        _property("method", summary.method),
        _property("schemes", ", ".join(scheme.value for scheme in summary.schemes)),
        _property("steps", str(summary.steps)),
    ]
    if summary.calibration is not None:
        used = summary.calibration
        properties.append(_property("calibration", f"{used.source}, {used.count} prompts, {used.digest}"))
    workflow = {
        "bom-ref": "hardening",
        "uid": "hardening",
        "name": "quantguard harden",
        "taskTypes": ["other"],
        "inputs": [{"resource": {"ref": "original"}}],
        "outputs": [{"type": "artifact", "resource": {"ref": _MODEL}}],
        "properties": properties,
    }
    return {"bom-ref": "formula", "workflows": [workflow]}
