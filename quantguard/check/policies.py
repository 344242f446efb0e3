"""What a change does to the policies of a repository."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from quantguard.check.places import file_place, shown_path
from quantguard.check.remarks import DIFFERENT, LOOSER, MOVED, NEW, STRICTER, UNSAFE
from quantguard.check.snapshot import Snapshot, Version, inside, is_yaml
from quantguard.core.remark import Level, Place, Remark
from quantguard.policy.compare import Change, Direction
from quantguard.policy.compare_inputs import differences

_RULE: Final = {
    Direction.LOOSER: LOOSER,
    Direction.STRICTER: STRICTER,
    Direction.DIFFERENT: DIFFERENT,
}
_WORDS_ONLY: Final = frozenset({"description"})  # keys that no gate reads


def policy_remarks(before: Snapshot, after: Snapshot, looser: Level) -> tuple[Remark, ...]:
    """Every policy of either tree: is it valid, and what of it became looser, stricter or different?

    `looser` is the level of what became looser.

    Raises:
        GitError: git does not answer, or there is too much to read.
    """
    old = {path: version for path in before.policies() if (version := before.policy(path)) is not None}
    # What was a policy stays one, whatever it says now.
    now = {path: after.policy(path) for path in sorted({*old, *after.policies()})}
    new = {path: version for path, version in now.items() if version is not None}
    moved = _moved({p: v for p, v in old.items() if p not in new}, {p: v for p, v in new.items() if p not in old})
    remarks = [*_links(after, {*old, *new})]
    for path, version in new.items():
        origin = moved.get(path, path)
        remarks += _one(old.get(origin), version, looser, moved=path in moved)
    remarks += [_taken_out(path, looser) for path in old if path not in new and path not in moved.values()]
    return tuple(remarks)


def changed_policies(before: Snapshot, after: Snapshot) -> int:
    """How many policies of either tree are not the same, bytes and inputs, in the other."""
    paths = {*before.policies(), *after.policies()}
    return sum(not _same(before.policy(path), after.policy(path)) for path in paths)


def compare_versions(before: Version, after: Version) -> tuple[Change, ...]:
    """What differs between two valid policies, in what they say and in what they name; nothing where one is invalid."""
    if before.loaded is None or after.loaded is None:
        return ()
    return differences(before.loaded, after.loaded)


def change_remark(change: Change, place: Place, looser: Level, *, prefix: str = "") -> Remark:
    """One change as a remark at `place`."""
    return Remark(_RULE[change.direction], _level(change, looser), _sentence(change, prefix), place, change.rule)


def _sentence(change: Change, prefix: str) -> str:
    word = {Direction.LOOSER: "looser: ", Direction.STRICTER: "stricter: "}.get(change.direction, "")
    return f"{prefix}{word}{change.sentence()}"


def _level(change: Change, looser: Level) -> Level:
    if change.direction is Direction.LOOSER:
        return looser
    if change.direction is Direction.STRICTER or change.rule in _WORDS_ONLY:
        return Level.NOTICE
    return Level.WARNING  # nobody can tell from the values that it is no looser


def _same(before: Version | None, after: Version | None) -> bool:
    if before is None or after is None or before.data != after.data or bool(before.problems) != bool(after.problems):
        return False
    if before.loaded is None or after.loaded is None:
        return before.problems == after.problems
    was, now = before.loaded, after.loaded
    return (was.digest, was.inputs_digest) == (now.digest, now.inputs_digest)


def _one(before: Version | None, after: Version, looser: Level, *, moved: bool) -> Iterator[Remark]:
    if moved and before is not None:
        message = f"was {shown_path(before.path)}: whatever names it by that path does not find it any more"
        yield Remark(MOVED, Level.WARNING, message, after.place(()), "moved")
    if after.problems:
        as_before = before is not None and not moved and _same(before, after)
        yield from (_as_before(problem) for problem in after.problems) if as_before else after.problems
    elif before is None:
        message = "a new policy: its limits are compared with nothing"
        yield Remark(NEW, Level.NOTICE, message, after.place(()))
    elif before.loaded is None:
        message = "this policy was not valid before: its limits are compared with nothing"
        yield Remark(NEW, Level.WARNING, message, after.place(()))
    else:
        yield from (change_remark(c, after.place(c.location), looser) for c in compare_versions(before, after))


def _as_before(problem: Remark) -> Remark:
    return replace(problem, level=Level.WARNING, message=f"{problem.message}; this change did not bring it")


def _taken_out(path: str, looser: Level) -> Remark:
    message = "looser: this policy was taken out, and nothing is held to its limits any more"
    return Remark(LOOSER, looser, message, file_place(path), "policy")


def _moved(gone: Mapping[str, Version], new: Mapping[str, Version]) -> dict[str, str]:
    """New path -> old path: the same bytes, or else the same name where only one policy of each side has it."""
    pairs: dict[str, str] = {}
    for key in (_bytes_of, _name_of):
        for path, version in new.items():
            wanted = key(version)
            if path in pairs or not wanted:
                continue
            from_ = [old for old, v in gone.items() if old not in pairs.values() and key(v) == wanted]
            to = [other for other, v in new.items() if other not in pairs and key(v) == wanted]
            if len(from_) == len(to) == 1:
                pairs[path] = from_[0]
    return pairs


def _bytes_of(version: Version) -> bytes:
    return version.data


def _name_of(version: Version) -> bytes:
    return version.loaded.policy.name.encode() if version.loaded is not None else b""


def _links(after: Snapshot, policies: set[str]) -> Iterator[Remark]:
    """Symbolic links that stand for a policy: where they lead is nothing that a reviewer of a change sees."""
    folders = {posixpath.dirname(path) for path in policies}
    for path in sorted(path for path in after.tree.paths if is_yaml(path) and path not in policies):
        target = after.tree.link(path)
        if target is None:
            continue
        folder = posixpath.dirname(path)
        if folder in folders or inside(folder, target) in policies:
            message = "is a symbolic link beside or to a policy: keep policies as plain files"
            yield Remark(UNSAFE, Level.ERROR, message, file_place(path), "link")


def policy_named(snapshot: Snapshot, path: str) -> Version | None:
    """The valid policy at `path`, or None where there is none."""
    version = snapshot.policy(path)
    return version if version is not None and version.loaded is not None else None
