"""A model that the policy blocks, and waivers for its bytes: through the real command, on a directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.command import Ran, quantguard
from tests.stories import Kind, write_policy

DIGEST = "sha256:" + "b" * 64


class Story:
    """One model that breaks its policy, gated once; then again with waivers, which measures nothing again."""

    def __init__(self, model: Path, root: Path) -> None:
        self.model, self.root, self.violated, self.digest = root / "model", root, [("scan.atoms", "nf4")], DIGEST
        shutil.copytree(model, self.model)
        shutil.copy(self.waivers(), self.model)  # nobody asks for these
        self.policy = write_policy(root / "policy")
        self.first = self.gate()
        report = self.report()
        self.digest = report["facts"]["model_digest"]
        self.violated = [
            (r["finding"] or r["rule"], (r["finding_scheme"] or "none") if r["finding"] else r["where"])
            for r in report["facts"]["outcome"]["original"]["reasons"]
            if r["outcome"] == "violated"
        ]

    def gate(self, *more: str | Path) -> Ran:
        return quantguard("gate", self.model, "--policy", self.policy, "--work", self.root / "work", *more)

    @property
    def kept(self) -> Path:
        return self.root / "work/evidence/waivers.yaml"

    def report(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.root / "work/report/report.json").read_text(encoding="utf-8"))
        return loaded

    def waivers(self, days: int = 20, leave_out: int = 0) -> Path:
        expires = (datetime.now(UTC).date() + timedelta(days=days)).isoformat()
        entries = "".join(
            f"  - rule: {rule}\n    model: {self.digest}\n    scheme: {scheme}\n"
            f"    reason: known\n    approver: ann\n    expires: {expires}\n"
            for rule, scheme in self.violated[leave_out:]
        )
        file = self.root / "waivers.yaml"
        file.write_text(f"schema: quantguard.waivers/1\nwaivers:\n{entries}", encoding="utf-8")
        return file


@pytest.fixture(scope="module")
def story(models: Mapping[Kind, Path], tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(models[Kind.MALICIOUS], tmp_path_factory.mktemp("waived"))


def measured_at(story: Story) -> int:
    return (story.root / "work/evidence/measurements-original.json").stat().st_mtime_ns


def test_what_is_waived_passes_for_as_long_as_that_is_in_force_and_nothing_is_measured_again(story: Story) -> None:
    assert (story.first.code, bool(story.violated)) == (1, True), story.first.err
    before = measured_at(story)
    file = story.waivers()
    passed = story.gate("--waivers", file)
    assert passed.code == 0, passed.out + passed.err
    assert "waiver: in force, 20 days left" in passed.out
    assert story.report()["verdict"] == "PROMOTE"
    assert story.kept.read_bytes() == file.read_bytes()
    assert measured_at(story) == before
    without = story.gate("--stage", "publish")
    assert without.code == 2
    assert "not the waivers that the model was assessed with" in without.err
    assert story.gate("--stage", "assess", "--waivers", story.waivers(days=-2)).code == 1
    told = (story.root / "work/report/report.md").read_text(encoding="utf-8")
    assert told.index("EXPIRED 2 days ago") < told.index("original: BLOCK")
    assert story.gate("--stage", "assess").code == 1
    assert not story.kept.exists()


def test_waivers_of_all_but_one_rule_block_as_before(story: Story) -> None:
    assert story.gate("--stage", "assess", "--waivers", story.waivers(leave_out=1)).code == 1


def test_a_file_that_the_policy_does_not_accept_ends_the_run_before_anything_is_judged(story: Story) -> None:
    outcome = story.root / "work/evidence/outcome.json"
    before = outcome.read_bytes()
    refused = story.gate("--waivers", story.waivers(days=91))
    assert refused.code == 4
    assert "waivers[0].expires: a waiver lasts at most 90 days" in refused.err
    assert outcome.read_bytes() == before


def test_waivers_that_came_with_the_model_are_refused_where_they_are_named_and_ignored_where_not(story: Story) -> None:
    refused = story.gate("--waivers", story.model / "waivers.yaml")
    assert refused.code == 4
    assert "the model's own directory" in refused.err
    assert "waiver" not in story.first.out
