"""Whether an original is worth a repair of its roundings, and for which schemes."""

from __future__ import annotations

from typing import Final

from quantguard.core.finding import Finding
from quantguard.core.measurement import Measurements
from quantguard.core.scheme import Scheme, scheme_label
from quantguard.core.verdict import Decision, Outcome, Verdict
from quantguard.policy.decide import repairable, suspicious
from quantguard.policy.schema import HardenMode, Policy

_SCAN: Final = "scan."
_POSITIONS: Final = frozenset({"scan.atoms", "scan.boundary", "scan.crowded", "scan.depleted"})


def hardening_plan(
    policy: Policy, findings: tuple[Finding, ...], original: Measurements, decision: Decision
) -> tuple[tuple[Scheme, ...], str]:
    """The schemes to repair, in the policy's order (none: do not harden), and why in one sentence.

    What the scan holds against a model and no rounding repairs keeps it from being hardened at all, so that the
    decision about it is that about the original.
    """
    if decision.verdict is Verdict.PROMOTE and decision.waived():
        return (), "not hardened: waivers let the original pass as it is"
    allowed = policy.harden_schemes()
    failing = tuple(finding for finding in findings if finding.severity.at_least(policy.scan.fail_on))
    against = _against(policy, findings, failing, original)
    if against:
        return (), f"not hardened: {against}"
    if policy.harden.mode is HardenMode.ALWAYS:
        return allowed, "hardened: the policy says always"
    flagged = {finding.scheme for finding in failing if finding.scheme is not None}
    violated = {reason.where for reason in decision.reasons if reason.outcome is Outcome.VIOLATED}
    flagged |= {scheme.codes for scheme in policy.schemes if scheme_label(scheme) in violated}
    targets = tuple(scheme for scheme in allowed if scheme in flagged)
    if not targets:
        return (), "not hardened: what is suspicious is no scheme that the policy hardens"
    why = f"hardened for {', '.join(s.value for s in targets)}: the scan or the behaviour there is suspicious"
    others = ", ".join(s.value for s in Scheme if s in flagged and s not in targets)
    return targets, why + (f"; not for {others}, which the policy does not harden" if others else "")


def _against(
    policy: Policy, findings: tuple[Finding, ...], failing: tuple[Finding, ...], original: Measurements
) -> str:
    """What speaks against hardening under any scheme; empty where nothing does."""
    match policy.harden.mode:
        case HardenMode.NEVER:
            return "the policy says never"
        case HardenMode.WHEN_SUSPICIOUS if not suspicious(policy, findings, original):
            return "nothing about its quantization is suspicious"
        case HardenMode.ALWAYS | HardenMode.WHEN_SUSPICIOUS:
            pass
    if not repairable(policy, original):
        return "it breaks the policy in full precision already, where choosing roundings cannot help"
    left = beyond_repair(failing, policy.harden_schemes())
    kinds = ", ".join(dict.fromkeys(map(_kind, left)))
    return f"choosing other roundings does not repair what the scan found ({kinds})" if left else ""


def beyond_repair(findings: tuple[Finding, ...], schemes: tuple[Scheme, ...]) -> tuple[Finding, ...]:
    """The scan's findings that remain whatever roundings are chosen under `schemes`.

    Outliers take the scale, and with it the roundings themselves; of other formats none are chosen. Weights that are
    out of place under one of the schemes often are under another format too: there, the scan of the hardened copy
    shows what is left of it.
    """
    repaired = {finding.where for finding in findings if finding.rule in _POSITIONS and finding.scheme in schemes}
    return tuple(
        finding
        for finding in findings
        if finding.rule.startswith(_SCAN)
        and finding.scheme is None
        and not (finding.rule in _POSITIONS and finding.where in repaired)
    )


def _kind(finding: Finding) -> str:
    return f"{finding.rule} on {finding.grid}" if finding.grid else finding.rule
