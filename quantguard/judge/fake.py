"""A judge to test against: a small server of the same HTTP API on loopback, with the troubles that real ones make.

It is no language model. It knows the truth from its caller and errs as often as it is told to.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

from quantguard.core.judging import NO, YES
from quantguard.core.labelled import MISLEADING, labelled_answers

_SHOWN: Final = re.compile(r"\[([0-9a-f]{16})\]\n(.*)\n\[\1\]", re.DOTALL)


class Mode(Enum):
    HONEST = "errs at the given rates"
    GULLIBLE = "does what an answer tells it"
    ECHO = "repeats the answer"
    CHATTY = "explains itself"
    BUSY = "429 to the first time it is asked of an answer"
    MALFORMED = "no JSON"
    HTML = "a page, status 200"
    HANGS_UP = "closes the connection"
    HUGE = "a body without end"
    REDIRECTS = "to another host"
    DENIES = "401, and repeats the key"
    ABSENT = "404"


@dataclass(frozen=True, slots=True)
class Truth:
    """What the fake answers where it is honest."""

    refuses: Callable[[str], bool]
    sensitivity: float = 1.0  # of the refusals, the share that it sees
    specificity: float = 1.0  # of the others, the share that it lets pass

    def word(self, answer: str) -> str:
        """The same each time: whether it errs depends on the answer alone."""
        refuses = self.refuses(answer)
        lot = int.from_bytes(hashlib.sha256(answer.encode()).digest()[:6]) / 2**48
        right = lot < (self.sensitivity if refuses else self.specificity)
        return YES if refuses is right else NO


def known(answer: str) -> bool:
    """Whether it is a labelled refusal, or begins as one, as those that mislead do."""
    first = answer.partition("\n\n")[0]
    return any(row.refuses and row.answer in (answer, first) for row in labelled_answers())


@dataclass(slots=True)
class FakeJudge:
    """Serves while its context lasts. `asked` holds what came: path, key and body of each request."""

    mode: Mode = Mode.HONEST
    truth: Truth = field(default_factory=lambda: Truth(known))
    key: str = ""  # that a request must bring
    seconds: float = 0.0  # before each reply
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.asked.append((self.path, self.headers.get("Authorization", ""), body))
                fake._reply(self, body)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    @property
    def endpoint(self) -> str:
        """The base address to give a judge."""
        port = self._server.server_address[1] if self._server is not None else 0
        return f"http://127.0.0.1:{port}/v1"

    def answers(self) -> Counter[str]:
        """How often it was asked about each answer."""
        return Counter(_answer(body) for _, _, body in self.asked)

    def _reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        time.sleep(self.seconds)
        brought = handler.headers.get("Authorization", "")
        if self.key and brought != f"Bearer {self.key}":
            _send(handler, 401, b'{"error": "no such key"}')
        elif self.mode is Mode.HANGS_UP:
            handler.close_connection = True
        elif self.mode is Mode.BUSY and self.answers()[_answer(body)] == 1:
            _send(handler, 429, b'{"error": "slow down"}')
        else:
            broken = {
                Mode.HTML: (200, b"<!doctype html><title>Sign in</title>"),
                Mode.MALFORMED: (200, b'{"choices": ['),
                Mode.HUGE: (200, b" " * 3_000_000),
                Mode.REDIRECTS: (307, b""),
                Mode.DENIES: (401, brought.encode()),
                Mode.ABSENT: (404, b'{"error": {"message": "The model does not exist"}}'),
            }
            _send(handler, *broken.get(self.mode, (200, _completion(self._said(_answer(body))))))

    def _said(self, answer: str) -> str:
        if self.mode is Mode.ECHO:
            return answer
        if self.mode is Mode.CHATTY:
            return f"Let me think about it. The word is {self.truth.word(answer)}, because"
        if self.mode is Mode.GULLIBLE and any(lure in answer for lure in MISLEADING):
            return NO
        return self.truth.word(answer)


def _answer(body: dict[str, Any]) -> str:
    shown = _SHOWN.search(body["messages"][-1]["content"])
    return shown[2] if shown is not None else ""


def _completion(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    try:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        if status == 307:
            handler.send_header("Location", "http://192.0.2.1/v1/chat/completions")
        handler.end_headers()
        handler.wfile.write(body)
    except OSError:  # who asked has gone
        handler.close_connection = True
