"""A till of the shop hears of a ticket: it subscribes, gets a signed event, and checks the signature."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kehu.client.webhooks import SignatureWrong, verify_webhook

from gateway.client import Json, KehuClient, KehuProblem
from infra.processes import LOOPBACK, wait_until
from infra.story.context import Context, message, require

HEARD_SECONDS = 30.0
SETTLED_SECONDS = 1.5  # a new subscription is known to who queues by then
LONGEST = 1_000_000  # bytes of an event


class Till:
    """What the till got: bodies whose signature was right."""

    def __init__(self) -> None:
        self.secret = ""
        self.events: list[Json] = []
        self.url = ""

    def take(self, headers: dict[str, str], body: bytes) -> tuple[int, Json]:
        """Return what to answer."""
        try:
            event = verify_webhook(self.secret, headers, body)
        except SignatureWrong:
            return 401, {}
        if "challenge" in event:
            return 200, {"challenge": event["challenge"]}
        self.events.append(event)
        return 200, {}


@contextmanager
def listening() -> Iterator[Till]:
    """Run the till's receiver on this machine."""
    till = Till()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers["content-length"]), LONGEST))
            status, said = till.take(dict(self.headers), body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    till.url = f"http://{LOOPBACK}:{server.server_port}/kehu"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield till
    finally:
        server.shutdown()
        server.server_close()


def hear_of_a_ticket(story: Context) -> list[str]:
    """On-board an app, subscribe it, open a ticket elsewhere, and wait until the app has heard of it."""
    app = _new_app(story)
    with listening() as till:
        subscription = app.post("/v1/webhookSubscriptions", {
            "target_url": till.url, "event_types": ["tickets.ticket_changed"], "fields": ["number", "subject"],
            "filter": [{"field": "kind", "values": ["TICKET_KIND_REQUEST"]}],
        })  # fmt: skip
        till.secret, name = str(subscription["secret"]), str(subscription["name"])
        app.post(f"/v1/{name}:activate", {})
        story.progress(0.5, "subscribed")
        time.sleep(SETTLED_SECONDS)
        ticket: Json = {"kind": "TICKET_KIND_REQUEST", "subject": "预订有机牛奶", "channel": "CHANNEL_PHONE"}
        story.as_department("service", "service").post("/v1/tickets", ticket, key=name[-32:])
        began = time.monotonic()
        heard = wait_until(lambda: bool(till.events), HEARD_SECONDS)
        require(heard, f"the till heard of nothing in {HEARD_SECONDS:.0f} s; see logs/webhooks.log, logs/consume.log")
        took = time.monotonic() - began
        app.delete(f"/v1/{name}")
    event = till.events[0]
    data = message(event, "data")
    return [f"{event['type']} {data['number']} {data['subject']}: signed, {took:.1f} s after the ticket was opened"]


def _new_app(story: Context) -> KehuClient:
    """Return the client of a new app of the service department that may subscribe."""
    made = story.sign_ins.administrator().post("/v1/principals", {
        "kind": "PRINCIPAL_KIND_APP", "login": f"till-{secrets.token_hex(4)}", "department": "service",
        "roles": ["role:agent", "role:subscriber"],
    })  # fmt: skip
    secret = message(made, "secret")["client_secret"]
    app = story.sign_ins.app(str(made["login"]), str(secret), "service")
    require(wait_until(lambda: _is_known(app), HEARD_SECONDS, 0.2), "the new app's roles did not come into force")
    return app


def _is_known(app: KehuClient) -> bool:
    try:
        app.get("/v1/webhookEventTypes")
    except KehuProblem as problem:
        if problem.reason != "PERMISSION_DENIED":
            raise
        return False
    return True
