"""A policy that extends another: what the two say together, and which file says what."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from quantguard.core.bundled import PREFIX, bundled_folder, is_bundled, named_file
from quantguard.core.errors import PolicyError
from quantguard.policy.compare import compare
from quantguard.policy.extends import MAX_FILES, PRESETS, read_written
from quantguard.policy.load import LoadedPolicy, load_policy, parse_policy, policy_problems
from tests.policy.written import POLICY, spoilt, write_inputs, write_policy

HEAD = "schema: quantguard.policy/1\nname: mine\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def extending(folder: Path, text: str, base: str = POLICY) -> Path:
    """A policy that says `text`, beside `base/policy.yaml`, which it extends."""
    write_policy_in(folder / "base", base)
    return write(folder / "own" / "mine.yaml", f"{HEAD}extends: ../base/policy.yaml\n{text}")


def write_policy_in(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    return write_policy(folder, text)


def refused(path: Path) -> PolicyError:
    with pytest.raises(PolicyError) as raised:
        load_policy(path)
    return raised.value


def place(policy: LoadedPolicy, rule: str) -> tuple[str, int]:
    found = dict(policy.anchors)[rule]
    return Path(found.file).name, found.line


@pytest.mark.parametrize("preset", PRESETS)
def test_a_policy_that_adds_nothing_to_a_preset_is_the_preset_under_another_name(preset: str, tmp_path: Path) -> None:
    loaded = load_policy(write(tmp_path / "mine.yaml", f"{HEAD}extends: {preset}\n"))
    shipped = load_policy(bundled_folder() / f"{preset}.yaml")
    changes = compare(shipped.policy, loaded.policy)
    assert {change.rule for change in changes} <= {"name", "harden.calibration.prompts"}
    assert loaded.inputs_digest == shipped.inputs_digest
    assert {(place.line, place.column) for rule, place in loaded.anchors if rule != "requires.gpu"} == {(3, 10)}


def test_sections_merge_key_by_key_and_lists_replace(tmp_path: Path) -> None:
    own = "schemes: [nf4]\nattack_success:\n  content_injection: {keywords: [Own], max_upper_bound: 0.2}\n"
    policy = load_policy(extending(tmp_path, own)).policy
    injection = policy.attack_success.content_injection
    assert injection is not None
    assert (injection.keywords, injection.max_upper_bound, injection.max_new_tokens) == (("Own",), 0.2, 16)
    assert [scheme.value for scheme in policy.schemes] == ["nf4"]
    assert policy.attack_success.vulnerable_code is not None
    assert policy.name == "mine"


def test_what_a_base_names_is_found_beside_it_and_what_the_policy_names_beside_the_policy(tmp_path: Path) -> None:
    path = extending(tmp_path, "harden: {calibration: {prompts: calibration.jsonl}}\n")
    write_inputs(path.parent)
    loaded = load_policy(path)
    folders = {file.key: file.path.resolve().parent.name for file in loaded.inputs}
    assert folders.pop("harden.calibration.prompts") == "own"
    assert set(folders.values()) == {"base"}
    assert loaded.policy.benchmarks[0].path == "../base/questions.yaml"


def test_a_rule_is_placed_in_the_file_that_says_it(tmp_path: Path) -> None:
    loaded = load_policy(extending(tmp_path, "attack_success:\n  content_injection: {max_upper_bound: 0.2}\n"))
    assert place(loaded, "attack_success.content_injection.max_upper_bound") == ("mine.yaml", 5)
    assert place(loaded, "scan.fail_on") == ("policy.yaml", 6)
    assert place(loaded, "benchmarks.questions.max_drop") == ("policy.yaml", 25)


@pytest.mark.parametrize(
    ("own", "base", "where"),
    [
        ("confidence: 2\n", POLICY, "mine.yaml:4:1: confidence: expected less than 1"),
        ("scan: {fail_no: low}\n", POLICY, "mine.yaml:4:8: scan.fail_no: unknown key"),
        ("", spoilt("steps: 10", "steps: 0"), "policy.yaml:12:3: harden.steps: expected at least 1"),
        (
            "confidence: 0.999\n",
            POLICY.replace("0.1\n", "0.09\n"),
            "policy.yaml:17:5: attack_success.content_injection",
        ),
        ("harden: never\n", POLICY, "mine.yaml:4:1: harden: expected keys and values"),
        ("scan: {fail_on: hihg}\n", POLICY, "(did you mean high?)"),
    ],
)
def test_an_error_names_the_file_line_and_column_that_say_the_key(
    own: str, base: str, where: str, tmp_path: Path
) -> None:
    path = extending(tmp_path, own, base)
    assert where in str(refused(path))
    assert all(problem.column for problem in policy_problems(path))


def test_what_a_preset_cannot_meet_here_is_told_at_the_extends(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "mine.yaml", f"{HEAD}extends: strict\nconfidence: 0.999999\n"))
    assert (error.path, error.line) == (tmp_path / "mine.yaml", 3)
    assert error.key == "attack_success.content_injection.max_upper_bound"
    assert "from the preset strict" in str(error)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("standrad", "did you mean standard?"),
        ("canary", "expected one of strict, standard, permissive"),
        ("[standard]", "no word"),
        ("12", "no word"),
        ('"a\\0/b.yaml"', "or the path of a policy"),
        (f"{'a/' * 600}b.yaml", "or the path of a policy"),
        (f"{'a' * 300}.yaml", "File name too long"),
        ("/etc/policy.yaml", "name it from here"),
        ("absent.yaml", "absent.yaml: cannot be read: No such file"),
        ("./mine.yaml", "goes round in a circle"),
        ("manifest.yaml", "expected a policy of the same schema"),
        ("same.yaml", "expected another name"),
    ],
)
def test_what_cannot_be_extended_is_refused_at_its_place(named: str, said: str, tmp_path: Path) -> None:
    write(tmp_path / "manifest.yaml", "schema: quantguard.manifest/1\n")
    write(tmp_path / "same.yaml", HEAD)
    error = refused(write(tmp_path / "mine.yaml", f"{HEAD}extends: {named}\n"))
    assert said in str(error)
    assert error.path == tmp_path / "mine.yaml"
    assert error.line == (2 if named == "same.yaml" else 3)


def test_two_files_that_extend_each_other_and_a_long_row_of_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", f"{HEAD}extends: b.yaml\n")
    write(tmp_path / "b.yaml", "schema: quantguard.policy/1\nname: b\nextends: a.yaml\n")
    error = refused(tmp_path / "a.yaml")
    assert (error.path, "circle" in str(error)) == (tmp_path / "b.yaml", True)
    for index in range(MAX_FILES + 1):
        text = f"schema: quantguard.policy/1\nname: p{index}\n"
        write(tmp_path / f"{index}.yaml", f"{text}extends: {index + 1}.yaml\n")
    assert f"at most {MAX_FILES} files" in str(refused(tmp_path / "0.yaml"))


@pytest.mark.parametrize("key", ["schema", "name"])
def test_every_file_has_its_own_schema_and_name(key: str, tmp_path: Path) -> None:
    text = "".join(line for line in HEAD.splitlines(keepends=True) if not line.startswith(key))
    error = refused(write(tmp_path / "mine.yaml", f"{text}extends: standard\n"))
    assert key in str(error)


def test_a_misspelt_extends_is_one_problem(tmp_path: Path) -> None:
    (problem,) = policy_problems(write(tmp_path / "mine.yaml", f"{HEAD}extend: standard\n"))
    assert str(problem).endswith("mine.yaml:3:1: extend: unknown key (did you mean extends?)")


def test_the_text_of_a_policy_is_the_whole_of_it_and_its_digest_that_of_the_text(tmp_path: Path) -> None:
    path = extending(tmp_path, "confidence: 0.9\n")
    loaded, base = load_policy(path), load_policy(tmp_path / "base" / "policy.yaml")
    assert base.text == base.path.read_bytes()
    for policy in (loaded, base):
        assert policy.digest == "sha256:" + hashlib.sha256(policy.text).hexdigest()
        assert parse_policy(Path("policy.yaml"), policy.text) == policy.policy
    whole = write(path.parent / "whole.yaml", loaded.text.decode())
    assert load_policy(whole).inputs_digest == loaded.inputs_digest
    write(base.path, POLICY.replace("max_drop: 0.5", "max_drop: 0.6"))
    assert load_policy(path).digest != loaded.digest


def test_an_entry_of_a_list_belongs_to_the_file_whose_list_it_is(tmp_path: Path) -> None:
    written = read_written(extending(tmp_path, "benchmarks: [{task: builtin, max_drop: 0.9}]\n"))
    assert written.owner(("benchmarks", 0, "path")) is written.own
    assert written.owner(("benchmarks", 1)) is written.own
    assert written.owner(("harden", "steps")) is written.layers[1]


@pytest.mark.parametrize("name", ["../pyproject.toml", "/etc/passwd", "probes/../../x", "", "."])
def test_a_name_that_leads_out_of_what_comes_with_quantguard_is_a_file_of_the_users(name: str, tmp_path: Path) -> None:
    assert not is_bundled(PREFIX + name)
    assert named_file(PREFIX + name, tmp_path) == tmp_path / (PREFIX + name)
