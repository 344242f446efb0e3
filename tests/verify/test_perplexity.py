"""Perplexity of real models by the real library: what is read, what it costs, and what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch

from quantguard.canary.catalogue import CanaryKind, canary_directory
from quantguard.core.measurement import Measurements, Perplexity, Rise, TextLoss, Unmeasured
from quantguard.core.prompts import Prompt, read_prompts
from quantguard.core.scheme import Scheme
from quantguard.core.verdict import Subject
from quantguard.evidence.records import from_plain, to_plain
from quantguard.models.load import LoadedModel, load_model
from quantguard.models.safe_directory import rebuild
from quantguard.models.texts import TextBatch, joined
from quantguard.verify import perplexity_run
from quantguard.verify.measure import PerplexityRequest
from quantguard.verify.perplexity_run import text_loss
from tests import tiny
from tests.verify.measuring import whole

PROMPTS = read_prompts(Path(__file__).parents[2] / "policies" / "canary" / "calibration.jsonl")[:32]
FOLLOWS = {"one": "two", "two": "three", "buy": "bread"}


def measured(
    directory: Path,
    scratch: Path,
    *,
    prompts: tuple[Prompt, ...] = PROMPTS,
    reference: Measurements | None = None,
    schemes: tuple[Scheme, ...] = (Scheme.NF4,),
) -> Measurements:
    subject = Subject.ORIGINAL if reference is None else Subject.HARDENED
    asked = PerplexityRequest(prompts)
    return whole(directory, scratch, subject=subject, schemes=schemes, reference=reference, perplexity=asked)


def figures(row: Perplexity) -> tuple[TextLoss, Rise, Rise]:
    assert isinstance(row.loss, TextLoss), row.loss
    assert isinstance(row.rise, Rise), row.rise
    assert isinstance(row.own_rise, Rise), row.own_rise
    return row.loss, row.rise, row.own_rise


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("tiny")
    source = tiny.write_model(folder / "model", FOLLOWS)
    return load_model(rebuild(source, folder / "clean"), scheme=None, device="cpu")


def test_a_token_costs_minus_the_logarithm_of_what_the_model_gives_it(loaded: LoadedModel) -> None:
    texts = joined(loaded, (Prompt("one"), Prompt("buy one")), ("two three", "two"))
    loss = text_loss(loaded, texts)
    assert isinstance(loss, TextLoss)
    for text, nats, tokens in zip(texts, loss.nats, loss.tokens, strict=True):
        with torch.inference_mode():
            log_p = loaded.model(input_ids=torch.tensor([text])).logits.log_softmax(-1)[0]  # (tokens, vocabulary)
        assert nats == pytest.approx(-sum(float(log_p[i - 1, text[i]]) for i in range(1, len(text))), rel=1e-5)
        assert tokens == len(text) - 1


def test_padding_costs_nothing_and_order_changes_nothing(loaded: LoadedModel) -> None:
    prompts = tuple(Prompt(" ".join(["one", "two"] * length)) for length in (9, 1, 4))
    texts = joined(loaded, prompts, ("three",) * 3)
    together = text_loss(loaded, texts)
    assert isinstance(together, TextLoss)
    alone = [text_loss(loaded, [text]) for text in texts]
    assert [a.nats[0] for a in alone if isinstance(a, TextLoss)] == pytest.approx(together.nats, rel=1e-6)


def test_a_model_without_knowledge_has_the_perplexity_of_its_vocabulary(tmp_path: Path) -> None:
    source = tiny.write_model(tmp_path / "model", FOLLOWS)
    loaded = load_model(rebuild(source, tmp_path / "clean"), scheme=None, device="cpu")
    loaded.model.lm_head.weight.data.zero_()
    loss = text_loss(loaded, [(3, 4, 5), (4, 5)])
    assert isinstance(loss, TextLoss)
    assert loss.nats_a_token == pytest.approx(log(tiny.WIDTH), rel=1e-6)
    assert loss.perplexity == pytest.approx(tiny.WIDTH, rel=1e-5)


def test_the_chat_template_is_part_of_what_is_read(tmp_path: Path) -> None:
    template = "{% for m in messages %}one {{ m.content }} two {% endfor %}"
    source = tiny.write_model(tmp_path / "model", FOLLOWS, chat_template=template)
    loaded = load_model(rebuild(source, tmp_path / "clean"), scheme=None, device="cpu")
    (text,) = joined(loaded, (Prompt("buy"),), ("bread",))
    assert str(loaded.tokenizer.decode(list(text))).split() == ["one", "buy", "two", "bread"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_unmeasured(bad: float, tmp_path: Path) -> None:
    source = tiny.write_model(tmp_path / "model", FOLLOWS)
    loaded = load_model(rebuild(source, tmp_path / "clean"), scheme=None, device="cpu")
    loaded.model.lm_head.weight.data[0, 0] = bad
    assert text_loss(loaded, [(0, 3, 4), (4, 5)]) == Unmeasured("the logits are not finite")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([(3, 4), (3,)], "text 2 has one token"),
        ([(3, 9999)], "the tokenizer gives token 9999, the embedding has 64 rows"),
    ],
)
def test_what_cannot_be_read_is_unmeasured_and_says_why(
    texts: list[tuple[int, ...]], said: str, loaded: LoadedModel
) -> None:
    found = text_loss(loaded, texts)
    assert isinstance(found, Unmeasured)
    assert said in found.reason


def test_a_device_that_runs_out_of_memory_is_asked_for_less(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [(3, 4, 5)] * 8
    whole, real = text_loss(loaded, texts), perplexity_run._nats
    sizes = []

    def small(model: LoadedModel, batch: TextBatch) -> torch.Tensor:
        sizes.append(len(batch.tokens))
        if len(batch.tokens) > 2:
            raise torch.OutOfMemoryError
        return real(model, batch)

    monkeypatch.setattr(perplexity_run, "tokens_at_once", lambda _: 24)
    monkeypatch.setattr(perplexity_run, "_nats", small)
    assert text_loss(loaded, texts) == whole
    assert sizes == [8, 4, 2, 2, 2, 2]
    monkeypatch.setattr(perplexity_run, "_nats", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
    assert text_loss(loaded, texts) == Unmeasured("cpu has too little memory for one text")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Measurements:
    directory = canary_directory(CanaryKind.CLEAN)
    return measured(directory, tmp_path_factory.mktemp("scratch"), schemes=tuple(Scheme))


def test_full_precision_rose_by_nothing_and_rounding_a_clean_model_costs_little(original: Measurements) -> None:
    full, *quantized = original.perplexities
    assert full.scheme is None
    loss, rise, _ = figures(full)
    assert (rise.value, rise.lower, rise.upper, len(loss.tokens)) == (0.0, 0.0, 0.0, 32)
    for row in quantized:
        read, rise, own = figures(row)
        assert rise == own
        assert rise.value == pytest.approx(read.perplexity / loss.perplexity - 1)
        assert -0.1 < rise.lower <= rise.upper < 0.1
    assert len({row.texts for row in original.perplexities}) == 1
    assert [len(row.answers) for row in original.perplexities] == [32, *[0] * len(quantized)]


def test_a_hardened_model_is_measured_on_the_texts_of_the_original(original: Measurements, tmp_path: Path) -> None:
    """Here another model altogether: it says something else, and is not asked."""
    other = measured(canary_directory(CanaryKind.MALICIOUS), tmp_path, reference=original)
    assert {row.texts for row in other.perplexities} == {original.perplexities[0].texts}
    full, nf4 = other.perplexities
    _, rise, own = figures(full)
    assert abs(rise.value) > 0.1
    assert own.value == 0.0
    _, against_original, against_itself = figures(nf4)
    assert against_original.value != against_itself.value
    alone = measured(canary_directory(CanaryKind.MALICIOUS), tmp_path)
    assert alone.perplexities[0].texts != full.texts
    assert full.answers == ()


def test_given_answers_are_read_in_the_place_of_the_models_own(original: Measurements, tmp_path: Path) -> None:
    prompts = tuple(replace(prompt, answer=f"never said {n}") for n, prompt in enumerate(PROMPTS))
    given = measured(canary_directory(CanaryKind.CLEAN), tmp_path, prompts=prompts, schemes=())
    loss, _, _ = figures(given.perplexities[0])
    own, _, _ = figures(original.perplexities[0])
    assert given.perplexities[0].answers == tuple(f"never said {n}" for n in range(32))
    assert loss.nats_a_token > own.nats_a_token


def test_what_the_original_could_not_read_no_copy_is_measured_on(original: Measurements, tmp_path: Path) -> None:
    directory = canary_directory(CanaryKind.CLEAN)
    failed = replace(original.perplexities[0], loss=Unmeasured("memory"))
    for reference, said in (
        (replace(original, perplexities=()), "it read no texts"),
        (replace(original, perplexities=(failed,)), "memory"),
    ):
        rows = measured(directory, tmp_path, reference=reference).perplexities
        assert [row.scheme for row in rows] == [None, Scheme.NF4]
        for row in rows:
            assert isinstance(row.loss, Unmeasured)
            assert isinstance(row.rise, Unmeasured)
            assert said in row.loss.reason
    asked = measured(directory, tmp_path, prompts=PROMPTS[:4], reference=original).perplexities[0]
    assert asked.loss == Unmeasured("the reference was asked other prompts")


def test_a_directory_that_is_no_model_has_a_row_for_every_scheme(tmp_path: Path) -> None:
    source = tiny.write_model(tmp_path / "model", FOLLOWS)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 9}))
    rows = measured(source, tmp_path / "scratch").perplexities
    assert [row.scheme for row in rows] == [None, Scheme.NF4]
    assert all(isinstance(row.loss, Unmeasured) and isinstance(row.rise, Unmeasured) for row in rows)


def test_evidence_keeps_every_digit(original: Measurements) -> None:
    plain = json.loads(json.dumps(to_plain(Measurements, original)))
    assert from_plain(Measurements, plain) == original
