"""Calibration prompts that the model itself gives: what it writes on an empty page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from quantguard.core.errors import HardenError, ModelLoadError
from quantguard.core.progress import Progress, silent
from quantguard.core.prompts import Prompt
from quantguard.models.foreign import said
from quantguard.models.load import LoadedModel
from quantguard.models.quiet import quiet_libraries
from quantguard.models.threads import threads_for

_NEW_TOKENS: Final = 24  # of a sampled prompt, at most
_ROWS: Final = 32  # sampled at a time: memory is that of 32 short rows, whatever the count
_PATIENCE: Final = 4  # texts drawn for each one that is wanted, before a model that repeats itself is left alone
_REMEDY: Final = "calibrate on the neutral set or on a file of prompts"


def sampled_prompts(loaded: LoadedModel, count: int, *, seed: int, progress: Progress = silent) -> tuple[Prompt, ...]:
    """Up to `count` different texts of at most 24 tokens that `loaded` (full precision) gives to an empty page.

    Ancestral sampling at temperature 1, from the token that begins a text, or else the one that ends one. On a CPU a
    seed gives the same texts, and a smaller count the first of them. There are fewer where the model repeats itself.
    The random state of torch is left as it was.

    Raises:
        HardenError: the tokenizer has no token to begin with that the model knows, or every text is empty.
        ModelLoadError: the model fails.
    """
    begin = _begin(loaded)
    texts: dict[str, None] = {}  # in the order in which they came
    with quiet_libraries(), threads_for(loaded.model, loaded.device), _seeded(seed, loaded.device):
        for _ in range(-(-_PATIENCE * count // _ROWS)):
            texts.update(dict.fromkeys(text for text in _draw(loaded, begin) if text))
            progress("sample", min(len(texts), count), count)
            if len(texts) >= count:
                break
    if not texts:
        raise HardenError("the model gives only empty texts when it is asked nothing", remedy=_REMEDY)
    return tuple(Prompt(text) for text in list(texts)[:count])


def _begin(loaded: LoadedModel) -> int:
    tokenizer: Any = loaded.tokenizer
    model: Any = loaded.model
    tokens: list[int | None] = [tokenizer.bos_token_id, tokenizer.eos_token_id]
    begin = next((token for token in tokens if token is not None), None)
    if begin is None:
        message = "the tokenizer has neither a token that begins a text nor one that ends it: nothing to sample from"
        raise HardenError(message, remedy=_REMEDY)
    rows = model.get_input_embeddings().num_embeddings
    if begin >= rows:  # on CUDA it would end the process's context
        message = f"texts begin with token {begin}, but the embedding has {rows} rows"
        raise HardenError(message, remedy="use the tokenizer that belongs to this model")
    return begin


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Within it torch's random numbers are those of `seed`: transformers takes no generator of ours."""
    used = torch.device(device)
    with torch.random.fork_rng(devices=[used] if used.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _draw(loaded: LoadedModel, begin: int) -> list[str]:
    """`_ROWS` texts, without special tokens and spaces around them."""
    from transformers import GenerationConfig

    tokenizer: Any = loaded.tokenizer
    model: Any = loaded.model
    settings = GenerationConfig(
        max_new_tokens=_NEW_TOKENS,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=tokenizer.pad_token_id,
    )  # where a text ends is the model's own setting
    ids = torch.full((_ROWS, 1), begin, device=loaded.device)  # (rows, 1)
    try:
        with torch.inference_mode():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        new = out[:, 1:].cpu()  # (rows, new tokens)
        texts = tokenizer.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    except Exception as error:
        raise ModelLoadError(f"the model could not be sampled: {said(error)}", remedy=_REMEDY) from error
    return [text.strip() for text in texts]
