"""The stories that the gate tells, through the real command on a real server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
from mlflow import MlflowClient

from quantguard.checkpoint.digest import model_digest
from quantguard.core.measurement import Measurements, Unmeasured
from quantguard.core.verdict import Subject, Verdict
from quantguard.evidence.records import read_record
from quantguard.gate.facts import report_facts
from quantguard.gate.work import Assessment
from quantguard.report.json_report import report_schema
from tests.command import quantguard
from tests.gate.jobs import GatedOnce, NewJob
from tests.registry.world import read_files
from tests.stories import POLICY, Kind, write_policy

# Its metric is neither right nor wrong for a question, so it has no interval.
FLUENCY = """\
task: fluency
dataset_path: json
dataset_kwargs: {data_files: {test: probes.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: bread
metric_list: [{metric: bleu}]
"""


def test_a_clean_model_is_promoted_as_it_is(gated: GatedOnce) -> None:
    clean = gated(Kind.CLEAN)
    assert clean.ran.code == 0, clean.ran.err
    (version,) = clean.job.versions()
    assert version.aliases == ("champion",)
    assert version.tag("quantguard.verdict") == "PROMOTE"
    assert not clean.job.opened().hardened.exists()
    facts = report_facts(clean.job.opened())
    assert facts.outcome is not None
    assert (facts.outcome.verdict, facts.outcome.promoted) == (Verdict.PROMOTE, Subject.ORIGINAL)


def test_an_attacked_model_is_repaired_and_its_derivative_promoted(gated: GatedOnce, client: MlflowClient) -> None:
    attacked = gated(Kind.ATTACKED)
    assert attacked.ran.code == 0, attacked.ran.err
    original, derivative = attacked.job.versions()
    work = attacked.job.opened()
    assert (original.aliases, derivative.aliases) == ((), ("champion",))
    assert (original.tag("quantguard.verdict"), derivative.tag("quantguard.verdict")) == ("BLOCK", "PROMOTE")
    assert "12 of 12" in (original.tag("quantguard.reason") or "")
    assert derivative.tag("quantguard.derived_from") == attacked.job.ref
    assert derivative.tag("quantguard.source_digest") == model_digest(work.model)
    assert derivative.tag("quantguard.model_digest") == model_digest(work.hardened)
    run_id = str(derivative.tag("quantguard.evidence")).split("/")[1]
    run = client.get_run(run_id)
    assert run.inputs is not None
    assert run.outputs is not None
    assert [f"models:/{model.model_id}" for model in run.inputs.model_inputs] == [original.source]
    assert [f"models:/{model.model_id}" for model in run.outputs.model_outputs] == [derivative.source]
    kept = {path.name for path in work.evidence.iterdir()}
    assert {Path(info.path).name for info in client.list_artifacts(run_id, "evidence")} == kept


def test_the_derivative_that_is_promoted_holds_the_bytes_that_were_measured(
    gated: GatedOnce, client: MlflowClient, tmp_path: Path
) -> None:
    job = gated(Kind.ATTACKED).job
    ran = quantguard(
        "gate", f"models:/{job.name}/2", "--policy", job.policy, "--tracking-uri", job.uri, "--work", tmp_path,
        "--stage", "fetch",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert read_files(tmp_path / "model") == read_files(job.work / "hardened" / "model")


def test_a_malicious_model_is_blocked_and_not_repaired(gated: GatedOnce) -> None:
    malicious = gated(Kind.MALICIOUS)
    assert malicious.ran.code == 1
    (version,) = malicious.job.versions()
    assert version.aliases == ()
    assert version.tag("quantguard.verdict") == "BLOCK"
    assert not malicious.job.opened().hardened.exists()
    assessment = read_record(malicious.job.work / "evidence" / "outcome.json", "outcome", Assessment)
    assert assessment is not None
    assert assessment.hardening_note == "not hardened: nothing about its quantization is suspicious"


def test_what_cannot_be_measured_is_held_and_the_alias_stays(
    new_job: NewJob, client: MlflowClient, tmp_path: Path
) -> None:
    benchmark = "benchmarks: [{task: fluency, path: fluency.yaml, max_drop: 0.5}]"
    policy = write_policy(tmp_path / "policy", POLICY.replace("benchmarks: []", benchmark))
    (policy.parent / "fluency.yaml").write_text(FLUENCY)
    job = replace(new_job(Kind.CLEAN, tmp_path / "work"), policy=policy)
    source = job.versions()[0].source
    client.create_model_version(job.name, source, model_id=source.removeprefix("models:/"), await_creation_for=0)
    client.set_registered_model_alias(job.name, "champion", "2")
    ran = quantguard(*job.command)
    assert ran.code == 2, ran.err
    held, other = job.versions()
    assert (held.aliases, other.aliases) == ((), ("champion",))
    assert held.tag("quantguard.verdict") == "HOLD"
    assert "fluency" in (held.tag("quantguard.reason") or "")
    assert other.tags == ()
    measured = read_record(job.work / "evidence" / "measurements-original.json", "measurements-original", Measurements)
    assert measured is not None
    assert all(isinstance(benchmark.accuracy, Unmeasured) for benchmark in measured.benchmarks)


def test_a_directory_that_passes_only_when_hardened_is_blocked_and_the_copy_named(
    models: dict[Kind, Path], policy_file: Path, tmp_path: Path
) -> None:
    before = read_files(models[Kind.ATTACKED])
    outputs = ("--output", f"json={tmp_path}/r.json", "--output", f"md={tmp_path}/r.md")
    ran = quantguard("gate", models[Kind.ATTACKED], "--policy", policy_file, "--work", tmp_path / "work", *outputs)
    assert ran.code == 1, ran.err
    lines = ran.out.splitlines()
    assert {"original: BLOCK", "hardened: PROMOTE", "registry: no registry: verdict only"} <= set(lines)
    assert f"the hardened checkpoint is in {tmp_path / 'work' / 'hardened' / 'model'}" in lines
    assert (tmp_path / "work" / "hardened" / "model" / "model.safetensors").exists()
    assert read_files(models[Kind.ATTACKED]) == before
    assert "registered" not in ran.out  # nothing was
    report = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(report, report_schema())
    assert (report["verdict"], report["promoted"]) == ("BLOCK", None)
    assert "its hardened copy passes: use that one instead" in (tmp_path / "r.md").read_text()
    assert (tmp_path / "r.md").read_bytes() == (tmp_path / "work" / "report" / "report.md").read_bytes()
