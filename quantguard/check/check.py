"""The check of a change, from its trees to its remarks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

from quantguard.check.facts import CheckResult
from quantguard.check.git import Git, Objects, require_commit
from quantguard.check.keys import Trust, key_remarks, trusted_keys
from quantguard.check.manifests import Sides, manifest_changes, named_policies, read_manifest
from quantguard.check.pins import Shelf, pin_remarks
from quantguard.check.places import file_place
from quantguard.check.policies import changed_policies, policy_remarks
from quantguard.check.remarks import NEW
from quantguard.check.snapshot import Snapshot, is_yaml
from quantguard.check.trees import CheckedOut, CommitTree
from quantguard.check.waivers import Side, waiver_remarks
from quantguard.core.attestation import DEFAULT_ENVIRONMENT
from quantguard.core.errors import CheckoutError, UsageError
from quantguard.core.remark import Level, Remark
from quantguard.evidence.trusted import TrustedKeys
from quantguard.policy.manifest import NAME, LoadedManifest, LooserLimits


@dataclass(frozen=True, slots=True)
class Request:
    directory: Path  # in a checkout
    bases: tuple[str, ...]  # refs, of which the first that is there is compared with
    manifest: Path | None  # relative to `directory`; None: quantguard.yaml at the top of the checkout
    tracking_uri: str | None
    allow_looser: bool
    now: datetime  # in UTC: by which waivers expire and evidence ages
    key: Path | None = None  # whose signatures count, instead of those that the base branch's manifest names
    environment: str = DEFAULT_ENVIRONMENT  # the operator's word for the registry


@dataclass(frozen=True, slots=True)
class _Trees:
    began: Snapshot  # the merge base
    base: Snapshot  # the tip of the base branch
    head: Snapshot  # what is checked out


def check(request: Request, environment: Mapping[str, str]) -> CheckResult:
    """Compare what is checked out with the commit that it began from, as the base branch's tip says it must be judged.

    `environment` is that of the process, for git; nothing in the checkout is run and no link in it is followed.

    Raises:
        CheckoutError: no checkout, or the base is not in it.
        GitError: git does not answer, or there is too much to read.
        UsageError: the tracking URI is not the address of a server.
    """
    top = Git(request.directory, environment).top()
    git = Git(top, environment)
    base, tip = require_commit(git, request.bases)
    _, head = require_commit(git, ("HEAD",))
    began = git.merge_base(tip, head)
    with tempfile.TemporaryDirectory(prefix="quantguard-check-") as scratch, git.objects() as objects:
        start = _committed(git, began, objects, Path(scratch, "began"))
        judge = start if tip == began else _committed(git, tip, objects, Path(scratch, "base"))
        trees = _Trees(start, judge, Snapshot(_checked_out(git, top), Path(scratch, "head")))
        found = _checked(request, top, _manifest_path(request, top), trees)
        return replace(found, base=base, base_commit=tip, began_at=began)


def _manifest_path(request: Request, top: Path) -> str:
    """The manifest's path from the top of the checkout, with slashes."""
    if request.manifest is None:
        return NAME
    path = Path(os.path.normpath(request.directory.resolve() / request.manifest))
    if not path.is_relative_to(top) or path == top:
        raise UsageError("is not in the checkout", path=request.manifest, remedy="name a manifest of this repository")
    return path.relative_to(top).as_posix()


def _committed(git: Git, commit: str, objects: Objects, root: Path) -> Snapshot:
    return Snapshot(CommitTree(git.tree(commit), objects), root)


def _checked_out(git: Git, top: Path) -> CheckedOut:
    there, left_out = git.checked_out()
    if any(is_yaml(path) for path in left_out):
        raise CheckoutError("is sparse and leaves out YAML files", path=top, remedy="run git sparse-checkout disable")
    return CheckedOut(top, there)


def _checked(request: Request, top: Path, path: str, trees: _Trees) -> CheckResult:
    before, governing, after = (read_manifest(tree, path) for tree in (trees.began, trees.base, trees.head))
    allowed = request.allow_looser or (
        isinstance(governing, LoadedManifest) and governing.manifest.looser is LooserLimits.WARN
    )
    looser = Level.WARNING if allowed else Level.ERROR
    for tree in (trees.began, trees.head):
        tree.call_policies(named_policies(path, before, governing, after))
    remarks = list(policy_remarks(trees.began, trees.head, looser))
    pins = 0
    if isinstance(after, tuple):
        remarks += after
    else:
        remarks += _manifest(path, trees, before, after, looser=looser, today=request.now.date())
        if after is not None:
            pins = len(after.manifest.models)
            governs = Side(path, governing if isinstance(governing, LoadedManifest) else None, trees.base)
            found = trusted_keys(request.key, governs)
            remarks += [found] if isinstance(found, Remark) else []
            trust = Trust(found, request.environment, request.now) if isinstance(found, TrustedKeys) else None
            remarks += pin_remarks(path, after, Shelf(top, request.tracking_uri, trees.base, trust))
    policies = {*trees.began.policies(), *trees.head.policies()}
    return CheckResult(
        base="",
        base_commit="",
        began_at="",
        policies=len(policies),
        changed=changed_policies(trees.began, trees.head),
        manifest=before is not None or after is not None,
        pins=pins,
        remarks=tuple(sorted(remarks, key=_order)),
    )


def _manifest(
    path: str,
    trees: _Trees,
    before: LoadedManifest | tuple[Remark, ...] | None,
    after: LoadedManifest | None,
    *,
    looser: Level,
    today: date,
) -> list[Remark]:
    now = Side(path, after, trees.head)
    if isinstance(before, tuple):
        message = "this manifest was not valid before: it is compared with nothing"
        new = Remark(NEW, Level.WARNING, message, file_place(path), "manifest")
        return [new, *waiver_remarks(Side(path, None, trees.began), now, trees.base, today, looser)]
    was = Side(path, before, trees.began)
    changes = manifest_changes(path, before, after, Sides(trees.began, trees.base), looser)
    return [*changes, *key_remarks(was, now, looser), *waiver_remarks(was, now, trees.base, today, looser)]


def _order(remark: Remark) -> tuple[int, str, int, int, str, str]:
    file, line, column = (
        ("", 0, 0) if remark.place is None else (remark.place.file, remark.place.line, remark.place.column)
    )
    return list(Level).index(remark.level), file, line, column, remark.rule, remark.subject
