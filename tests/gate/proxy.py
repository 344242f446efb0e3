"""A server between the gate and the registry that sees every request, so that a kill can be timed by what was asked."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

Asked = tuple[str, str]  # method and path
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"})


class Proxy:
    """Forwards to `target`. `on_answer` is called once the registry has done what was asked, before the asker hears."""

    def __init__(self, target: str) -> None:
        self.asked: list[Asked] = []
        self.on_answer: Callable[[Asked], None] = lambda _: None
        split = urlsplit(target)
        self._address = (str(split.hostname), int(split.port or 80))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forward(self, asked: Asked, headers: dict[str, str], body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The registry's answer: status, headers, body."""
        connection = http.client.HTTPConnection(*self._address, timeout=60)
        try:
            connection.request(asked[0], asked[1], body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.asked.append(asked)
        self.on_answer(asked)
        return answer.status, answer.getheaders(), content

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                status, given, content = proxy.forward((self.command, self.path), headers, body)
                try:
                    self.send_response(status)
                    for name, value in given:
                        if name.lower() not in _HOP:
                            self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:  # whoever asked was killed meanwhile
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one  # noqa: N815  the names that http.server calls

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler
