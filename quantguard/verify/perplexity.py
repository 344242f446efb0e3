"""Perplexity on texts that are the same for a model, its hardened copy and every scheme. Without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from quantguard.core.errors import ModelLoadError
from quantguard.core.measurement import Measurements, Perplexity, Rise, TextLoss, Unmeasured
from quantguard.core.progress import Progress
from quantguard.core.prompts import Prompt, prompts_digest
from quantguard.core.scheme import Scheme
from quantguard.evidence.records import digest_of
from quantguard.models.load import LoadedModel
from quantguard.verify.rise import rise

_NEW_TOKENS: Final = 32  # of the original's own answer, where the prompts give none
_NOT_COMPARED: Final = Unmeasured("not compared with the reference")


@dataclass(frozen=True, slots=True)
class PerplexityRequest:
    """What to read."""

    prompts: tuple[Prompt, ...]  # not empty; a text ends with the answer that is given, or with the original's own


@dataclass(slots=True)
class Reading:
    """One model reads the texts, in full precision first; then its rows are compared."""

    request: PerplexityRequest
    reference: Measurements | None  # of the original; None: this is the original
    batch_size: int
    progress: Progress
    rows: list[Perplexity] = field(default_factory=list)

    def read(self, loaded: LoadedModel) -> None:
        """Add the row of one loaded model. A failure is Unmeasured, never an exception."""
        answers = self._answers(loaded)
        if isinstance(answers, Unmeasured):
            self.failed(loaded.scheme, answers.reason)
            return
        from quantguard.models.texts import joined
        from quantguard.verify.perplexity_run import text_loss

        try:
            texts = joined(loaded, self.request.prompts, answers)
        except ModelLoadError as error:
            self.failed(loaded.scheme, str(error))
            return
        own = answers if self.reference is None and loaded.scheme is None else ()
        self._add(
            loaded.scheme, text_loss(loaded, texts, self.progress), digest_of([list(text) for text in texts]), own
        )

    def failed(self, scheme: Scheme | None, reason: str) -> None:
        """Add the row of a model that could not be loaded or could not read."""
        self._add(scheme, Unmeasured(reason))

    def compared(
        self, runs: Sequence[Scheme | None], problem: str | None, *, confidence: float, seed: int
    ) -> tuple[Perplexity, ...]:
        """A row for each of `runs`, with what perplexity rose against both full precisions.

        `problem` says why nothing could be read, where there is a reason.
        """
        found = {row.scheme: row for row in self.rows}
        rows = [found.get(scheme) or self._row(scheme, Unmeasured(problem or "it was not read")) for scheme in runs]
        own = _full(rows)
        original = own if self.reference is None else _full(self.reference.perplexities)
        return tuple(
            replace(
                row,
                rise=_rise(original, row, confidence, seed),
                own_rise=_rise(own, row, confidence, seed),
            )
            for row in rows
        )

    def _answers(self, loaded: LoadedModel) -> tuple[str, ...] | Unmeasured:
        """What the texts end with: given, or said by the original in full precision."""
        if self.reference is None and loaded.scheme is None:
            return _said(loaded, self.request.prompts, self.batch_size, self.progress)
        full = _full(self.rows if self.reference is None else self.reference.perplexities)
        if full is None or isinstance(full.loss, Unmeasured):
            return Unmeasured(f"the original in full precision is unmeasured: {_why(full)}")
        if full.prompts != prompts_digest(self.request.prompts):
            return Unmeasured("the reference was asked other prompts")
        return full.answers

    def _add(
        self, scheme: Scheme | None, loss: TextLoss | Unmeasured, texts: str = "", own: Sequence[str] = ()
    ) -> None:
        measured = isinstance(loss, TextLoss)
        row = self._row(scheme, loss)
        self.rows.append(replace(row, texts=texts, answers=tuple(own)) if measured else row)

    def _row(self, scheme: Scheme | None, loss: TextLoss | Unmeasured) -> Perplexity:
        digest = prompts_digest(self.request.prompts)
        return Perplexity(scheme, loss, _NOT_COMPARED, _NOT_COMPARED, digest)


def _full(rows: Iterable[Perplexity]) -> Perplexity | None:
    return next((row for row in rows if row.scheme is None), None)


def _why(full: Perplexity | None) -> str:
    return full.loss.reason if full is not None and isinstance(full.loss, Unmeasured) else "it read no texts"


def _said(
    loaded: LoadedModel, prompts: Sequence[Prompt], batch_size: int, progress: Progress
) -> tuple[str, ...] | Unmeasured:
    from quantguard.models.generate import generate

    asked = [prompt.prompt for prompt in prompts if prompt.answer is None]
    try:
        own = iter(generate(loaded, asked, max_new_tokens=_NEW_TOKENS, batch_size=batch_size, progress=progress))
    except ModelLoadError as error:
        return Unmeasured(str(error))
    return tuple(next(own) if prompt.answer is None else prompt.answer for prompt in prompts)


def _rise(before: Perplexity | None, after: Perplexity, confidence: float, seed: int) -> Rise | Unmeasured:
    if isinstance(after.loss, Unmeasured):
        return after.loss
    if before is None or isinstance(before.loss, Unmeasured):
        return Unmeasured(f"the reference is unmeasured: {_why(before)}")
    if before.texts != after.texts:
        return Unmeasured("the reference read other texts")
    return rise(before.loss, after.loss, confidence=confidence, seed=seed)
