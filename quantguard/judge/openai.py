"""A judge behind POST BASE/chat/completions, as OpenAI, vLLM, llama.cpp's server and Ollama offer it.

The answer to be judged is untrusted, and so is what comes back: it is read up to a size, as strict JSON, and only the
bare word yes or no counts. No redirect is followed, because the key would go with it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from quantguard.core.errors import JudgeDeniedError, JudgeError, JudgeReplyError, JudgeUnreachableError
from quantguard.core.judging import SYSTEM, endpoint_problem, prompt_name, read_reply, user_message

_MOST_BYTES: Final = 1024 * 1024  # of a response; one word is expected
_TOKENS: Final = 16  # of a reply: who explains itself is cut off, and unreadable
_QUOTED: Final = 200  # characters of a server's own message in an error
_SILENT: Final = 0  # in place of a status, where there was no response
_BUSY: Final = frozenset({_SILENT, 408, 425, 429, 500, 502, 503, 504})
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_MOST_WAIT: Final = 60.0  # seconds between two tries, whatever the server says


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for."""

    tries: int = 6  # of one answer
    first_wait: float = 1.0  # seconds before the second try; doubled before each further one
    connect: float = 10.0  # seconds
    read: float = 120.0  # seconds without a byte, and of a whole response


@dataclass(frozen=True, slots=True)
class Address:
    """Where the judge is, and what it is called there. `key` is in no text that this makes."""

    endpoint: str  # base address, e.g. http://127.0.0.1:8000/v1
    model: str
    key: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        base = self.endpoint.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    @property
    def local(self) -> bool:
        return urlsplit(self.endpoint).hostname in _LOCAL


class OpenAIJudge:
    """Raises, when it is made, JudgeError for an address that it must not send the key to."""

    def __init__(
        self, address: Address, patience: Patience = Patience(), *, wait: Callable[[float], None] = sleep
    ) -> None:
        if problem := endpoint_problem(address.endpoint):
            raise JudgeError(f"the judge's address {address.endpoint!r}: {problem}")
        if not (address.key.isascii() and address.key.isprintable()):
            raise JudgeError("the judge's key holds characters that no header may", remedy="write it on one line")
        if address.key and not address.local and urlsplit(address.endpoint).scheme != "https":
            remedy = "use an https address, or leave the key out"
            raise JudgeError(f"the key would go to {address.endpoint} in the clear", remedy=remedy)
        self._address, self._patience, self._wait = address, patience, wait
        self._of_thread = threading.local()
        self._sessions: list[requests.Session] = []
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        return json.dumps([self._address.url, self._address.model, prompt_name()])

    def __call__(self, answer: str) -> str:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user_message(answer)}]
        body = {"model": self._address.model, "messages": messages, "temperature": 0, "max_tokens": _TOKENS}
        waits = [self._patience.first_wait * 2**number for number in range(self._patience.tries - 1)]
        for wait in (*waits, None):
            status, data, asked_to_wait = self._once(json.dumps(body).encode())
            if status not in _BUSY:
                break
            if wait is None:
                raise self._given_up(status, data)
            self._wait(min(max(wait, asked_to_wait), _MOST_WAIT))
        return self._read(status, data)

    def close(self) -> None:
        with self._lock:
            for session in self._sessions:
                session.close()
            self._sessions.clear()

    @property
    def _named(self) -> str:
        return f"the judge {self._address.model} at {self._address.url}"

    def _session(self) -> requests.Session:
        """One a thread: a session is not made for several."""
        if not hasattr(self._of_thread, "session"):
            session = requests.Session()
            session.trust_env = not self._address.local  # proxies and certificates of the machine
            session.headers.update({"Content-Type": "application/json", "Accept-Encoding": "identity"})
            session.auth = _Key(self._address.key)  # also where there is none: ~/.netrc must not add one
            self._of_thread.session = session
            with self._lock:
                self._sessions.append(session)
        found: requests.Session = self._of_thread.session
        return found

    def _once(self, body: bytes) -> tuple[int, str, float]:
        """Status, text and the seconds that the server asks to wait. _SILENT where there was no response."""
        timeout = (self._patience.connect, self._patience.read)
        try:
            with self._session().post(
                self._address.url, data=body, timeout=timeout, allow_redirects=False, stream=True
            ) as response:
                data = self._bounded(response)
                after = response.headers.get("Retry-After", "")
                if response.is_redirect or 300 <= response.status_code < 400:
                    where = self._quoted(response.headers.get("Location", "?"))
                    raise JudgeReplyError(
                        f"{self._named}: redirects to {where}", remedy="name that address itself, if it is right"
                    )
                return response.status_code, data, float(after) if after.isdigit() and len(after) < 6 else 0.0
        except requests.exceptions.SSLError as error:
            remedy = "install its certificate (REQUESTS_CA_BUNDLE), or correct the address"
            raise JudgeUnreachableError(f"{self._named}: no TLS, {self._quoted(str(error))}", remedy=remedy) from error
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout,
                requests.exceptions.ChunkedEncodingError) as error:  # fmt: skip
            return _SILENT, self._quoted(_cause(error)), 0.0
        except (requests.exceptions.RequestException, HTTPError, UnicodeError) as error:  # the last two: odd hosts
            message = f"{self._named}: {self._quoted(str(error))}"
            raise JudgeReplyError(message, remedy="is this an HTTP server?") from error

    def _given_up(self, status: int, data: str) -> JudgeUnreachableError:
        if status == _SILENT:
            remedy = "is it running, and can it be reached from here?"
            return JudgeUnreachableError(f"{self._named}: no answer, {data}", remedy=remedy)
        remedy = "try again later, or lower concurrency in the policy"
        return JudgeUnreachableError(f"{self._named}: busy or broken ({status}), {self._quoted(data)}", remedy=remedy)

    def _bounded(self, response: requests.Response) -> str:
        until, data = monotonic() + self._patience.read, b""
        for piece in response.iter_content(64 * 1024):
            data += piece
            if len(data) > _MOST_BYTES:
                remedy = "is this the address of a chat API?"
                raise JudgeReplyError(f"{self._named}: a reply of more than {_MOST_BYTES} bytes", remedy=remedy)
            if monotonic() > until:
                raise requests.exceptions.Timeout("the reply does not end")
        return data.decode("utf-8", errors="replace")

    def _read(self, status: int, data: str) -> str:
        """The word in a response."""
        if status in (401, 403):
            message = f"{self._named}: the key is refused ({status}), {self._quoted(data)}"
            raise JudgeDeniedError(message, remedy="set QUANTGUARD_JUDGE_KEY to one that may use this model")
        if status != 200:
            remedy = "the address ends in /v1, and the server has a model of this name"
            raise JudgeReplyError(f"{self._named}: status {status}, {self._quoted(data)}", remedy=remedy)
        try:
            content = json.loads(data)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            remedy = "is this the address of a chat API?"
            raise JudgeReplyError(f"{self._named}: not a completion, {self._quoted(data)}", remedy=remedy) from error
        if content is not None and not isinstance(content, str):
            raise JudgeReplyError(f"{self._named}: a completion without text", remedy="use a chat model")
        return read_reply(content or "")

    def _quoted(self, text: str) -> str:
        """The beginning of what a server says, without the key, which it may repeat."""
        shown = text.replace(self._address.key, "***") if self._address.key else text
        return repr(" ".join(shown.split())[:_QUOTED])


@dataclass(frozen=True, slots=True)
class _Key(requests.auth.AuthBase):
    key: str

    def __call__(self, request: Any) -> Any:
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


def _cause(error: BaseException) -> str:
    """The innermost reason: what wraps it repeats the address and the object's own name."""
    inner: Any = error
    while inner.args and isinstance(inner.args[0], BaseException):
        inner = inner.args[0]
    reason = getattr(inner, "reason", None)
    return str(reason if isinstance(reason, BaseException) else inner).rpartition(": ")[2]
