"""`quantguard verify --artifact` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Run
from tests.stories import Kind
from tests.verify.artifacts import altered, quantize, write_vetted


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("artifact")
    vetted = write_vetted(root / "vetted")
    return vetted, quantize(vetted, root / "artifact", "nf4-double")


@pytest.fixture(scope="module")
def tampered(pair: tuple[Path, Path]) -> Path:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.mlp.down_proj.weight"][:9] ^= 0x11

    return altered(pair[1], pair[1].parent / "tampered", change)


def test_a_proof_is_printed_and_written(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    outputs = [part for name in ("json", "md", "sarif") for part in ("--output", f"{name}={tmp_path / name}")]
    ran = run("verify", pair[0], "--artifact", pair[1], *outputs)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1].startswith("verify: proved: every code is the nearest rounding")
    assert "NF4, double quantization, float32: 16440 codes in 7 tensors, 5 tensors" in ran.out
    document = json.loads((tmp_path / "json").read_text())
    assert (document["schema"], document["answer"]) == ("quantguard.artifact/1", "proved")
    assert document["proof"]["artifact_digest"].startswith("sha256:")
    assert json.loads((tmp_path / "sarif").read_text())["runs"][0]["results"] == []
    assert (tmp_path / "md").read_text().startswith("# Proved")


def test_what_differs_is_listed_with_what_it_means(
    run: Run, pair: tuple[Path, Path], tampered: Path, tmp_path: Path
) -> None:
    names = ("json", "md", "sarif", "annotations")
    outputs = [part for name in names for part in ("--output", f"{name}={tmp_path / name}")]
    ran = run("verify", pair[0], "--artifact", tampered, *outputs)
    assert ran.code == 1
    assert "codes (1): whoever quantized chose other roundings" in ran.out
    assert ran.out.splitlines()[-1] == "verify: differs: this is not the vetted model, quantized"
    (difference,) = json.loads((tmp_path / "json").read_text())["proof"]["differences"]
    assert (difference["kind"], difference["count"], difference["of"]) == ("codes", 18, 3880)
    results = json.loads((tmp_path / "sarif").read_text())["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == ["artifact.codes"]
    assert (tmp_path / "annotations").read_text().startswith("::error title=artifact.codes::")
    assert "**codes** `model.layers.0.mlp.down_proj.weight`" in (tmp_path / "md").read_text()


def test_a_proof_and_a_measurement_in_one_run(
    run: Run, models: Mapping[Kind, Path], policy_file: Path, tmp_path: Path
) -> None:
    """The artefact is honest; the policy blocks what it is made of."""
    artifact = quantize(models[Kind.ATTACKED], tmp_path / "artifact", "nf4")
    ran = run("verify", models[Kind.ATTACKED], "--artifact", artifact, "--policy", policy_file)
    assert ran.code == 1
    proof, limits = [line for line in ran.out.splitlines() if line.startswith("verify: ")]
    assert proof.startswith("verify: proved")
    assert limits == "verify: a limit is violated"


def test_quiet_says_nothing_and_exits_alike(run: Run, pair: tuple[Path, Path], tampered: Path) -> None:
    for artifact, code in ((pair[1], 0), (tampered, 1)):
        ran = run("verify", pair[0], "--artifact", artifact, "--quiet")
        assert (ran.code, ran.out, ran.err) == (code, "", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--policy FILE to measure, --artifact DIRECTORY to prove, or both"),
        (("--allow-cast", "--policy", "p.yaml"), "--allow-cast is about an artefact"),
        (("--artifact", "a", "--probes", "p.jsonl"), "--probes are for measuring"),
        (("--artifact", "a", "--policy", "p", "--output", "json=x"), "run once for each"),
        (("--artifact", "a", "--output", "html=x"), "use FORMAT=FILE with annotations, json, md, sarif"),
        (("--artifact", "a", "--output", "json=x", "--output", "md=x"), "two outputs name the same file"),
        (("--artifact", "absent"), "is not a directory"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(
    run: Run, pair: tuple[Path, Path], arguments: tuple[str, ...], said: str
) -> None:
    ran = run("verify", pair[0], *arguments)
    assert ran.code == 4
    assert said in " ".join(ran.err.split())


def test_an_artefact_of_another_method_is_could_not_tell(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    artifact = altered(pair[1], tmp_path / "gptq", lambda _: None)
    config = json.loads((artifact / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (artifact / "config.json").write_text(json.dumps(config))
    ran = run("verify", pair[0], "--artifact", artifact)
    assert ran.code == 2
    assert "quantized with 'gptq'" in ran.err
