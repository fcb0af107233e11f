"""The caller of the gateway: signs in, repeats what failed, says what was refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra import api
from infra.api import ApiError, OperationFailed, SignIns


class Gateway:
    """Answers what a test tells it to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, object]] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.tokens = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/oauth2/token":
                    outer.tokens += 1
                    self.answer(200, {"access_token": f"token-{outer.tokens}", "expires_in": 900})
                    return
                outer.asked.append((self.command, self.path, dict(self.headers), body))
                self.answer(*outer.answers.pop(0))

            do_GET = do_POST

            def answer(self, status: int, document: object) -> None:
                payload = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(api, "POLL_SECONDS", 0.01)
    found = Gateway()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def session(gateway: Gateway, tmp_path: Path) -> api.Session:
    document = {
        "token_url": f"{gateway.url}/oauth2/token",
        "clients": [{"department": "sales", "client_id": "sales-app", "client_secret": "s"}],
        "administrator": {"username": "a", "password": "p", "totp_secret": "JBSWY3DPEHPK3PXP"},
    }
    (tmp_path / "credentials.json").write_text(json.dumps(document))
    return SignIns(tmp_path / "credentials.json").department("sales", "sales")


def test_a_call_carries_token_and_purpose_and_signs_in_once(gateway, session):
    gateway.answers = [(200, {"a": 1}), (200, {"a": 2})]

    assert [session.get("/v1/a")["a"], session.get("/v1/a")["a"]] == [1, 2]
    assert gateway.tokens == 1
    assert gateway.asked[0][2]["Authorization"] == "Bearer token-1"
    assert gateway.asked[0][2]["X-Purpose"] == "sales"


def test_an_outage_is_waited_out_with_the_same_key(gateway, session):
    gateway.answers = [(503, {}), (503, {}), (200, {"done": True})]

    assert session.post("/v1/a", {"b": 1}, key="once") == {"done": True}
    assert [asked[2]["Idempotency-Key"] for asked in gateway.asked] == ["once"] * 3


def test_a_refusal_is_told_with_its_reason_and_its_fields(gateway, session):
    problem = {"reason": "INVALID_REQUEST", "detail": "bad", "errors": [{"pointer": "/name", "detail": "too long"}]}
    gateway.answers = [(400, problem)]

    with pytest.raises(ApiError, match="400 INVALID_REQUEST: bad /name: too long"):
        session.get("/v1/a")


def test_all_pages_of_a_list_are_read(gateway, session):
    gateway.answers = [(200, {"things": [{"n": 1}], "next_page_token": "t"}), (200, {"things": [{"n": 2}]})]

    assert [thing["n"] for thing in session.pages("/v1/things", "things")] == [1, 2]
    assert "page_token=t" in gateway.asked[1][1]


def test_an_operation_is_waited_for(gateway, session):
    gateway.answers = [(200, {"name": "operations/x"}), (200, {"done": True, "response": {"rows": "3"}})]

    assert session.finished({"name": "operations/x"}) == {"rows": "3"}


def test_a_failed_operation_says_why(gateway, session):
    with pytest.raises(OperationFailed, match="operations/x: the file is empty"):
        session.finished({"name": "operations/x", "done": True, "error": {"message": "the file is empty"}})


def test_an_upload_sends_its_fields_before_the_file(gateway, session, tmp_path):
    file = tmp_path / "till.csv"
    file.write_bytes(b"a,b\n")
    gateway.answers = [(200, {})]

    session.upload("/v1/sources/till:import", file, format="csv")

    body = gateway.asked[0][3]
    assert body.index(b'name="format"') < body.index(b'filename="till.csv"')
