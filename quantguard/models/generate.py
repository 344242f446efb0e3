"""Greedy answers to many prompts.

A chat template is text of the model. transformers 5 renders it in jinja2's ImmutableSandboxedEnvironment
(utils/chat_template_utils.py, `_cached_compile_jinja_template`), which refuses attribute access to Python internals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from quantguard.core.errors import ModelLoadError
from quantguard.core.progress import Progress, silent
from quantguard.models.batching import rows_that_fit
from quantguard.models.foreign import said
from quantguard.models.kept import key_of
from quantguard.models.load import LoadedModel
from quantguard.models.memory import free_unused, out_of_memory
from quantguard.models.quiet import quiet_libraries
from quantguard.models.threads import threads_for

if TYPE_CHECKING:
    from transformers import GenerationConfig


def generate(
    loaded: LoadedModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """The greedy continuation of each prompt, in the order of `prompts`: new text only, special tokens left out.

    Prompts are wrapped in the chat template where the tokenizer has one, batched by length and padded on the left: as
    many at once as fit into free memory, `batch_size` at most. When memory runs out all the same, the batch is halved.
    Answers end where the deployed model's own `generate` ends them, and never before: what is cut off here could be
    the payload. A prompt that comes twice is asked once, and what `loaded.kept` holds is not asked again.

    Raises:
        ModelLoadError: the template does not render, a prompt and `max_new_tokens` do not fit the context that the
            model declares, token ids lie outside the embedding, one prompt alone runs out of memory, or the model
            fails.
    """
    file = None if loaded.kept is None else loaded.kept.of(loaded.scheme, max_new_tokens)
    known = {} if file is None else file.read()
    answers = {prompt: known[key] for prompt in prompts if (key := key_of(prompt)) in known}
    missing, done = [prompt for prompt in dict.fromkeys(prompts) if prompt not in answers], 0
    try:
        with quiet_libraries(), threads_for(loaded.model, loaded.device):
            for batch in _generated(loaded, missing, max_new_tokens, batch_size):
                answers |= batch
                if file is not None:
                    file.add(batch.items())
                done += len(batch)
                progress("generate", done, len(missing))
    except ModelLoadError:
        raise
    except Exception as error:
        remedy = "try transformers' generate on it, or another --device"
        raise ModelLoadError(f"the model could not answer: {said(error)}", remedy=remedy) from error
    return tuple(answers[prompt] for prompt in prompts)


def _generated(
    loaded: LoadedModel, prompts: Sequence[str], max_new_tokens: int, batch_size: int
) -> Iterator[dict[str, str]]:
    """Batches of prompts with their answers."""
    if not prompts:
        return
    encoded = [_encode(loaded, prompt) for prompt in prompts]
    _require_room(loaded, encoded, max_new_tokens)
    settings = _settings(loaded, max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda i: (-len(encoded[i]), i))  # longest first: memory fails early
    while order:
        batch = order[: min(batch_size, rows_that_fit(loaded, len(encoded[order[0]]), max_new_tokens))]
        texts = _answer_or_none(loaded, [encoded[i] for i in batch], settings)
        if texts is None:  # outside of the handler: the error's frames hold the tensors that are to be freed
            batch_size = max(1, len(batch) // 2)
            free_unused(loaded.device)
            continue
        yield {prompts[i]: text for i, text in zip(batch, texts, strict=True)}
        order = order[len(batch) :]


def _answer_or_none(loaded: LoadedModel, rows: Sequence[Sequence[int]], settings: GenerationConfig) -> list[str] | None:
    """None where memory runs out for more than one row."""
    try:
        return _answer(loaded, rows, settings)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if len(rows) == 1:
            message = f"{loaded.device} has too little memory for one prompt"
            raise ModelLoadError(message, remedy="use a larger device") from error
        return None


def _encode(loaded: LoadedModel, prompt: str) -> list[int]:
    """Token ids of one prompt, with the chat template where there is one."""
    tokenizer: Any = loaded.tokenizer
    if loaded.chat:
        turn = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(prompt)["input_ids"]
    if not ids:  # nothing to continue from: an empty row would be padding alone
        ids = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.pad_token_id]
    return list(ids)


def _require_room(loaded: LoadedModel, encoded: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """The longest prompt and its answer fit the context; checks every id too, for a wrong one kills a CUDA context."""
    embedding: Any = loaded.model.get_input_embeddings()
    highest = max(max(ids) for ids in encoded)
    if highest >= embedding.num_embeddings:
        message = f"the tokenizer gives token {highest}, the embedding has {embedding.num_embeddings} rows"
        raise ModelLoadError(message, remedy="use the tokenizer that belongs to this model")
    longest = max(len(ids) for ids in encoded)
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    if context and longest + max_new_tokens > context:
        message = f"a prompt of {longest} tokens and {max_new_tokens} new ones do not fit a context of {context}"
        raise ModelLoadError(message, remedy="use shorter prompts or fewer new tokens")


def _settings(loaded: LoadedModel, max_new_tokens: int) -> GenerationConfig:
    from transformers import GenerationConfig

    stored = loaded.model.generation_config
    own = None if stored is None else stored.eos_token_id
    # Not the tokenizer's eos: `generate` does not look at it, and a hostile one would end answers before the payload.
    ends = set(own if isinstance(own, list) else [own]) - {None}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=loaded.tokenizer.pad_token_id,
        bos_token_id=loaded.tokenizer.bos_token_id,
        eos_token_id=sorted(ends) or None,
    )


def _answer(loaded: LoadedModel, rows: Sequence[Sequence[int]], settings: GenerationConfig) -> list[str]:
    import torch

    width = max(len(row) for row in rows)
    pad = settings.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=loaded.device)  # (rows, width)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=loaded.device)
    model: Any = loaded.model
    with torch.inference_mode():
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    tokenizer: Any = loaded.tokenizer
    new = out[:, width:].cpu()  # (rows, new tokens)
    return list(tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False))
