"""What evidence the policy takes: its age, and what must have been asked for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from quantguard.evidence.records import digest_of
from quantguard.policy.section import Section

if TYPE_CHECKING:
    from quantguard.policy.load import LoadedPolicy

_ENTRY: Final = re.compile(r"benchmarks\[(\d+)\]")


class Evidence(Section):
    """Signed evidence, wherever it is used after the gate."""

    max_age_days: Annotated[int, Field(ge=1, le=3650)] = 30  # since the model was measured


def asked(policy: LoadedPolicy) -> tuple[tuple[str, str], ...]:
    """(key, sha256:HEX) of everything that decides what was measured, sorted: other probes, another measurement.

    Files by their contents, settings by their values. Limits are left out, for they are applied to what was measured;
    so is what only a repair uses, whose result is measured itself. Benchmarks go by their task, whatever their order.
    """
    found: dict[str, list[str]] = {}
    for file in policy.inputs:
        if not file.key.startswith("harden."):
            found.setdefault(_by_task(file.key, policy), []).append(file.digest)
    for key, value in _settings(policy):
        found.setdefault(key, []).append(digest_of(value))
    # A task may come as several files.
    return tuple(sorted((key, d[0] if len(d) == 1 else digest_of(sorted(d))) for key, d in found.items()))


def asked_otherwise(then: tuple[tuple[str, str], ...], policy: LoadedPolicy) -> tuple[str, ...]:
    """Keys of what `policy` asks and was asked otherwise, or not at all, by what was asked `then`; sorted."""
    known = dict(then)
    return tuple(key for key, digest in asked(policy) if known.get(key) != digest)


def _by_task(key: str, policy: LoadedPolicy) -> str:
    return _ENTRY.sub(lambda entry: f"benchmarks.{policy.policy.benchmarks[int(entry[1])].task}", key)


def _settings(policy: LoadedPolicy) -> list[tuple[str, Any]]:
    """What the policy says itself of how something is measured; a scheme or tool too few shows in the measurements."""
    found: list[tuple[str, Any]] = []
    for scenario, limits in policy.policy.attack_success.by_scenario():
        section = f"attack_success.{scenario.value}"
        found.append((f"{section}.max_new_tokens", limits.max_new_tokens))
        if (keywords := getattr(limits, "keywords", None)) is not None:
            found.append((f"{section}.keywords", sorted(keywords)))
    for benchmark in policy.policy.benchmarks:
        section = f"benchmarks.{benchmark.task}"
        found += [(f"{section}.limit", benchmark.limit), (f"{section}.max_new_tokens", benchmark.max_new_tokens)]
    if (rounding := policy.policy.counterfactual) is not None:
        found.append(("counterfactual.samples", rounding.samples))
    if (texts := policy.policy.perplexity) is not None:
        found.append(("perplexity.samples", texts.samples))
    if (hunt := policy.policy.triggers) is not None:
        found += [(f"triggers.{key}", getattr(hunt, key)) for key in ("rare", "screen", "confirm")]
    return found
