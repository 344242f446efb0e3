"""The manifest of a repository, then and now: what it says about looser limits, and which policy judges which pin."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quantguard.check.places import file_place, invalid_remarks, shown_path
from quantguard.check.policies import change_remark, compare_versions, policy_named
from quantguard.check.remarks import DIFFERENT, LOOSER, STRICTER, UNSAFE
from quantguard.check.snapshot import Snapshot, Version, inside
from quantguard.check.trees import Refused
from quantguard.core.model import RegisteredVersion
from quantguard.core.remark import Level, Place, Remark
from quantguard.policy.document import MAX_BYTES
from quantguard.policy.manifest import LoadedManifest, LooserLimits, Manifest, Pin, parse_manifest

_WORDS: Final = frozenset({"name", "description"})  # differ between any two policies


@dataclass(frozen=True, slots=True)
class Sides:
    """The trees that a pin's policy is looked up in."""

    before: Snapshot  # what the change began from
    base: Snapshot  # what judges


def read_manifest(snapshot: Snapshot, path: str) -> LoadedManifest | tuple[Remark, ...] | None:
    """The manifest of one tree, or why it is none; None where there is no file.

    Raises:
        GitError: git does not answer.
    """
    data = snapshot.bytes_of(path, MAX_BYTES)
    if data is None:
        return None
    if isinstance(data, Refused):
        return (Remark(UNSAFE, Level.ERROR, f"this manifest {data.why}", file_place(path), "manifest"),)
    read = parse_manifest(Path(shown_path(path)), data)
    if isinstance(read, LoadedManifest):
        return read
    return invalid_remarks(path, data, read)


def named_policies(path: str, *manifests: LoadedManifest | tuple[Remark, ...] | None) -> frozenset[str]:
    """Every path that one of `manifests`, which lie at `path`, names as a policy."""
    found = set()
    for loaded in manifests:
        if isinstance(loaded, LoadedManifest):
            manifest = loaded.manifest
            names = {manifest.policy, *(pin.policy for pin in manifest.models)} - {None}
            found |= {inside(posixpath.dirname(path), name) for name in names if name is not None}
    return frozenset(policy for policy in found if policy is not None)


def manifest_changes(
    path: str, before: LoadedManifest | None, after: LoadedManifest | None, sides: Sides, looser: Level
) -> Iterator[Remark]:
    """What a change does to a manifest that is valid on both sides."""
    if before is None:
        return
    if after is None:
        message = "looser: the manifest was taken out, and no pin is looked at any more"
        yield Remark(LOOSER, looser, message, file_place(path), "manifest")
        return
    yield from _settings(before.manifest, after, looser)
    for switch in _switches(posixpath.dirname(path), before.manifest, after):
        if switch.was != switch.now:
            yield from _switched(switch, sides, looser)
    yield from _pins(before.manifest, after, looser)


def _settings(before: Manifest, after: LoadedManifest, looser: Level) -> Iterator[Remark]:
    then, now = before.looser, after.manifest.looser
    if then is now:
        return
    message, place = f"what a looser limit does: {then.value} became {now.value}", after.document.place(("looser",))
    if now is LooserLimits.WARN:
        yield Remark(LOOSER, looser, f"looser: {message}", place, "looser")
    else:
        yield Remark(STRICTER, Level.NOTICE, f"stricter: {message}", place, "looser")


@dataclass(frozen=True, slots=True)
class _Switch:
    """Which policy judges something, then and now."""

    subject: str  # a model, or `policy` for the manifest's own
    folder: str  # that both are named in
    was: str | None
    now: str | None
    place: Place


def _switches(folder: str, before: Manifest, after: LoadedManifest) -> Iterator[_Switch]:
    """The manifest's own policy, then every pin that names one of its own, then or now."""
    now = after.manifest
    yield _Switch("policy", folder, before.policy, now.policy, after.document.place(("policy",)))
    for index, (pin, then) in enumerate(_paired(before, now)):
        if then is not None and (then.policy is not None or pin.policy is not None):
            place = after.document.place(("models", index, "policy"))
            yield _Switch(pin.model, folder, before.policy_of(then), now.policy_of(pin), place)


def _switched(switch: _Switch, sides: Sides, looser: Level) -> Iterator[Remark]:
    """Another policy is compared like a changed one, as the base branch has it."""
    subject, was, now, place = switch.subject, switch.was, switch.now, switch.place
    if was is None:
        yield Remark(STRICTER, Level.NOTICE, f"stricter: {subject}: {now} judges it now, no policy did", place, subject)
        return
    if now is None:
        yield Remark(LOOSER, looser, f"looser: {subject}: no policy judges it any more, {was} did", place, subject)
        return
    yield Remark(DIFFERENT, Level.WARNING, f"{subject}: {now} judges it now, {was} did", place, subject)
    then, judge = _named(sides.before, switch.folder, was), _named(sides.base, switch.folder, now)
    if then is None or judge is None:  # that `now` is no policy of the base branch is told by its pin
        message = f"looser, for all that is known: {subject}: {was} and {now} are not both policies of the base branch"
        yield Remark(LOOSER, looser, message, place, f"{subject} policy")
        return
    for change in compare_versions(then, judge):
        if change.rule not in _WORDS:
            yield change_remark(change, place, looser, prefix=f"{subject}, by its new policy {now}: ")


def _named(snapshot: Snapshot, folder: str, name: str) -> Version | None:
    path = inside(folder, name)
    return policy_named(snapshot, path) if path is not None else None


def _pins(before: Manifest, after: LoadedManifest, looser: Level) -> Iterator[Remark]:
    pairs = _paired(before, after.manifest)
    kept = [then for _, then in pairs if then is not None]
    for index, (pin, then) in enumerate(pairs):
        if then is not None and then.digest is not None and pin.digest is None:
            place = after.document.place(("models", index, "model"))
            yield Remark(LOOSER, looser, f"looser: {pin.model}: its digest was taken out", place, f"{pin.model} digest")
    for then in before.models:
        if not any(then is one for one in kept):
            place = after.document.place(("models",))
            yield Remark(DIFFERENT, Level.WARNING, f"{then.model} is not pinned any more", place, then.model)


def _paired(before: Manifest, after: Manifest) -> list[tuple[Pin, Pin | None]]:
    """Every pin of `after` with the one that it was: the same model, or else another version of the same name."""
    left = list(before.models)
    found: dict[str, Pin] = {}
    for same in (_model, _name):
        for pin in after.models:
            match = next((old for old in left if same(old) == same(pin)), None)
            if pin.model not in found and match is not None:
                found[pin.model] = match
                left.remove(match)
    return [(pin, found.get(pin.model)) for pin in after.models]


def _model(pin: Pin) -> str:
    return pin.model


def _name(pin: Pin) -> str:
    reference = pin.reference()
    return f"models:/{reference.name}" if isinstance(reference, RegisteredVersion) else pin.model
