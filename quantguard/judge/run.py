"""The judge's errands: read, ask what nobody has answered yet, leave what came back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import Final

from quantguard.core.errand import Errand, ErrandKind, ErrandOutcome, Reply
from quantguard.core.errors import EvidenceError, JudgeError, QuantGuardError
from quantguard.core.judging import MOST_ANSWER, prompt_name
from quantguard.core.progress import Progress, silent
from quantguard.evidence.errands import Errands
from quantguard.judge.interface import Judge

_KEPT: Final = "judgements.jsonl"
_MOST_KEPT: Final = 64 * 1024 * 1024  # bytes that are read of it


def judge_errands(
    errands: Errands, judge: Judge, *, model: str, concurrency: int, progress: Progress = silent
) -> tuple[str, ...]:
    """Answer every open errand of the judge's kind; the problems that kept some from being done.

    Each judgement is kept beside the outcomes as soon as it is there: whoever runs this again asks only what is
    missing. Equal answers are asked about once.

    Raises:
        EvidenceError: the directory cannot be read or written.
    """
    problems = []
    kept = _Kept(errands.done / _KEPT, judge.identity)
    for digest, errand in errands.open(ErrandKind.JUDGE):
        try:
            require_sound(errand, model)
            texts = [item[0] for item in errand.items]
            words = _words(texts, judge, kept, concurrency, progress)
            outcome = ErrandOutcome(digest, tuple(Reply(words[text]) for text in texts))
        except JudgeError as error:
            problems.append(str(error))
            outcome = ErrandOutcome(digest, (), str(error))
        errands.leave(errand, outcome)
    return tuple(dict.fromkeys(problems))


def leave_problem(errands: Errands, problem: QuantGuardError) -> None:
    """Tell whoever waits why no judge was asked."""
    for digest, errand in errands.open(ErrandKind.JUDGE):
        errands.leave(errand, ErrandOutcome(digest, (), str(problem)))


def require_sound(errand: Errand, model: str) -> None:
    """The room of the weights asks; this room does only what the policy says.

    Raises:
        JudgeError: it asks for another model or in other words, or its questions are no answers to be judged.
    """
    if dict(errand.settings) != {"model": model, "prompt": prompt_name()}:
        raise JudgeError("what is asked of the judge is not what the policy says", remedy="run the stage assess again")
    if any(len(item) != 1 or len(item[0]) > MOST_ANSWER for item in errand.items):
        raise JudgeError("what is asked of the judge is no answer of a model", remedy="run the stage assess again")


def _words(texts: list[str], judge: Judge, kept: _Kept, concurrency: int, progress: Progress) -> Mapping[str, str]:
    """The judge's word about each text; after the first that fails nothing more is asked.

    Raises:
        JudgeError: it cannot be asked.
    """
    missing = [text for text in dict.fromkeys(texts) if kept.word(text) is None]
    if missing:
        progress("judge", 0, len(missing))
    stop, failed = Event(), None

    def ask(text: str) -> tuple[str, str | None]:
        if stop.is_set():
            return text, None
        try:
            return text, judge(text)
        except BaseException:
            stop.set()  # here, and not where it is heard of: nobody else shall begin meanwhile
            raise

    with ThreadPoolExecutor(concurrency) as pool:
        try:
            asked = [pool.submit(ask, text) for text in missing]
            for number, future in enumerate(as_completed(asked), 1):
                if (error := future.exception()) is not None:
                    failed = failed or error  # what others were told meanwhile is kept all the same
                    continue
                text, word = future.result()
                if word is not None:
                    kept.keep(text, word)
                    progress("judge", number, len(missing))
        finally:
            stop.set()
    if failed is not None:
        raise failed
    return {text: word for text in texts if (word := kept.word(text)) is not None}


class _Kept:
    """Judgements, by what was judged and by whom: one JSON line each. A line that is no judgement is passed over."""

    def __init__(self, path: Path, identity: str) -> None:
        self._path, self._identity = path, identity
        self._words = dict(filter(None, map(_line, self._lines())))

    def word(self, answer: str) -> str | None:
        return self._words.get(self._name(answer))

    def keep(self, answer: str, word: str) -> None:
        name = self._name(answer)
        self._words[name] = word
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="ascii") as stream:
                stream.write("\n" + json.dumps([name, word]))  # first the end of a line that was cut short
        except OSError as error:
            remedy = "free space there and run again"
            raise EvidenceError(f"cannot be written: {error}", path=self._path, remedy=remedy) from error

    def _lines(self) -> list[str]:
        if not self._path.is_file() or self._path.stat().st_size > _MOST_KEPT:
            return []
        return self._path.read_text(encoding="ascii", errors="replace").splitlines()

    def _name(self, answer: str) -> str:
        return hashlib.sha256(json.dumps([self._identity, answer]).encode()).hexdigest()


def _line(line: str) -> tuple[str, str] | None:
    try:
        name, word = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(name, str) and isinstance(word, str) and word in ErrandKind.JUDGE.words):
        return None
    return name, word
