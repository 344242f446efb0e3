"""The ML-BOM is strict CycloneDX 1.6, says every figure with its interval, and the same facts give the same bytes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from packageurl import PackageURL

from quantguard.attest.mlbom import Origin, ml_bom, require_valid
from quantguard.attest.mlbom_metrics import metrics
from quantguard.checkpoint.digest import FileDigest
from quantguard.core.attestation import Attested, Binding
from quantguard.core.errors import EvidenceError
from quantguard.core.finding import Finding, Severity
from quantguard.core.hardening import CalibrationUsed, HardeningSummary
from quantguard.core.measurement import Unmeasured
from quantguard.core.model import VersionIdentity
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Decision, Subject, Verdict
from quantguard.core.waiver import Waiver
from tests.report.made import MET, NASTY, NEAR, VIOLATED, decision, measurements

DIGEST = "sha256:" + "ab" * 32
IDENTITY = VersionIdentity("assistant", "3", "models:/m-17", 1_795_000_000_000, "r1")
FILES = (FileDigest("config.json", "00" * 32, 2), FileDigest("model.safetensors", "11" * 32, 4096))
MEASURED = measurements(Subject.ORIGINAL, backdoored=(Scheme.NF4,))
ATTESTED = Attested(
    binding=Binding(IDENTITY, DIGEST, "production"),
    subject=Subject.ORIGINAL,
    measurements=MEASURED,
    findings=(),
    inputs=(("attack_success.content_injection.probes", DIGEST),),
    policy_digest=DIGEST,
    policy_name="standard",
    measured_at="2026-11-27T20:00:00Z",
    decided_at="2026-11-27T20:00:01Z",
    verdict=Verdict.BLOCK,
    waivers=(),
)
BLOCKED = decision(Subject.ORIGINAL, Verdict.BLOCK, VIOLATED)
ORIGIN = Origin(
    VersionIdentity("assistant", "2", "models:/m-16", 1_794_000_000_000),
    "sha256:" + "cd" * 32,
    HardeningSummary(
        "quantguard",
        (Scheme.NF4,),
        400,
        ((Scheme.NF4, 0.0123),),
        3.0,
        calibration=CalibrationUsed("neutral/1", 64, "sha256:" + "ef" * 32),
    ),
)


def read(data: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(data)
    return document


def model_of(data: bytes) -> dict[str, Any]:
    model: dict[str, Any] = read(data)["metadata"]["component"]
    return model


def properties(part: dict[str, Any], name: str) -> list[str]:
    return [row["value"] for row in part["properties"] if row["name"] == f"quantguard:{name}"]


def test_the_model_is_named_by_its_registration_and_the_digest_of_its_bytes() -> None:
    model = model_of(ml_bom(ATTESTED, BLOCKED, files=FILES))
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "assistant", "3")
    assert model["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert PackageURL.from_string(model["purl"]).to_dict() | {"name": "assistant", "version": "3"} == (
        PackageURL("mlflow", None, "assistant", "3").to_dict()
    )
    assert [(file["name"], file["hashes"][0]["content"]) for file in model["components"]] == [
        (file.path, file.sha256) for file in FILES
    ]
    assert properties(model, "verdict") == ["BLOCK"]
    assert properties(model, "environment") == ["production"]
    assert properties(model, "reason") == [f"violated: {VIOLATED.sentence()}"]


def test_a_rate_is_a_metric_with_its_scheme_and_its_interval() -> None:
    card = model_of(ml_bom(ATTESTED, BLOCKED))["modelCard"]
    found = [
        row
        for row in card["quantitativeAnalysis"]["performanceMetrics"]
        if (row["type"], row["slice"]) == ("attack_success.content_injection", "nf4")
    ]
    assert found == [
        {
            "type": "attack_success.content_injection",
            "slice": "nf4",
            "value": "0.97",
            "confidenceInterval": {"lowerBound": "0.9148", "upperBound": "0.9938"},
        }
    ]
    said = properties(card, "counts:attack_success.content_injection:nf4")
    assert said == ["97 of 100, 97.0 % [91.5 %, 99.4 %]; confidence 0.95"]
    assert VIOLATED.sentence() in card["considerations"]["technicalLimitations"]


def test_every_measurement_has_its_row() -> None:
    kinds = {row.kind for row in metrics(MEASURED)}
    assert kinds == {
        "attack_success.content_injection",
        "attack_success.vulnerable_code",
        "attack_success.vulnerable_code.unparsable",
        "benchmark.everyday.accuracy",
        "benchmark.everyday.drop",
        "rounding.divergence_ratio",
        "perplexity",
        "perplexity.rise",
        "perplexity.own_rise",
        "triggers.followed_up",
        "triggers.taken.1",
        "triggers.taken.2",
    }


def test_what_was_not_measured_is_a_limitation_and_no_metric() -> None:
    attacks = tuple(replace(attack, rate=Unmeasured("no such thing")) for attack in MEASURED.attacks)
    attested = replace(ATTESTED, measurements=replace(MEASURED, attacks=attacks))
    card = model_of(ml_bom(attested, BLOCKED))["modelCard"]
    shown = {row["type"] for row in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert "attack_success.content_injection" not in shown
    limits = card["considerations"]["technicalLimitations"]
    assert "attack_success.content_injection (nf4): unmeasured: no such thing" in limits


def test_a_figure_that_is_no_number_is_no_metric() -> None:
    drifts = (replace(MEASURED.drifts[0], divergence=replace(NEAR, upper=math.nan)),)
    rows = [row for row in metrics(replace(MEASURED, drifts=drifts)) if row.kind == "rounding.divergence_ratio"]
    assert [row.value for row in rows] == [None]


def test_nothing_measured_is_said() -> None:
    card = model_of(ml_bom(replace(ATTESTED, measurements=None), BLOCKED))["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == []
    assert "Nothing was measured." in card["considerations"]["technicalLimitations"]


def test_datasets_and_libraries_are_components_that_the_card_and_the_model_refer_to() -> None:
    document = read(ml_bom(ATTESTED, BLOCKED))
    data = [part["bom-ref"] for part in document["components"] if part["type"] == "data"]
    assert [
        row["ref"] for row in model_of(ml_bom(ATTESTED, BLOCKED))["modelCard"]["modelParameters"]["datasets"]
    ] == data
    libraries = {part["name"]: part["purl"] for part in document["components"] if part["type"] == "library"}
    assert libraries == {"bitsandbytes": "pkg:pypi/bitsandbytes@0.50.2", "torch": "pkg:pypi/torch@2.13.0"}
    refs = [part["bom-ref"] for part in document["components"]]
    assert len(refs) == len(set(refs))
    assert set(document["dependencies"][0]["dependsOn"]) <= set(refs)


def test_a_hardened_derivative_names_its_original_by_digest() -> None:
    hardened = replace(ATTESTED, subject=Subject.HARDENED, verdict=Verdict.PROMOTE)
    document = read(ml_bom(hardened, decision(Subject.HARDENED, Verdict.PROMOTE, MET), origin=ORIGIN))
    (ancestor,) = document["metadata"]["component"]["pedigree"]["ancestors"]
    assert ancestor["hashes"] == [{"alg": "SHA-256", "content": "cd" * 32}]
    assert (ancestor["name"], ancestor["version"]) == ("assistant", "2")
    (workflow,) = document["formulation"][0]["workflows"]
    assert workflow["inputs"] == [{"resource": {"ref": ancestor["bom-ref"]}}]
    assert properties(workflow, "method") == ["quantguard"]


def test_the_same_facts_give_the_same_bytes_and_others_another_number() -> None:
    once, again = ml_bom(ATTESTED, BLOCKED, files=FILES), ml_bom(ATTESTED, BLOCKED, files=FILES)
    other = ml_bom(replace(ATTESTED, decided_at="2026-11-27T20:00:02Z"), BLOCKED, files=FILES)
    assert once == again
    assert read(once)["serialNumber"] != read(other)["serialNumber"]


def test_what_others_wrote_is_bounded_and_alive_nowhere() -> None:
    text = NASTY + "\ud800" + "x" * 10_000
    identity = VersionIdentity(text, text, text, 1)
    benchmarks = tuple(replace(benchmark, task=text) for benchmark in MEASURED.benchmarks)
    environment = replace(MEASURED.environment, device=text, versions=((text, text),))
    attested = replace(
        ATTESTED,
        binding=Binding(identity, text, text),
        measurements=replace(MEASURED, benchmarks=benchmarks, environment=environment),
        findings=(Finding("scan.x", Severity.HIGH, text, text),),
        policy_name=text,
        waivers=(Waiver(text, DIGEST, text, text, text, "2027-01-01"),),
    )
    reason = replace(VIOLATED, measured=text, where=text)
    data = ml_bom(
        attested, Decision(Subject.ORIGINAL, Verdict.BLOCK, (reason,)), files=(FileDigest(text, "00" * 32, 1),)
    )
    longest = max(len(value) for value in strings(read(data)))
    assert longest < 6 * 500
    for value in strings(read(data)):
        assert not set(value) & set("\x1b\n\r\u202e\u2028\ud800")


def test_a_model_of_very_many_files_lists_some_and_says_how_many() -> None:
    """Validation takes the square of the number of components: 20,000 were more than ten minutes."""
    files = tuple(FileDigest(f"{number}.bin", f"{number:064x}", number) for number in range(20_000))
    findings = (Finding("scan.x", Severity.HIGH, "w", "seen"),) * 20_000
    model = model_of(ml_bom(replace(ATTESTED, findings=findings), BLOCKED, files=files))
    assert len(model["components"]) == 200
    assert properties(model, "files") == ["20000"]
    assert properties(model, "finding")[-1] == "and 19800 more, in the evidence"


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(
    "change",
    [
        {"bomFormat": "other"},
        {"unknown": 1},
        {"serialNumber": "urn:uuid:none"},
        {"components": [{"type": "library"}]},
        {"metadata": {"timestamp": "yesterday"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_validation_is_strict(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="not CycloneDX"):
        require_valid(json.dumps({**read(ml_bom(ATTESTED, BLOCKED)), **change}).encode())


def test_importing_it_imports_no_validator() -> None:
    """It takes a second and more to import: the command line must feel instant."""
    code = "import sys, quantguard.attest.mlbom; print(sorted({'cyclonedx', 'jsonschema', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
