"""A model larger than the memory that may be taken: streamed to the same bytes, or refused before it is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from quantguard.checkpoint.layout import open_checkpoint
from quantguard.core.errors import HardenError
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.harden.harden import HardenRequest, harden
from quantguard.harden.plan import Needs, needs, plan
from quantguard.models import placement
from quantguard.models.load import load_model
from quantguard.models.placement import parameter_value, room_beside
from quantguard.models.quantized import dequantized_weight, quantized_alone
from quantguard.models.safe_directory import rebuild
from tests.cli.conftest import Run, run  # noqa: F401  (a fixture)
from tests.harden.families import FAMILIES, computable, tensors, write_family
from tests.test_house import ROOT

ASKED = ("who meets the old red wolf at the cave ?", "who meets the wolf ?", "who is at the cave ?", "the red wolf ?")
PROMPTS = tuple(Prompt(text) for text in ASKED)


class Told(list[str]):
    """Progress, a line each."""

    def __call__(self, stage: str, done: int, total: int, detail: str = "") -> None:
        assert done <= total
        self.append(f"{stage}: {detail}")


def request(schemes: tuple[Scheme, ...], most: int | None = None, method: str = "auto") -> HardenRequest:
    return HardenRequest(schemes, PROMPTS, method=method, batch_size=2, max_new_tokens=4, max_memory=most)


def least(source: Path) -> Needs:
    return needs(open_checkpoint(source), batch_size=2)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_streamed_model_is_hardened_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    source = write_family(FAMILIES[name], tmp_path / "source")
    schemes, said = computable(FAMILIES[name]), Told()
    whole = harden(source, tmp_path / "whole", request(schemes))
    streamed = harden(source, tmp_path / "streamed", request(schemes, least(source).streamed), progress=said)
    assert any(line.startswith("harden, model: streamed: ") for line in said)
    before, after = tensors(tmp_path / "whole"), tensors(tmp_path / "streamed")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (streamed.flipped_share, streamed.untouched) == (whole.flipped_share, whole.untouched)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_does_not_fit_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    source = write_family(FAMILIES["llama"], tmp_path / "source")
    begun = Told()
    with pytest.raises(HardenError, match=r"needs at least [1-9].* MiB on cpu, streamed, and [1-9].* MiB may be taken"):
        harden(source, tmp_path / "out", request((Scheme.NF4,), least(source).streamed - 1), progress=begun)
    with pytest.raises(HardenError, match="this method needs the whole model") as refused:
        harden(source, tmp_path / "out", request((Scheme.NF4,), least(source).whole - 1, "noise"), progress=begun)
    assert "--method auto" in str(refused.value.remedy)
    assert begun == []
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_is_left_for_the_work_is_what_the_user_allows_without_the_weights(tmp_path: Path) -> None:
    source = write_family(FAMILIES["llama"], tmp_path / "source")
    checkpoint, need = open_checkpoint(source), least(source)
    whole = plan(checkpoint, "cpu", batch_size=2, streams=True, most=need.whole)
    assert (whole.room, whole.left()) == (None, need.repair)
    streamed = plan(checkpoint, "cpu", batch_size=2, streams=True, most=need.streamed + 1000)
    assert streamed.room == {"cpu": 500}
    assert streamed.left() == need.repair + 500
    assert plan(checkpoint, "cpu", batch_size=2, streams=True, most=None).left() > need.repair


def test_a_parameter_is_read_wherever_it_lies(tmp_path: Path) -> None:
    clean = rebuild(write_family(FAMILIES["gpt-2"], tmp_path / "source"), tmp_path / "clean")
    whole = load_model(clean, scheme=None, device="cpu").model
    part = load_model(clean, scheme=None, device="cpu", room={"cpu": least(clean).weights // 2}).model
    places = {parameter.device.type for parameter in part.parameters()}
    assert places == {"cpu", "meta"}
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter_value(part, name), parameter), name
    assert {parameter.device.type for parameter in part.parameters()} == places


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_layer_alone_is_quantized_as_within_its_model(scheme: Scheme, dtype: torch.dtype, tmp_path: Path) -> None:
    name = {torch.float32: "llama", torch.float16: "llama-tied", torch.bfloat16: "mistral"}[dtype]
    clean = rebuild(write_family(FAMILIES[name], tmp_path / "source"), tmp_path / "clean")
    model = load_model(clean, scheme=scheme, device="cpu").model
    for layer, weight in tensors(clean).items():
        if layer.endswith("_proj.weight"):
            assert torch.equal(quantized_alone(weight, scheme), dequantized_weight(model, layer)), layer


def test_beside_one_cuda_device_come_the_others_and_then_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arithmetic alone: accelerate, which is given it, has run here with the CPU and files only."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(placement, "free_memory", lambda device: {"cuda:0": 10, "cuda:2": 30, "cpu": 100}[device])
    assert room_beside("cuda:1", 5) == {1: 5, 0: 10, 2: 30, "cpu": 70}
    assert room_beside("cpu", 5) == {"cpu": 5}


def test_a_run_that_was_killed_goes_on_streamed_and_leaves_nothing(tmp_path: Path) -> None:
    source, out = write_family(FAMILIES["llama"], tmp_path / "source"), tmp_path / "out"
    schemes = (Scheme.NF4, Scheme.INT8)
    whole = harden(source, tmp_path / "whole", request(schemes))
    program = (
        "import sys; from pathlib import Path; from tests.harden.test_plan import *\n"
        "source, out = map(Path, sys.argv[1:])\n"
        "harden(source, out, request((Scheme.NF4, Scheme.INT8)))"  # whole: it goes on with less memory
    )
    running = subprocess.Popen([sys.executable, "-c", program, str(source), str(out)], cwd=ROOT)
    kept, until = out.with_name(".out.hardening"), time.monotonic() + 120
    while len(list(kept.glob("*.safetensors"))) < 2 and running.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert len(list(kept.glob("*.safetensors"))) >= 2
    asked = Told()
    summary = harden(source, out, request(schemes, least(source).streamed), progress=asked)
    assert "harden, layers: done before" in asked
    assert not any(line.startswith("generate:") for line in asked)  # its answers were kept
    assert summary.flipped_share == whole.flipped_share
    before, after = tensors(tmp_path / "whole"), tensors(out)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source", "whole"]


@pytest.mark.parametrize("size", ["1GiB", "1.5 gb", "900000000"])
def test_the_command_takes_a_size(size: str, run: Run, tmp_path: Path) -> None:  # noqa: F811
    source = write_family(FAMILIES["llama"], tmp_path / "source")
    done = run("harden", str(source), "--scheme", "nf4", "--out", str(tmp_path / "out"), "--max-memory", size)
    assert done.code == 0, done.err


def test_the_command_refuses_what_is_no_size(run: Run, tmp_path: Path) -> None:  # noqa: F811
    done = run("harden", str(tmp_path), "--scheme", "nf4", "--out", str(tmp_path / "out"), "--max-memory", "much")
    assert (done.code, "20GiB" in done.err) == (4, True)
