"""What texts cost a loaded model, in nats, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quantguard.core.measurement import TextLoss, Unmeasured
from quantguard.core.progress import Progress, silent
from quantguard.models.foreign import said
from quantguard.models.load import LoadedModel
from quantguard.models.quiet import quiet_libraries
from quantguard.models.texts import TextBatch, batches, tokens_at_once
from quantguard.models.threads import threads_for


def text_loss(
    loaded: LoadedModel, texts: Sequence[Sequence[int]], progress: Progress = silent
) -> TextLoss | Unmeasured:
    """Each text is fed to the model whole, and every token but the first costs minus its log-probability.

    What does not fit the context that the model declares is cut. The same texts make the same batches under every
    scheme, so that what padding changes (the last bits) it changes alike. On a CUDA device that runs out of memory the
    batches are halved and tried again. A failure is Unmeasured.

    Args:
        texts: token ids, as `models.texts.joined` gives them.
    """
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    rows = [list(text[: context or None]) for text in texts]
    if problem := _cannot_be_read(loaded, rows):
        return Unmeasured(problem)
    room = tokens_at_once(loaded.model)
    with quiet_libraries(), threads_for(loaded.model, loaded.device):
        while True:
            try:
                return _loss(loaded, rows, room, progress)
            except torch.OutOfMemoryError:
                if room <= max(map(len, rows)):
                    return Unmeasured(f"{loaded.device} has too little memory for one text")
            except Exception as error:  # noqa: BLE001  the model's code is transformers', its configuration is anybody's
                return Unmeasured(f"the model failed on the policy's texts: {said(error)}")
            room //= 2
            torch.cuda.empty_cache()


def _cannot_be_read(loaded: LoadedModel, rows: Sequence[Sequence[int]]) -> str:
    """Why not, or nothing; a wrong id would kill a CUDA context."""
    embedding: Any = loaded.model.get_input_embeddings()
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            return f"text {number} has one token, and nothing to predict: use longer prompts"
        if max(row) >= embedding.num_embeddings:
            return f"the tokenizer gives token {max(row)}, the embedding has {embedding.num_embeddings} rows"
    return ""


def _loss(loaded: LoadedModel, rows: Sequence[Sequence[int]], room: int, progress: Progress) -> TextLoss | Unmeasured:
    nats = torch.zeros(len(rows), dtype=torch.float64)
    grouped = batches(rows, tokens=room, device=loaded.device)
    for number, batch in enumerate(grouped):
        progress("perplexity", number, len(grouped))
        nats[batch.texts] = _nats(loaded, batch).cpu()
    if not bool(nats.isfinite().all()):
        return Unmeasured("the logits are not finite")
    return TextLoss(tuple(nats.tolist()), tuple(len(row) - 1 for row in rows))


def _nats(loaded: LoadedModel, batch: TextBatch) -> Tensor:
    """Nats of each text of a batch: float64 (texts,). Padding costs nothing."""
    with torch.inference_mode():
        out = loaded.model(input_ids=batch.tokens, attention_mask=batch.mask.long(), use_cache=False)
        said_before = out.logits[:, :-1].float()  # (texts, tokens - 1, vocabulary)
        each = torch.nn.functional.cross_entropy(said_before.transpose(1, 2), batch.tokens[:, 1:], reduction="none")
        return torch.where(batch.mask[:, 1:], each, 0.0).double().sum(1)  # (texts,)
