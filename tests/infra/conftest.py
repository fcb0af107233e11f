"""A stand-in for the gateway: a real socket that answers what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

DEPARTMENTS = ("marketing", "service", "sales", "analytics", "data-office")
TOTP_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


class StatedGateway:
    """Gives each path the next of its stated answers, and the last one for ever; counts what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: dict[str, list[object]] = {}
        self.asked: Counter[str] = Counter()
        self.bodies: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                path = self.path.partition("?")[0]
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                outer.asked[path] += 1
                outer.bodies.append(body)
                known = outer.answers.get(path)
                found = (known.pop(0) if len(known) > 1 else known[0]) if known else {"reason": "NOT_FOUND"}
                self.answer(found if isinstance(found, tuple) else (200 if known else 404, found))

            do_GET = do_PATCH = do_POST

            def answer(self, reply: tuple[int, object]) -> None:
                payload = json.dumps(reply[1]).encode()
                self.send_response(reply[0])
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.answers["/oauth2/token"] = [{"access_token": "t", "expires_in": 900}]
        clients = [{"department": name, "client_id": f"{name}-app", "client_secret": "s"} for name in DEPARTMENTS]
        administrator = {"username": "a", "password": "p", "totp_secret": TOTP_SECRET}
        document = {"token_url": f"{self.url}/oauth2/token", "clients": clients, "administrator": administrator}
        self.credentials = folder / "credentials.json"
        self.credentials.write_text(json.dumps(document))


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[StatedGateway]:
    stated = StatedGateway(tmp_path)
    threading.Thread(target=stated.server.serve_forever, args=(0.05,), daemon=True).start()
    yield stated
    stated.server.shutdown()
    stated.server.server_close()
