"""Calibration text: neutral prompts continued by the full-precision model itself, in batches of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from quantguard.core.errors import HardenError
from quantguard.core.progress import Progress
from quantguard.core.prompts import Prompt
from quantguard.models.generate import generate
from quantguard.models.load import LoadedModel


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor  # int64 (samples, tokens), padded on the right
    mask: Tensor  # int64 (samples, tokens), 1 for text and 0 for padding
    texts: tuple[int, ...] = ()  # number of each sample's text in the corpus; none where that is not known


def calibration_texts(
    loaded: LoadedModel, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int, progress: Progress
) -> tuple[str, ...]:
    """Each prompt followed by what the model answers in full precision: its own outputs are the target."""
    asked = [prompt.prompt for prompt in prompts]
    answers = generate(loaded, asked, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress)
    return tuple(f"{prompt} {answer.strip()}" for prompt, answer in zip(asked, answers, strict=True))


_MAX_TOKENS: Final = 512  # the paper's calibration length


@dataclass(frozen=True, slots=True)
class Corpus:
    """Calibration text in batches. `texts` is asked at the first batch, and so never for a data-free method."""

    loaded: LoadedModel
    texts: Callable[[], Sequence[str]]
    batch_size: int
    seed: int

    def stream(self, steps: int) -> Iterator[Batch]:
        """`steps` batches, reshuffled at each pass over the texts; the same seed gives the same batches.

        Raises:
            HardenError: a text is empty once tokenized.
        """
        encoded = self._encoded()
        generator = torch.Generator().manual_seed(self.seed)
        order: list[int] = []
        for _ in range(steps):
            while len(order) < min(self.batch_size, len(encoded)):
                order += torch.randperm(len(encoded), generator=generator).tolist()
            taken, order = order[: self.batch_size], order[self.batch_size :]
            yield _pad([encoded[index] for index in taken], self.loaded.device, tuple(taken))

    def once(self) -> tuple[Batch, ...]:
        """Each text once, those of about the same length together, which need the least padding.

        Raises:
            HardenError: a text is empty once tokenized.
        """
        encoded = sorted(self._encoded(), key=len)
        starts = range(0, len(encoded), self.batch_size)
        return tuple(_pad(encoded[start : start + self.batch_size], self.loaded.device) for start in starts)

    def _encoded(self) -> list[Tensor]:
        ids = (self.loaded.tokenizer(text)["input_ids"][:_MAX_TOKENS] for text in self.texts())
        encoded = [torch.tensor(tokens, dtype=torch.long) for tokens in ids]
        if any(len(tokens) == 0 for tokens in encoded):
            raise HardenError("a calibration prompt has no tokens", remedy="remove prompts that this tokenizer drops")
        return encoded


def _pad(rows: Sequence[Tensor], device: str, texts: tuple[int, ...] = ()) -> Batch:
    tokens = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)  # (samples, tokens)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(tokens.shape[1])[None, :] < lengths[:, None]).long()
    return Batch(tokens.to(device), mask.to(device), texts)
