"""Receivers of webhooks for tests: on loopback, answering as they are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Got:
    """One request as it came."""

    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> dict:
        return json.loads(self.body)


@dataclass
class Receiver:
    """Keeps what it gets, and answers challenges; `answer` says what to answer to others: status and headers."""

    answer: Callable[[Got], tuple[int, dict[str, str]]] = lambda got: (204, {})
    got: list[Got] = field(default_factory=list)
    port: int = 0
    echoes: bool = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def reply(self, got: Got) -> tuple[int, dict[str, str], bytes]:
        if got.content.get("type") == "webhooks.challenge":
            said = {"challenge": got.content["challenge"] if self.echoes else "another"}
            return 200, {}, json.dumps(said).encode()
        self.got.append(got)
        status, headers = self.answer(got)
        return status, headers, b""


@contextmanager
def receiving(receiver: Receiver | None = None, port: int = 0) -> Iterator[Receiver]:
    """Run a receiver."""
    found = receiver or Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, headers, said = found.reply(Got({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(said))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    found.port = server.server_port
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
