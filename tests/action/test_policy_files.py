"""What the host reads of a policy is what the gate reads of it: nothing is missing in the container, nothing extra."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from action.policy_files import read_needs
from quantguard.core.errors import PolicyError, UsageError
from quantguard.policy.load import load_policy
from tests.stories import POLICY, write_policy
from tests.test_house import ROOT

SHIPPED = sorted(path.name for path in (ROOT / "policies").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_file_that_a_policy_names_is_mounted_and_no_other(name: str) -> None:
    loaded = load_policy(ROOT / "policies" / name)
    needs = read_needs(Path("policies") / name, ROOT)
    built_in = ROOT / "quantguard"  # in the image
    named = {file.path for file in loaded.inputs if not file.path.is_relative_to(built_in)}
    assert set(needs.files) == {loaded.path, *named}
    assert needs.gpu is loaded.policy.requires.gpu


@pytest.mark.parametrize(
    "section",
    ["counterfactual: {prompts: own.jsonl, samples: 1, max_ratio: 2}", "perplexity: {prompts: own.jsonl, samples: 40}"],
)
def test_prompts_of_what_is_read_are_mounted_too(section: str, tmp_path: Path) -> None:
    policy = write_policy(tmp_path, f"{POLICY}{section}\n")
    (policy.parent / "own.jsonl").write_text('{"prompt": "x"}\n')
    assert policy.parent / "own.jsonl" in read_needs(Path("policy.yaml"), tmp_path).files


def test_the_list_and_the_prompts_of_trigger_hunting_are_mounted_too(tmp_path: Path) -> None:
    section = "triggers: {list: list.txt, prompts: own.jsonl, max_upper_bound: 0.3}\n"
    folder = write_policy(tmp_path, POLICY + section).parent
    (folder / "own.jsonl").write_text('{"prompt": "x"}\n')
    (folder / "list.txt").write_text("xyzzy\n")
    assert {folder / "own.jsonl", folder / "list.txt"} <= set(read_needs(Path("policy.yaml"), tmp_path).files)


def test_what_a_policy_extends_is_mounted_with_what_that_names_and_a_preset_is_in_the_image(tmp_path: Path) -> None:
    base = write_policy(tmp_path / "base", POLICY + "requires: {gpu: true}\n")
    own = tmp_path / "own.yaml"
    own.write_text("schema: quantguard.policy/1\nname: own\nextends: base/policy.yaml\n")
    needs = read_needs(Path("own.yaml"), tmp_path)
    assert set(needs.files) == {own, base, base.parent / "probes.jsonl", base.parent / "calibration.jsonl"}
    assert needs.gpu
    own.write_text("schema: quantguard.policy/1\nname: own\nextends: standard\n")
    assert read_needs(Path("own.yaml"), tmp_path).files == (own,)
    own.write_text("schema: quantguard.policy/1\nname: own\nextends: ../policy.yaml\n")
    shutil.copy(base, tmp_path.parent / "policy.yaml")
    with pytest.raises(UsageError, match="outside the workspace"):
        read_needs(Path("own.yaml"), tmp_path)


def test_problems_for_programs_are_mounted_too(tmp_path: Path) -> None:
    task = "benchmarks:\n  - {task: own, kind: code, path: own.jsonl, max_drop: 0.5}\n"
    policy = write_policy(tmp_path, POLICY.replace("benchmarks: []\n", task))
    assert task in policy.read_text()
    (policy.parent / "own.jsonl").write_text("{}\n")
    assert policy.parent / "own.jsonl" in read_needs(Path("policy.yaml"), tmp_path).files


@pytest.mark.parametrize(("text", "gpu"), [("true", True), ("false", False), ("yes", True), ('"maybe"', True)])
def test_a_gpu_is_needed_unless_the_policy_plainly_says_no(text: str, gpu: bool, tmp_path: Path) -> None:
    write_policy(tmp_path, POLICY + f"requires: {{gpu: {text}}}\n")
    assert read_needs(Path("policy.yaml"), tmp_path).gpu is gpu


def test_what_lies_outside_the_workspace_or_behind_a_link_is_not_mounted(tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    policy = write_policy(workspace / "policies")
    outside = tmp_path / "secret"
    outside.write_text('{"prompt": "x"}\n')
    probes = policy.parent / "probes.jsonl"
    kept = probes.read_bytes()
    probes.unlink()
    probes.symlink_to(outside)
    with pytest.raises(UsageError, match="behind a symbolic link"):
        read_needs(Path("policies/policy.yaml"), workspace)
    probes.unlink()
    probes.write_bytes(kept)
    policy.write_text(POLICY.replace("probes: probes.jsonl", "probes: ../../secret"))
    with pytest.raises(UsageError, match="outside the workspace"):
        read_needs(Path("policies/policy.yaml"), workspace)
    shutil.move(workspace / "policies", tmp_path / "elsewhere")
    (workspace / "policies").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="behind a symbolic link"):
        read_needs(Path("policies/policy.yaml"), workspace)


@pytest.mark.parametrize("text", ["", "- a\n", "a: &x 1\nb: *x\n", "\x00", "a: [" * 100])
def test_what_is_no_policy_is_refused_on_the_host_already(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(PolicyError):
        read_needs(Path("p.yaml"), tmp_path)


def test_a_file_that_is_absent_is_left_to_the_gate_which_names_its_line(tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    (tmp_path / "probes.jsonl").unlink()
    assert set(read_needs(Path("policy.yaml"), tmp_path).files) == {policy, tmp_path / "calibration.jsonl"}


def test_waivers_are_mounted_with_the_policy_and_must_be_a_plain_file_of_the_workspace(tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    write_policy(workspace)
    waivers, outside = workspace / "waivers.yaml", tmp_path / "outside.yaml"
    for file in (waivers, outside):
        file.write_text("schema: quantguard.waivers/1\nwaivers: []\n")
    (workspace / "link.yaml").symlink_to(outside)
    assert waivers in read_needs(Path("policy.yaml"), workspace, Path("waivers.yaml")).files
    for name, why in (("none.yaml", "no file"), ("link.yaml", "symbolic link"), ("../outside.yaml", "outside")):
        with pytest.raises(UsageError, match=why):
            read_needs(Path("policy.yaml"), workspace, Path(name))
