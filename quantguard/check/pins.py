"""Do the models that a manifest pins exist, are they the ones that are meant, and did the gate promote them?"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from quantguard.attest.admission import Admitted, Refused, Rules, admit
from quantguard.check.keys import Trust
from quantguard.check.policies import policy_named
from quantguard.check.remarks import (
    PIN_DIGEST,
    PIN_EVIDENCE,
    PIN_GONE,
    PIN_POLICY,
    PIN_UNGATED,
    PIN_UNKNOWN,
    PIN_UNVERIFIED,
    PIN_VERDICT,
    UNSAFE,
)
from quantguard.check.snapshot import Snapshot, inside
from quantguard.checkpoint.digest import model_digest
from quantguard.core.attestation import Binding
from quantguard.core.errors import ModelNotFoundError, QuantGuardError, RegistryError, UnsafeCheckpointError
from quantguard.core.model import RegisteredVersion, VersionIdentity
from quantguard.core.remark import Level, Remark
from quantguard.core.verdict import Verdict
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.manifest import LoadedManifest, Pin
from quantguard.registry.state import VersionState, identified_state

_VERDICT: Final = "quantguard.verdict"
_DIGEST: Final = "quantguard.model_digest"
_POLICY: Final = "quantguard.policy"
_SHOWN: Final = 200  # characters of a tag
_SHOWN_EVIDENCE: Final = 600  # characters of why evidence is refused


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where pinned models are looked for, and the policies that judge them."""

    top: Path  # of the checkout
    tracking_uri: str | None
    policies: Snapshot  # of the base branch
    trust: Trust | None  # None: nothing says whose signatures count


def pin_remarks(path: str, loaded: LoadedManifest, shelf: Shelf) -> tuple[Remark, ...]:
    """Every pin of the manifest at `path`, resolved now. What could not be looked up is a PIN_UNKNOWN error.

    Raises:
        UsageError: the tracking URI is not the address of a server.
        GitError: git does not answer.
    """
    default = _default_judge(path, loaded, shelf)
    remarks = [default] if isinstance(default, Remark) else []
    unreachable = "" if shelf.tracking_uri else "no registry is named (give --tracking-uri, or set MLFLOW_TRACKING_URI)"
    for index, pin in enumerate(loaded.manifest.models):
        told = _Pin(path, loaded, index, pin, shelf)
        judge = default if pin.policy is None else _judge(path, pin.policy, shelf)
        if isinstance(judge, _Wrong):
            remarks.append(told.wrong(judge.rule, judge.message, key="policy"))
        if not isinstance(pin.reference(), RegisteredVersion):
            remarks += _directory(told)
            continue
        if loaded.manifest.policy_of(pin) is None:
            message = "no policy judges this pin, so a promotion under any counts: name one"
            remarks.append(told.wrong(PIN_POLICY, message, level=Level.WARNING))
        if unreachable:
            remarks.append(told.wrong(PIN_UNKNOWN, f"could not tell: {unreachable}"))
        else:
            found = _registered(told, judge if isinstance(judge, LoadedPolicy) else None)
            remarks += found
            unreachable = next((_NO_ANSWER for remark in found if remark.rule == PIN_UNKNOWN), "")
    return (*remarks, *_unverified(path, loaded, shelf))


def _unverified(path: str, loaded: LoadedManifest, shelf: Shelf) -> Iterator[Remark]:
    """That tags of registered versions were believed, said once."""
    registered = any(isinstance(pin.reference(), RegisteredVersion) for pin in loaded.manifest.models)
    if registered and shelf.trust is None and shelf.tracking_uri is not None:
        message = "no keys are named, so the tags of pinned versions are believed and their evidence is not verified: "
        message += f"name whose signatures count in {path} (keys: FILE), or give --key FILE"
        yield Remark(PIN_UNVERIFIED, Level.WARNING, message, loaded.document.place(("models",)), "keys")


_NO_ANSWER: Final = "the registry did not answer about a pin above"


@dataclass(frozen=True, slots=True)
class _Pin:
    """One pin, and how to speak of it."""

    manifest: str  # path of the manifest
    loaded: LoadedManifest
    index: int
    pin: Pin
    shelf: Shelf

    def wrong(self, rule: str, message: str, *, key: str = "model", level: Level = Level.ERROR) -> Remark:
        place = self.loaded.document.place(("models", self.index, key))
        return Remark(rule, level, f"{self.pin.model}: {message}", place, self.pin.model)


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Why a policy that a manifest names judges nothing."""

    rule: str
    message: str


def _judge(manifest: str, named: str, shelf: Shelf) -> LoadedPolicy | _Wrong:
    """The policy of the base branch that the manifest calls `named`."""
    path = inside(posixpath.dirname(manifest), named)
    if path is None:
        return _Wrong(UNSAFE, f"its policy {named} leads out of the repository")
    version = policy_named(shelf.policies, path)
    if version is None or version.loaded is None:
        message = f"{path} is no valid policy of the base branch, which is what judges a pin: merge the policy first"
        return _Wrong(PIN_POLICY, message)
    return version.loaded


def _default_judge(path: str, loaded: LoadedManifest, shelf: Shelf) -> LoadedPolicy | Remark | None:
    """The manifest's own policy; None where it names none."""
    named = loaded.manifest.policy
    if named is None:
        return None
    judge = _judge(path, named, shelf)
    if isinstance(judge, _Wrong):
        return Remark(judge.rule, Level.ERROR, f"policy: {judge.message}", loaded.document.place(("policy",)), "policy")
    return judge


def _registered(told: _Pin, judge: LoadedPolicy | None) -> list[Remark]:
    reference, uri = told.pin.reference(), told.shelf.tracking_uri
    if not isinstance(reference, RegisteredVersion) or uri is None:
        return []
    try:
        identity, state = identified_state(uri, reference)
    except ModelNotFoundError as error:
        return [told.wrong(PIN_GONE, f"the registry has no such version: {error}")]
    except RegistryError as error:
        return [told.wrong(PIN_UNKNOWN, f"could not tell: {error}")]
    return [*_tags(told, state, judge), *_evidence(told, state, identity, judge)]


def _evidence(
    told: _Pin, state: VersionState, identity: VersionIdentity, judge: LoadedPolicy | None
) -> Iterator[Remark]:
    """Whether what was signed about the version admits it here and today, whatever its other tags say."""
    trust, digest = told.shelf.trust, told.pin.digest
    if trust is None or judge is None:  # either is told elsewhere
        return
    asked_for = identity if digest is None else Binding(identity, digest, trust.environment)
    rules = Rules(judge, trust.keys, trust.environment)
    answer = admit(dict(state.tags), asked_for, rules, now=trust.now)
    match answer:
        case Refused():
            message = f"{answer.rule.value}: {answer.message[:_SHOWN_EVIDENCE]} ({answer.remedy[:_SHOWN]})"
            yield told.wrong(PIN_EVIDENCE, message)
        case Admitted():
            for used in answer.decision.waivers:
                waiver = used.waiver
                message = f"a waiver is {used.state.value}, {used.days_left} days left (until {waiver.expires}): "
                message += f"{waiver.rule} ({waiver.scheme}), approved by {waiver.approver}: {waiver.reason}"
                yield told.wrong(PIN_EVIDENCE, message, level=Level.NOTICE)
        case _:
            assert_never(answer)


def _tags(told: _Pin, state: VersionState, judge: LoadedPolicy | None) -> Iterator[Remark]:
    """What the gate wrote about the version."""
    verdict, digest = state.tag(_VERDICT), state.tag(_DIGEST)
    if verdict is None:
        policy = told.loaded.manifest.policy_of(told.pin) or "POLICY"
        gate = f"quantguard gate {told.pin.model} --policy {policy} --tracking-uri URI"
        yield told.wrong(PIN_UNGATED, f"the gate never judged this version; run: {gate}", level=Level.WARNING)
    elif verdict != Verdict.PROMOTE.value:
        reason = state.tag("quantguard.reason") or "see its evidence"
        yield told.wrong(PIN_VERDICT, f"the gate's verdict is {verdict[:_SHOWN]}: {reason[:_SHOWN]}")
    elif judge is not None:
        yield from _other_judge(told, state.tag(_POLICY) or "", judge)
    if told.pin.digest is not None and digest is not None and digest != told.pin.digest:
        message = f"the gate judged other bytes, {digest[:_SHOWN]}, than this digest"
        yield told.wrong(PIN_DIGEST, message, key="digest")
    if told.pin.digest is not None and digest is None and verdict is not None:
        yield told.wrong(PIN_DIGEST, "the gate noted no digest of the bytes it judged", key="digest")


def _other_judge(told: _Pin, tag: str, judge: LoadedPolicy) -> Iterator[Remark]:
    """A promotion under another policy than the pin's is none under the pin's."""
    name, _, digest = tag.rpartition(" ")
    if name != judge.policy.name:
        message = (
            f"was promoted under the policy {name[:_SHOWN]!r}, not under {judge.policy.name!r}, which judges it here"
        )
        yield told.wrong(PIN_VERDICT, f"{message}: gate it again")
    elif digest != judge.digest:
        message = f"was promoted under {name!r} as it read then; it has changed since: gate it again"
        yield told.wrong(PIN_UNGATED, message, level=Level.WARNING)


def _directory(told: _Pin) -> list[Remark]:
    path = inside(posixpath.dirname(told.manifest), told.pin.model)
    if path is None:
        return [told.wrong(UNSAFE, "leads out of the repository")]
    if (link := _link_on_the_way(told.shelf.top, path)) is not None:
        return [told.wrong(UNSAFE, f"{link} is a symbolic link")]
    if not (told.shelf.top / path).is_dir():
        return [told.wrong(PIN_GONE, "is no directory of the checkout")]
    return list(_bytes(told, told.shelf.top / path))


def _bytes(told: _Pin, directory: Path) -> Iterator[Remark]:
    """Whether a directory holds what the pin's digest says."""
    try:
        digest = model_digest(directory)
    except UnsafeCheckpointError as error:
        yield told.wrong(UNSAFE, error.message)
    except QuantGuardError as error:
        yield told.wrong(PIN_UNKNOWN, f"could not tell: {error.message}")
    else:
        if told.pin.digest is None:
            message = f"nothing says which bytes are meant: add digest: {digest}"
            yield told.wrong(PIN_UNGATED, message, level=Level.WARNING)
        elif digest != told.pin.digest:
            yield told.wrong(PIN_DIGEST, f"holds other bytes, {digest}, than this digest", key="digest")
        elif told.shelf.trust is not None:
            message = (
                "what was signed about a directory is in no registry, and was not verified: run quantguard evidence"
            )
            message += f" verify BUNDLE --key PUB --model {told.pin.model}, or pin a registered version"
            yield told.wrong(PIN_UNVERIFIED, message, level=Level.WARNING)


def _link_on_the_way(top: Path, path: str) -> str | None:
    """The first part of `path` that is a symbolic link."""
    parts = path.split("/")
    ways = ("/".join(parts[: end + 1]) for end in range(len(parts)))
    return next((way for way in ways if (top / way).is_symlink()), None)
