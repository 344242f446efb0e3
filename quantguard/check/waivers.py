"""What a change does to the waivers of a repository: whatever they newly allow is a looser limit."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from quantguard.check.places import file_place, invalid_remarks, shown_path
from quantguard.check.policies import policy_named
from quantguard.check.remarks import (
    DIFFERENT,
    INVALID,
    LOOSER,
    STRICTER,
    UNSAFE,
    WAIVER_EXPIRED,
    WAIVER_REFUSED,
    WAIVER_SOON,
)
from quantguard.check.snapshot import Snapshot, inside
from quantguard.check.trees import Refused
from quantguard.core.remark import Level, Place, Remark
from quantguard.core.waiver import Waiver
from quantguard.policy.document import MAX_BYTES
from quantguard.policy.manifest import LoadedManifest
from quantguard.policy.waiver_rules import WaiverRules
from quantguard.policy.waivers import days_left, waiver_problem
from quantguard.policy.waivers_file import LoadedWaivers, parse_waivers

_SOON_DAYS: Final = 14
_Key = tuple[str, str, str]  # rule, digest, scheme


@dataclass(frozen=True, slots=True)
class Side:
    """A manifest and the tree that it lies in."""

    path: str  # of the manifest
    manifest: LoadedManifest | None
    tree: Snapshot

    def named(self) -> str | None:
        """The path of its file of waivers, empty where that leads out of the repository; None where it names none."""
        name = None if self.manifest is None else self.manifest.manifest.waivers
        return None if name is None else inside(posixpath.dirname(self.path), name) or ""


def waiver_remarks(before: Side, after: Side, base: Snapshot, today: date, looser: Level) -> Iterator[Remark]:
    """What is wrong with the waivers that `after` names, and what they allow that those of `before` did not.

    The policies of `base` say who may approve what. `looser` is the level of what is newly allowed.

    Raises:
        GitError: git does not answer.
    """
    now, then = _read(after, today), _read(before, today)
    if now is not None and not isinstance(now, LoadedWaivers):
        yield from now
        return
    found = now.waivers if now is not None else ()
    places = {_key(waiver): place for waiver, place in zip(found, now.places if now is not None else (), strict=True)}
    known = {_key(waiver): waiver for waiver in (then.waivers if isinstance(then, LoadedWaivers) else ())}
    for waiver in found:
        place = places[_key(waiver)]
        yield from _change(known.get(_key(waiver)), waiver, place, looser)
        yield from _today(waiver, place, _rules(waiver, after, base), today)
    at = after.manifest.document.place(("waivers",)) if after.manifest is not None else None
    for key, waiver in known.items():
        if key not in places:
            yield Remark(
                STRICTER, Level.NOTICE, f"stricter: the waiver of {_named(waiver)} was taken out", at, _id(waiver)
            )


def _read(side: Side, today: date) -> LoadedWaivers | Sequence[Remark] | None:
    path = side.named()
    if path is None or side.manifest is None:
        return None
    at = side.manifest.document.place(("waivers",))
    if not path:
        return [Remark(UNSAFE, Level.ERROR, "its waivers lead out of the repository", at, "waivers")]
    data = side.tree.bytes_of(path, MAX_BYTES)
    if data is None:
        return [Remark(INVALID, Level.ERROR, f"there is no file {shown_path(path)}", at, "waivers")]
    if isinstance(data, Refused):
        return [Remark(UNSAFE, Level.ERROR, f"this file of waivers {data.why}", file_place(path), "waivers")]
    read = parse_waivers(Path(shown_path(path)), data, None, today)
    if isinstance(read, LoadedWaivers):
        return read
    return list(invalid_remarks(path, data, read))


def _change(was: Waiver | None, waiver: Waiver, place: Place, looser: Level) -> Iterator[Remark]:
    if was is None:
        message = f"looser: a new waiver of {_named(waiver)}, until {waiver.expires}, approved by {waiver.approver}"
        yield Remark(LOOSER, looser, f"{message}: {waiver.reason}", place, _id(waiver))
        return
    if waiver.expires > was.expires:  # ISO dates sort as days do
        message = f"looser: the waiver of {_named(waiver)} lasts longer: {was.expires} became {waiver.expires}"
        yield Remark(LOOSER, looser, message, place, _id(waiver))
    elif waiver.expires < was.expires:
        message = f"stricter: the waiver of {_named(waiver)} ends sooner: {was.expires} became {waiver.expires}"
        yield Remark(STRICTER, Level.NOTICE, message, place, _id(waiver))
    if (was.approver, was.reason) != (waiver.approver, waiver.reason):
        message = f"the waiver of {_named(waiver)} is approved by {waiver.approver}: {waiver.reason}; it was by "
        yield Remark(DIFFERENT, Level.WARNING, f"{message}{was.approver}: {was.reason}", place, f"{_id(waiver)} words")


def _today(waiver: Waiver, place: Place, rules: Sequence[tuple[str, WaiverRules]], today: date) -> Iterator[Remark]:
    """What holds of a waiver whether or not this change brought it."""
    left = days_left(waiver, today)
    if left < 0:
        message = f"the waiver of {_named(waiver)} expired on {waiver.expires} and covers nothing any more: remove it"
        yield Remark(WAIVER_EXPIRED, Level.ERROR, message, place, _id(waiver))
        return
    problems = [(policy, waiver_problem(waiver, accepted, today)) for policy, accepted in rules]
    for policy, problem in problems:
        if problem:
            message = (
                f"the policy {policy} of the base branch does not accept the waiver of {_named(waiver)}: {problem}"
            )
            yield Remark(WAIVER_REFUSED, Level.ERROR, message, place, f"{_id(waiver)} {policy}")
    if left <= _SOON_DAYS and not any(problem for _, problem in problems):
        message = f"the waiver of {_named(waiver)} expires in {left} days, on {waiver.expires}"
        yield Remark(WAIVER_SOON, Level.NOTICE, message, place, _id(waiver))


def _rules(waiver: Waiver, after: Side, base: Snapshot) -> list[tuple[str, WaiverRules]]:
    """What the policies say that judge the bytes, as the base branch has them; without one, what any policy allows."""
    if after.manifest is None:
        return []
    manifest = after.manifest.manifest
    pinned = [manifest.policy_of(pin) for pin in manifest.models if pin.digest == waiver.model_digest]
    names = dict.fromkeys(name for name in pinned or [manifest.policy] if name is not None)
    paths = (inside(posixpath.dirname(after.path), name) for name in names)
    judges = [policy_named(base, path) for path in paths if path is not None]
    found = [(j.loaded.policy.name, j.loaded.policy.waivers) for j in judges if j is not None and j.loaded is not None]
    return found or [("(any)", WaiverRules())]


def _key(waiver: Waiver) -> _Key:
    return waiver.rule, waiver.model_digest, waiver.scheme


def _named(waiver: Waiver) -> str:
    return f"{waiver.rule} ({waiver.scheme}) for {waiver.model_digest[:19]}"


def _id(waiver: Waiver) -> str:
    return f"waiver {' '.join(_key(waiver))}"
