"""`load_verified`: what a serving start-up calls, with keys, a policy and the name of the place that it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quantguard.attest.admission import Refused, Rules, admit
from quantguard.core.attestation import DEFAULT_ENVIRONMENT, Binding, timestamp
from quantguard.core.errors import NotAdmittedError
from quantguard.core.progress import Progress, silent
from quantguard.core.scheme import Scheme
from quantguard.evidence.trusted import read_trusted
from quantguard.policy.load import load_policy
from quantguard.registry.interface import Consumed, Resolved
from quantguard.registry.load_verified import Gatekeeper, Loaded, Passed
from quantguard.registry.load_verified import load_verified as load_admitted


@dataclass(frozen=True, slots=True)
class EvidenceGatekeeper:
    """`registry.load_verified.Gatekeeper` by the signed evidence in a version's tags."""

    rules: Rules
    now: datetime  # in UTC
    schemes: tuple[Scheme, ...] = ()  # in which the model is going to be used

    def admit(self, version: Resolved, digest: str | None) -> Passed:
        """As the protocol says; the rule that refused is `attest.admission.Rule`'s, or load.scheme."""
        identity, here = version.identity, self.rules.environment
        asked = identity if digest is None else Binding(identity, digest, here)
        found = admit(version.tags, asked, self.rules, now=self.now)
        if isinstance(found, Refused):
            raise NotAdmittedError(found.message, rule=found.rule, remedy=found.remedy)
        policy = self.rules.policy
        for scheme in self.schemes:
            if scheme not in policy.policy.schemes:
                known = ", ".join(scheme.value for scheme in policy.policy.schemes)
                remedy = f"serve it as one of {known}, or gate it under a policy that measures {scheme.value}"
                message = f"the policy {policy.policy.name} says nothing of {scheme.value}"
                raise NotAdmittedError(message, rule="load.scheme", remedy=remedy)
        told = {
            "source": identity.source,
            "model_digest": found.attested.binding.model_digest,
            "environment": here,
            "key": found.key,
            "policy": f"{policy.policy.name} {policy.digest}",
            "measured_at": found.attested.measured_at,
            "decided_at": found.attested.decided_at,
            "loaded_at": timestamp(self.now),
        }
        return Passed(found.attested.binding.model_digest, told)


def load_verified(
    ref: str,
    directory: Path,
    *,
    keys: Path,
    policy: Path,
    tracking_uri: str,
    environment: str = DEFAULT_ENVIRONMENT,
    schemes: Sequence[Scheme] = (),
    now: datetime | None = None,
    progress: Progress = silent,
) -> Loaded:
    """Download what `ref` names, check its bytes against its signed evidence, and only then let `directory` appear.

    `ref` is `models:/NAME@ALIAS` or `models:/NAME/VERSION`; `keys` and `policy` are the consumer's own, as
    `read_trusted` and `load_policy` read them; `now` is for tests. See `registry.load_verified.load_verified`.

    Raises:
        NotAdmittedError: refused, by the rule that it names, with what to run; nothing is at `directory`.
        KeyFileError, PolicyError: keys or policy cannot be read.
        UsageError, RegistryError, CheckpointError: as `registry.load_verified.load_verified`.
    """

    def opened() -> tuple[Consumed, Gatekeeper]:
        from quantguard.registry.mlflow_registry import MlflowRegistry

        rules = Rules(load_policy(policy), read_trusted(keys), environment)
        return MlflowRegistry(tracking_uri), EvidenceGatekeeper(rules, now or datetime.now(UTC), tuple(schemes))

    return load_admitted(ref, directory, opened, progress=progress)
