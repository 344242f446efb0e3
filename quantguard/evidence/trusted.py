"""Whose signatures count: a PEM file, a directory of them, or a keyring.

A keyring is YAML:

    schema: quantguard.keys/1
    keys:
      - name: gate-2026
        public: gate-2026.pub.pem     # relative to the keyring
        not_before: 2026-01-01        # both optional: days in UTC, the last one included
        not_after: 2026-12-31
        environments: [production]    # optional: evidence for any environment otherwise
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quantguard.core.errors import KeyFileError
from quantguard.evidence.keys import MOST_BYTES, PublicKey, read_public

_MOST_KEYS: Final = 1000


@dataclass(frozen=True, slots=True)
class TrustedKey:
    name: str  # as the keyring calls it, or its file
    public: PublicKey
    not_before: datetime | None = None  # UTC
    not_after: datetime | None = None  # UTC, the first moment at which it is no longer trusted
    environments: tuple[str, ...] | None = None  # None: all

    def is_valid(self, moment: datetime) -> bool:
        """Whether it may have signed then."""
        started = self.not_before is None or self.not_before <= moment
        return started and (self.not_after is None or moment < self.not_after)

    def may_speak_of(self, environment: str) -> bool:
        return self.environments is None or environment in self.environments


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Keys whose signatures count, each once."""

    keys: tuple[TrustedKey, ...]

    def with_id(self, key_id: str) -> tuple[TrustedKey, ...]:
        """The key of that identifier; all of them where none is given, for an identifier is only a hint."""
        return tuple(key for key in self.keys if key_id in ("", key.public.key_id))

    @classmethod
    def of(cls, *publics: PublicKey) -> TrustedKeys:
        return cls(tuple(TrustedKey(public.key_id[:16], public) for public in publics))


class _Key(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    public: Annotated[str, Field(min_length=1, max_length=1024)]
    not_before: date | None = None
    not_after: date | None = None
    environments: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(min_length=1)] | None = None


class _Keyring(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    schema_: Literal["quantguard.keys/1"] = Field(alias="schema")
    keys: Annotated[list[_Key], Field(min_length=1, max_length=_MOST_KEYS)]


def read_trusted(path: Path) -> TrustedKeys:
    """The keys that `path` names: a PEM, a directory whose files in `.pem` are all read, or a keyring in YAML.

    Raises:
        KeyFileError: none is there, one of them is no public key, or the same key or name is there twice.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix == ".pem")
        keys = tuple(TrustedKey(file.name, read_public(file)) for file in files[: _MOST_KEYS + 1])
    elif path.suffix in (".yaml", ".yml"):
        keys = _keyring(path)
    else:
        keys = (TrustedKey(path.name, read_public(path)),)
    return _each_once(keys, path)


def _each_once(keys: tuple[TrustedKey, ...], path: Path) -> TrustedKeys:
    if not 0 < len(keys) <= _MOST_KEYS:
        remedy = "put the public half of the signing key there, NAME.pub.pem"
        raise KeyFileError(f"{len(keys)} keys are there", path=path, remedy=remedy)
    for what, found in (("name", [key.name for key in keys]), ("key", [key.public.key_id for key in keys])):
        twice = sorted({value for value in found if found.count(value) > 1})
        if twice:
            raise KeyFileError(f"the {what} {twice[0]} is there twice", path=path, remedy="keep one of them")
    return TrustedKeys(keys)


def _keyring(path: Path) -> tuple[TrustedKey, ...]:
    remedy = "expected schema: quantguard.keys/1 and keys, as docs/evidence.md shows"
    try:
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise KeyFileError(f"larger than {MOST_BYTES} bytes", path=path, remedy="split it")
        ring = _Keyring.model_validate(yaml.load(data, Loader=_Strict))  # noqa: S506  a SafeLoader, and stricter
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror or error}", path=path, remedy=remedy) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise KeyFileError(f"{where}: {first['msg']}", path=path, remedy=remedy) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:300]
        raise KeyFileError(f"not a keyring: {said}", path=path, remedy=remedy) from error
    return tuple(_trusted(key, path) for key in ring.keys)


def _trusted(key: _Key, ring: Path) -> TrustedKey:
    if key.not_before is not None and key.not_after is not None and key.not_after < key.not_before:
        raise KeyFileError(f"{key.name}: not_after lies before not_before", path=ring, remedy="exchange them")
    starts = None if key.not_before is None else datetime.combine(key.not_before, time(), UTC)
    ends = None if key.not_after is None else datetime.combine(key.not_after, time(), UTC) + timedelta(days=1)
    environments = None if key.environments is None else tuple(key.environments)
    return TrustedKey(key.name, read_public(ring.parent / key.public), starts, ends, environments)


class _Strict(yaml.SafeLoader):
    """YAML in which a key is said once, and nothing refers to something else."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not known here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(names)) != len(node.value):
            raise yaml.YAMLError("a key is said twice, or is no word")
        return super().construct_mapping(node, deep)
