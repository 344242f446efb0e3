"""`quantguard.yaml`: which models a repository pins, which policy judges them, and what a looser limit means there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from quantguard.core.errors import PolicyError, UsageError
from quantguard.core.model import ModelRef, parse_model_ref
from quantguard.policy.document import Document, parse_document, read_bounded
from quantguard.policy.json_schema import json_schema, schema_text
from quantguard.policy.problems import translate
from quantguard.policy.section import Path_, Section

NAME = "quantguard.yaml"
_MODEL = r"^(models:/[^/@]+/[0-9]+|\./.+)$"


class LooserLimits(Enum):
    """What becomes of a pull request that makes a limit looser."""

    BLOCK = "block"  # until whoever may allow it does
    WARN = "warn"


def _one_version(value: str) -> str:
    if not re.match(_MODEL, value) or "\n" in value:
        raise ValueError(f"expected models:/NAME/VERSION or ./DIRECTORY, got {value[:60]!r}")
    try:
        parse_model_ref(value)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return value


class Pin(Section):
    """One model that this repository relies on."""

    model: Annotated[
        str, Field(min_length=1, max_length=1024, json_schema_extra={"pattern": _MODEL}), AfterValidator(_one_version)
    ]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None  # the model digest that is meant
    policy: Path_ | None = None  # relative to the manifest; absent: the manifest's own `policy`

    def reference(self) -> ModelRef:
        return parse_model_ref(self.model)


def _unique_models(pins: tuple[Pin, ...]) -> tuple[Pin, ...]:
    if len({pin.model for pin in pins}) != len(pins):
        raise ValueError("expected each model once")
    return pins


class Manifest(Section):
    schema_: Literal["quantguard.manifest/1"] = Field(alias="schema")
    policy: Path_ | None = None  # judges every pin that names none, relative to the manifest
    waivers: Path_ | None = None  # what is allowed although a policy forbids it, relative to the manifest
    keys: Path_ | None = None  # whose signatures of evidence count: a PEM or a keyring, relative to the manifest
    looser: LooserLimits = LooserLimits.BLOCK
    models: Annotated[tuple[Pin, ...], AfterValidator(_unique_models)] = ()

    def policy_of(self, pin: Pin) -> str | None:
        return pin.policy if pin.policy is not None else self.policy


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    manifest: Manifest
    document: Document


def load_manifest(path: Path) -> LoadedManifest:
    """Read a manifest.

    Raises:
        PolicyError: the first problem in the file, with line, key and what was expected.
    """
    loaded = parse_manifest(path, read_bounded(path))
    if isinstance(loaded, LoadedManifest):
        return loaded
    raise loaded[0]


def parse_manifest(path: Path, data: bytes) -> LoadedManifest | tuple[PolicyError, ...]:
    """The manifest that `data` is, or everything wrong with it in the order of the file. `path` is for the errors."""
    try:
        document = parse_document(path, data)
        return LoadedManifest(Manifest.model_validate_json(json.dumps(document.values())), document)
    except PolicyError as error:
        return (error,)
    except ValidationError as error:
        return tuple(translate(document, error, Manifest))


def manifest_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a manifest. That pins and policies are there is checked by `quantguard check`."""
    return json_schema(Manifest, "urn:quantguard.manifest:1")


def manifest_schema_text() -> str:
    """The JSON Schema as it is checked in at `policies/manifest.schema.json`."""
    return schema_text(manifest_schema())
