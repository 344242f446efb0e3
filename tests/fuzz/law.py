"""The law that every input keeps, and the watch that catches who breaks it.

An input ends in a result or in a `QuantGuardError` within two seconds. Until then nothing outside of the directory is
opened or listed, nothing is written or removed, no process, socket or import is started and no code is run; what is
said about it (error, finding) is printable.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from quantguard.core.errors import QuantGuardError

SECONDS: Final = 2.0
_GIVE_UP: Final = 20.0  # seconds after which a hung input is interrupted
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LISTING: Final = frozenset({"os.scandir", "os.listdir"})
_FORBIDDEN: Final = (
    *("socket.", "subprocess.", "pickle.", "ctypes.dlopen", "shutil.", "tempfile.", "urllib.", "http."),
    *("os.chmod", "os.chown", "os.exec", "os.fork", "os.link", "os.lockf", "os.mkdir", "os.posix_spawn", "os.remove"),
    *("os.rename", "os.rmdir", "os.setxattr", "os.spawn", "os.symlink", "os.system", "os.truncate", "os.utime"),
    *("import", "exec"),  # not "compile": jinja2 has Python parse the floats of a template, and runs nothing
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one input ended."""

    said: str  # what the subject returned, or the class of its QuantGuardError
    seconds: float  # wall clock
    breach: str  # what law it broke, with the traceback; empty: none
    outside: int  # paths outside of the directory that were opened or listed


class HungError(BaseException):
    """Not an Exception: no `except Exception` on the way may take it for its own."""


class _Watch:
    """What Python's audit events say while one input is judged. A path counts as inside by where it leads."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self.outside: list[str] = []
        self.done: list[str] = []

    def see(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            if isinstance(path, int):
                return  # a descriptor that an earlier event was about
            if flags & _WRITING or set(mode or "") & set("wax+"):
                self.done.append(f"opened {path!r} for writing")
            if not self._inside(os.fsdecode(path), follows=not flags & os.O_NOFOLLOW):
                self.outside.append(f"opened {path!r}")
        elif event in _LISTING:
            if not isinstance(args[0], int) and not self._inside(os.fsdecode(args[0]), follows=True):
                self.outside.append(f"listed {args[0]!r}")
        elif event.startswith(_FORBIDDEN):
            self.done.append(f"{event} {args!r:.200}")

    def _inside(self, path: str, *, follows: bool) -> bool:
        if follows:
            real = os.path.realpath(path)
        else:  # the last part is not followed, those before it are
            real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))  # noqa: PTH118, PTH119, PTH120
        return real == self._root or real.startswith(self._root + os.sep)


_watching: list[_Watch] = []  # the watch that is on, if any: an audit hook can never be taken away again
_hooked: list[bool] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _watching:
        watch = _watching.pop()  # what the watch itself opens is not the subject's doing
        try:
            watch.see(event, args)
        finally:
            _watching.append(watch)


@contextmanager
def _watched(root: Path) -> Iterator[_Watch]:
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    watch = _Watch(root)
    _watching.append(watch)
    try:
        yield watch
    finally:
        _watching.clear()


def _interrupt(_: int, __: FrameType | None) -> None:
    raise HungError


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judge(root: Path, subject: Callable[[Path], str], *, seconds: float = SECONDS) -> Outcome:
    """Run `subject` on the directory `root` under the law. It returns a word for what it found, printable."""
    broken = ""
    caught: BaseException | None = None
    begin = time.perf_counter()
    with _watched(root) as watch, _bounded(_GIVE_UP):
        try:
            said = subject(root)
        except QuantGuardError as error:
            said = type(error).__name__
            if not str(error).isprintable():
                broken = f"not printable: {str(error)!r}"
        except HungError as error:
            said, caught = "hang", error
        except BaseException as error:  # noqa: BLE001  # a panic of a native library is no Exception
            said, caught = f"crash {type(error).__name__}", error
    took = time.perf_counter() - begin
    if caught is not None:  # the traceback reads sources, which the watch would take for the subject's doing
        broken = "".join(traceback.format_exception(caught))
    if not said.isprintable():
        said, broken = "unprintable", f"not printable: {said!r}"
    breaches = [broken, *watch.outside, *watch.done]
    if took > seconds:
        breaches.append(f"took {took:.2f} s")
    return Outcome(said, took, "\n".join(filter(None, breaches)), len(watch.outside))
