from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from quantguard.core.errors import PolicyError
from quantguard.core.model import LocalDirectory, RegisteredVersion
from quantguard.policy.manifest import (
    LoadedManifest,
    LooserLimits,
    load_manifest,
    manifest_schema,
    manifest_schema_text,
    parse_manifest,
)

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "a" * 64
MANIFEST = f"""\
schema: quantguard.manifest/1
policy: policies/standard.yaml
looser: warn
models:
  - {{model: models:/assistant/3, digest: "{DIGEST}"}}
  - model: ./models/small
    policy: policies/strict.yaml
"""


def test_a_manifest_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "quantguard.yaml"
    path.write_text(MANIFEST, encoding="utf-8")
    manifest = load_manifest(path).manifest
    assert manifest.looser is LooserLimits.WARN
    assert [pin.reference() for pin in manifest.models] == [
        RegisteredVersion("assistant", "3"),
        LocalDirectory(Path("models/small")),
    ]
    assert [manifest.policy_of(pin) for pin in manifest.models] == ["policies/standard.yaml", "policies/strict.yaml"]
    assert [pin.digest for pin in manifest.models] == [DIGEST, None]


def test_a_manifest_without_a_word_about_looser_limits_blocks_them() -> None:
    loaded = parse_manifest(Path("q.yaml"), b"schema: quantguard.manifest/1\n")
    assert isinstance(loaded, LoadedManifest)
    assert (loaded.manifest.looser, loaded.manifest.models) == (LooserLimits.BLOCK, ())


@pytest.mark.parametrize(
    ("old", "new", "where", "words"),
    [
        ("models:\n", "modles:\n", (4, "modles"), "did you mean models?"),
        ("looser: warn", "looser: wran", (3, "looser"), "did you mean warn?"),
        ("looser: warn", "looser:", (3, "looser"), "has no value"),
        ("manifest/1", "manifest/2", (1, "schema"), "expected 'quantguard.manifest/1'"),
        ("    policy: pol", "    polcy: pol", (7, "models[1].polcy"), "did you mean policy?"),
        ("models:/assistant/3", "models:/assistant@champion", (5, "models[0].model"), "models:/NAME/VERSION"),
        ("models:/assistant/3", "s3://bucket/model", (5, "models[0].model"), "models:/NAME/VERSION"),
        ("model: ./models/small", "model: models/small", (6, "models[1].model"), "./DIRECTORY"),
        ("model: ./models/small", "model: models:/assistant/3", (4, "models"), "each model once"),
        (DIGEST, "sha256:AA", (5, "models[0].digest"), "expected text that matches"),
        ("policy: policies/standard.yaml\n", "policy: ' '\n", (2, "policy"), "only spaces"),
    ],
)
def test_a_wrong_entry_is_named_with_its_key_and_what_was_expected(
    tmp_path: Path, old: str, new: str, where: tuple[int, str], words: str
) -> None:
    assert MANIFEST.count(old) == 1
    path = tmp_path / "quantguard.yaml"
    path.write_text(MANIFEST.replace(old, new), encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        load_manifest(path)
    assert (caught.value.line, caught.value.key) == where
    assert words in str(caught.value)


def test_the_schema_that_is_checked_in_is_the_one_of_the_types() -> None:
    checked_in = ROOT / "policies" / "manifest.schema.json"
    remedy = "make schemas"
    assert checked_in.read_text(encoding="utf-8") == manifest_schema_text(), remedy
    Draft202012Validator.check_schema(manifest_schema())


@pytest.mark.parametrize(("old", "new"), [("looser: warn", "looser: null"), ("./models/small", "models/small")])
def test_an_editor_sees_what_the_check_would_refuse(old: str, new: str) -> None:
    import yaml

    validator = Draft202012Validator(manifest_schema())
    assert validator.is_valid(yaml.safe_load(MANIFEST))
    assert not validator.is_valid(yaml.safe_load(MANIFEST.replace(old, new)))
