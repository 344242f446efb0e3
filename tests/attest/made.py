"""A policy on disk, and signed evidence of a made-up version that meets it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from quantguard.attest.statements import Decided, Measured, decided_payload, measured_payload
from quantguard.attest.tags import SignedPair, to_tags
from quantguard.core.attestation import Binding, timestamp
from quantguard.core.measurement import Measurements
from quantguard.core.model import VersionIdentity
from quantguard.core.verdict import Subject
from quantguard.evidence.dsse import sign
from quantguard.evidence.keys import Signer
from quantguard.evidence.records import digest_bytes
from quantguard.evidence.statement import PAYLOAD_TYPE
from quantguard.policy.evidence import asked
from quantguard.policy.load import LoadedPolicy, load_policy
from quantguard.policy.subject import decide_subject
from tests.policy.made import POLICY, measured

NOW = datetime(2026, 11, 20, 20, 0, 0, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
IDENTITY = VersionIdentity("assistant", "3", "models:/m-17", 1_795_000_000_000, "r1")
BINDING = Binding(IDENTITY, DIGEST, "production")
SIGNER = Signer.generate()


def write_made_policy(folder: Path, **changes: Any) -> LoadedPolicy:
    """`tests.policy.made.POLICY` as a file, with whole sections replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(json.dumps({"prompt": f"question {number}"}) + "\n" for number in range(60))
    (folder / "p.jsonl").write_text(rows, encoding="utf-8")
    document = {**json.loads(POLICY.model_dump_json(by_alias=True, exclude_defaults=True)), **changes}
    (folder / "policy.yaml").write_text(json.dumps(document), encoding="utf-8")
    return load_policy(folder / "policy.yaml")


def measurements(binding: Binding = BINDING, *, quantized: int = 0) -> Measurements:
    """With so many harmful answers of 100 under each scheme."""
    return replace(measured(quantized=quantized), model_digest=binding.model_digest)


def signed_pair(
    policy: LoadedPolicy,
    *,
    binding: Binding = BINDING,
    at: datetime = NOW,
    signer: Signer = SIGNER,
    found: Measurements | None = None,
    changes: Mapping[str, Any] | None = None,
) -> SignedPair:
    """Both envelopes, measured and decided `at`; `changes` replaces fields of the decision before it is signed."""
    found = measurements(binding) if found is None else found
    decision = decide_subject(policy.policy, Subject.ORIGINAL, (), found)
    first = Measured(binding, Subject.ORIGINAL, found, (), asked(policy), (), timestamp(at))
    envelope = sign(PAYLOAD_TYPE, measured_payload(first), signer).to_json()
    decided = Decided(
        binding=binding,
        subject=Subject.ORIGINAL,
        verdict=decision.verdict,
        reasons=decision.reasons,
        waivers=(),
        policy_name=policy.policy.name,
        policy_digest=policy.digest,
        measurements=digest_bytes(envelope),
        decided_at=timestamp(at),
    )
    decided = replace(decided, **(changes or {}))
    return SignedPair(envelope, sign(PAYLOAD_TYPE, decided_payload(decided), signer).to_json())


def signed_tags(policy: LoadedPolicy, **given: Any) -> dict[str, str]:
    """As `signed_pair`, in tags."""
    return to_tags(signed_pair(policy, **given))


def days(count: float) -> timedelta:
    return timedelta(days=count)
