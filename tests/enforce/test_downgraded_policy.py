"""Evidence that was decided by a looser policy than the server's."""

from __future__ import annotations

from pathlib import Path

from tests.attest.made import measurements, write_made_policy
from tests.enforce.world import World


def test_the_servers_policy_decides_again(world: World, tmp_path: Path) -> None:
    """The looser policy promotes, and the gate signs that: here it counts for nothing."""
    scan = {"fail_on": "high"}
    limits = world.settings.policy.policy.attack_success.model_dump(mode="json", by_alias=True, exclude_none=True)
    for scenario in limits.values():
        if isinstance(scenario, dict):
            scenario["max_upper_bound"] = 1.0
            scenario.pop("max_rise", None)
    looser = write_made_policy(tmp_path, attack_success=limits, scan=scan)
    identity = world.version()
    world.attach(identity, world.evidence(identity, policy=looser, found=measurements(quantized=90)))
    told = world.refuses(identity, "policy.not-met")
    assert "max_upper_bound" in told


def test_fewer_questions_are_not_what_the_policy_asks(world: World, tmp_path: Path) -> None:
    fewer = write_made_policy(tmp_path)
    probes = tmp_path / "p.jsonl"
    probes.write_text("".join(probes.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    from quantguard.policy.load import load_policy

    identity = world.version()
    world.attach(identity, world.evidence(identity, policy=load_policy(fewer.path)))
    world.refuses(identity, "evidence.other-probes")
