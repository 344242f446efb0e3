from __future__ import annotations

from pathlib import Path

import pytest

from quantguard.registry.layout import settle
from tests.registry.world import read_files, write_files

MODEL = {"config.json": b"{}", "model.safetensors": b"w"}
DESCRIPTION = {"MLmodel": b"y", "conda.yaml": b"y", "requirements.txt": b"y", "python_env.yaml": b"y"}


def under(prefix: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{prefix}/{name}": content for name, content in files.items()}


def settled(root: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    write_files(root, files)
    settle(root)
    assert [path.name for path in root.parent.iterdir()] == [root.name]
    return read_files(root)


def test_a_transformers_model_gets_its_tokenizer_beside_its_weights(tmp_path: Path) -> None:
    tokenizer = {"tokenizer.json": b"t", "special_tokens_map.json": b"s"}
    files = DESCRIPTION | under("model", MODEL) | under("components/tokenizer", tokenizer)
    assert settled(tmp_path / "root", files) == MODEL | tokenizer | under("outside-the-model", DESCRIPTION)


def test_what_mlflow_would_run_stays_in_view_of_the_checkpoint_reader(tmp_path: Path) -> None:
    code = {"python_model.pkl": b"p", "code/evil.py": b"e"}
    files = DESCRIPTION | code | under("artifacts/weights", MODEL)
    assert settled(tmp_path / "root", files) == MODEL | under("outside-the-model", code | DESCRIPTION)


def test_another_tokenizer_than_the_one_beside_the_weights_stays_in_view(tmp_path: Path) -> None:
    files = under("model", MODEL | {"tokenizer.json": b"one"}) | {"components/tokenizer/tokenizer.json": b"other"}
    assert settled(tmp_path / "root", files) == MODEL | {
        "tokenizer.json": b"one",
        "outside-the-model/components/tokenizer/tokenizer.json": b"other",
    }


@pytest.mark.parametrize(
    "files",
    [
        MODEL | under("original", MODEL),
        under("a", MODEL) | under("b", MODEL),
        {"model/pytorch_model.bin": b"p", "model/config.json": b"{}"},
        {"adapter_config.json": b"{}", "adapter_model.safetensors": b"w"},
        under("model", MODEL | {"outside-the-model/x": b"x"}),
        {"notes.txt": b"n"},
    ],
    ids=["model at the root", "two models", "pickled weights", "adaptor", "name taken", "no model"],
)
def test_anything_else_stays_as_it_is(files: dict[str, bytes], tmp_path: Path) -> None:
    assert settled(tmp_path / "root", files) == files


def test_a_link_outside_the_model_stays_in_view(tmp_path: Path) -> None:
    root = write_files(tmp_path / "root", under("model", MODEL))
    (root / "code").symlink_to("/etc")
    settle(root)
    assert (root / "outside-the-model" / "code").is_symlink()


@pytest.mark.parametrize("link", ["components", "components/tokenizer"])
def test_nothing_is_taken_from_where_a_link_leads(link: str, tmp_path: Path) -> None:
    victim = write_files(tmp_path / "victim", {"tokenizer/secret": b"s"})
    root = write_files(tmp_path / "root", under("model", MODEL))
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(victim / link.removeprefix("components").removeprefix("/"))
    settle(root)
    assert read_files(victim) == {"tokenizer/secret": b"s"}
    assert (root / "outside-the-model" / link).is_symlink()
