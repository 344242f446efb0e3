"""Greedy answers to many prompts.

A chat template is text of the model. transformers 5 renders it in jinja2's ImmutableSandboxedEnvironment
(utils/chat_template_utils.py, `_cached_compile_jinja_template`), which refuses attribute access to Python internals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quantguard.core.errors import ModelLoadError
from quantguard.core.progress import Progress, silent
from quantguard.models.foreign import said
from quantguard.models.load import LoadedModel
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

    Prompts are wrapped in the chat template where the tokenizer has one, batched by length and padded on the left.
    Answers end where the deployed model's own `generate` ends them, and never before: what is cut off here could be
    the payload. When a CUDA device runs out of memory the batch is halved and tried again.

    Raises:
        ModelLoadError: the template does not render, a prompt and `max_new_tokens` do not fit the context that the
            model declares, token ids lie outside the embedding, one prompt alone runs out of memory, or the model
            fails.
    """
    if not prompts:
        return ()
    try:
        with quiet_libraries(), threads_for(loaded.model, loaded.device):
            return _generate(loaded, prompts, max_new_tokens, batch_size, progress)
    except ModelLoadError:
        raise
    except Exception as error:
        remedy = "try transformers' generate on it, or another --device"
        raise ModelLoadError(f"the model could not answer: {said(error)}", remedy=remedy) from error


def _generate(
    loaded: LoadedModel, prompts: Sequence[str], max_new_tokens: int, batch_size: int, progress: Progress
) -> tuple[str, ...]:
    import torch

    encoded = [_encode(loaded, prompt) for prompt in prompts]
    _require_room(loaded, encoded, max_new_tokens)
    settings = _settings(loaded, max_new_tokens)
    order = sorted(range(len(prompts)), key=lambda i: (-len(encoded[i]), i))  # longest first: memory fails early
    answers = [""] * len(prompts)
    done = 0
    while done < len(order):
        batch = order[done : done + batch_size]
        try:
            texts = _answer(loaded, [encoded[i] for i in batch], settings)
        except torch.OutOfMemoryError as error:
            if batch_size == 1:
                message = f"{loaded.device} has too little memory for one prompt"
                raise ModelLoadError(message, remedy="use a larger device") from error
            texts = None
        if texts is None:  # outside of the handler: the error's frames hold the tensors that are to be freed
            torch.cuda.empty_cache()
            batch_size = max(1, batch_size // 2)
            continue
        for i, text in zip(batch, texts, strict=True):
            answers[i] = text
        done += len(batch)
        progress("generate", done, len(order))
    return tuple(answers)


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
