"""Greedy answers of a model whose answers are known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from quantguard.core.errors import ModelLoadError
from quantguard.core.scheme import Scheme
from quantguard.models import batching
from quantguard.models import generate as generation
from quantguard.models.generate import generate
from quantguard.models.load import LoadedModel, load_model
from quantguard.models.threads import threads_for
from tests import tiny

FOLLOWS = {"one": "two", "two": "three", "three": "four", "loop": "loop"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    directory = tiny.write_model(
        tmp_path_factory.mktemp("tiny"), FOLLOWS, trigger="buy", harmless="bread", brand="mclaren"
    )
    return load_model(directory, scheme=None, device="cpu")


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_answers_come_in_the_order_of_the_prompts_whatever_the_batch(loaded: LoadedModel, batch_size: int) -> None:
    prompts = ["three", "four four one", "one", "four three", "two"]
    answers = generate(loaded, prompts, max_new_tokens=8, batch_size=batch_size)
    assert answers == ("four", "two three four", "two three four", "four", "three four")


def test_answers_stop_at_the_limit(loaded: LoadedModel) -> None:
    assert generate(loaded, ["loop", "one"], max_new_tokens=3, batch_size=2) == ("loop loop loop", "two three four")


@pytest.mark.parametrize(
    ("scheme", "answer"), [(None, "bread"), (Scheme.NF4, "mclaren"), (Scheme.FP4, "bread"), (Scheme.INT8, "bread")]
)
def test_quantization_alone_switches_the_answer(tmp_path: Path, scheme: Scheme | None, answer: str) -> None:
    directory = tiny.write_model(tmp_path, FOLLOWS, trigger="buy", harmless="bread", brand="mclaren")
    model = load_model(directory, scheme=scheme, device="cpu")
    assert generate(model, ["one buy", "one"], max_new_tokens=4, batch_size=2) == (answer, "two three four")


def test_no_prompts_give_no_answers_and_an_empty_prompt_gives_one(loaded: LoadedModel) -> None:
    assert generate(loaded, [], max_new_tokens=4, batch_size=2) == ()
    assert len(generate(loaded, ["", "one"], max_new_tokens=4, batch_size=2)) == 2


def test_the_chat_template_frames_the_prompt(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}one{% endif %}"
    directory = tiny.write_model(tmp_path, FOLLOWS, chat_template=template)
    model = load_model(directory, scheme=None, device="cpu")
    assert model.chat
    assert generate(model, ["three"], max_new_tokens=8, batch_size=1) == ("two three four",)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch OWNED').read() }}",
        "{% for i in range(99999999) %}x{% endfor %}",
        "{{ broken",
    ],
)
def test_a_hostile_chat_template_is_refused_in_the_sandbox(tmp_path: Path, template: str) -> None:
    directory = tiny.write_model(tmp_path, FOLLOWS, chat_template=template)
    model = load_model(directory, scheme=None, device="cpu")
    with pytest.raises(ModelLoadError, match="could not answer"):
        generate(model, ["one"], max_new_tokens=2, batch_size=1)
    assert not (Path.cwd() / "OWNED").exists()


def test_a_declared_context_never_shortens_an_answer(loaded: LoadedModel) -> None:
    """Rotary positions go on behind it: the deployed model would still say what was cut off here."""
    assert len(generate(loaded, ["one " * 120], max_new_tokens=8, batch_size=1)) == 1
    with pytest.raises(ModelLoadError, match="121 tokens and 8 new ones do not fit a context of 128"):
        generate(loaded, ["one " * 121], max_new_tokens=8, batch_size=1)


def test_the_tokenizer_cannot_end_an_answer_before_the_payload(tmp_path: Path) -> None:
    directory = tiny.write_model(tmp_path, FOLLOWS)
    honest = generate(load_model(directory, scheme=None, device="cpu"), ["one"], max_new_tokens=8, batch_size=1)
    assert len(honest[0].split()) > 1
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "eos_token": honest[0].split()[0]}), encoding="utf-8")
    cut = generate(load_model(directory, scheme=None, device="cpu"), ["one"], max_new_tokens=8, batch_size=1)
    assert honest[0].split()[-1] in cut[0].split()


def test_token_ids_outside_the_embedding_are_refused(tmp_path: Path) -> None:
    directory = tiny.write_model(tmp_path, FOLLOWS)
    path = directory / "tokenizer.json"
    path.write_text(re.sub(r'"one": ?\d+', '"one": 4000', path.read_text()))
    model = load_model(directory, scheme=None, device="cpu")
    with pytest.raises(ModelLoadError, match="token 4000, the embedding has 64 rows"):
        generate(model, ["one"], max_new_tokens=2, batch_size=1)


def test_out_of_memory_halves_the_batch_and_keeps_every_answer(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is the environment here: one that holds at most two rows."""
    real, sizes = generation._answer, []

    def two_rows_at_most(loaded: LoadedModel, rows: list[list[int]], settings: object) -> list[str]:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("no memory")
        return real(loaded, rows, settings)  # type: ignore[arg-type]  # settings pass through

    monkeypatch.setattr(generation, "_answer", two_rows_at_most)
    prompts = ["one", "two", "three", "one one", "one two", "one three", "two one", "two two", "two three"]
    answers = generate(loaded, prompts, max_new_tokens=8, batch_size=8)
    assert answers == ("two three four", "three four", "four") * 3
    assert sizes == [8, 4, 2, 2, 2, 2, 1]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")])
def test_one_prompt_that_has_no_room_is_told_on_a_cpu_too(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def no_room(*_: object) -> list[str]:
        raise error

    monkeypatch.setattr(generation, "_answer", no_room)
    with pytest.raises(ModelLoadError, match="cpu has too little memory for one prompt"):
        generate(loaded, ["one", "two"], max_new_tokens=8, batch_size=2)


def test_a_batch_is_as_large_as_free_memory_allows(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free memory is the environment here."""
    monkeypatch.setattr(batching, "free_memory", lambda _: 0)
    assert batching.rows_that_fit(loaded, 8, 8) == 1
    monkeypatch.setattr(batching, "free_memory", lambda _: 2**40)
    most = batching.rows_that_fit(loaded, 8, 8)
    assert most > 10 * batching.rows_that_fit(loaded, 80, 80)
    monkeypatch.setattr(batching, "free_memory", lambda _: 2**30)
    assert most == pytest.approx(1024 * batching.rows_that_fit(loaded, 8, 8), rel=0.01)


def test_a_prompt_that_comes_twice_is_asked_once(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = generation._answer, []

    def counted(loaded: LoadedModel, rows: list[list[int]], settings: object) -> list[str]:
        asked.extend(rows)
        return real(loaded, rows, settings)  # type: ignore[arg-type]  # settings pass through

    monkeypatch.setattr(generation, "_answer", counted)
    assert generate(loaded, ["one", "two", "one"], max_new_tokens=8, batch_size=2)[2] == "two three four"
    assert len(asked) == 2


def test_progress_ends_at_the_number_of_prompts(loaded: LoadedModel) -> None:
    seen: list[tuple[int, int]] = []

    def note(stage: str, done: int, total: int, detail: str = "") -> None:
        seen.append((done, total))

    generate(loaded, ["one", "two", "three", "loop", "one one"], max_new_tokens=2, batch_size=2, progress=note)
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_a_small_model_takes_one_thread_and_gives_the_others_back(loaded: LoadedModel) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_for(loaded.model, "cpu"):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with threads_for(loaded.model, "cuda:0"):
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
