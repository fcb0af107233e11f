"""A till of the shop hears of a ticket: it subscribes, gets a signed event, and checks the signature."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kehu.client import Kehu, PermissionDenied
from kehu.client.webhooks import SignatureWrong, verify_webhook

from infra.processes import LOOPBACK, wait_until
from infra.story.context import Context, Json, require

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
        made = app.webhooks.create_webhook_subscription(webhook_subscription={
            "target_url": till.url, "event_types": ["tickets.ticket_changed"], "fields": ["number", "subject"],
            "filter": [{"field": "kind", "values": ["TICKET_KIND_REQUEST"]}],
        })  # fmt: skip
        till.secret = made.secret
        app.webhooks.activate_webhook_subscription(name=made.name)
        story.progress(0.5, "subscribed")
        time.sleep(SETTLED_SECONDS)
        ticket = {"kind": "TICKET_KIND_REQUEST", "subject": "预订有机牛奶", "channel": "CHANNEL_PHONE"}
        story.as_department("service", "service").tickets.create_ticket(ticket=ticket, request_id=made.name[-32:])
        began = time.monotonic()
        heard = wait_until(lambda: bool(till.events), HEARD_SECONDS)
        require(heard, f"the till heard of nothing in {HEARD_SECONDS:.0f} s; see logs/webhooks.log, logs/consume.log")
        took = time.monotonic() - began
        app.webhooks.delete_webhook_subscription(name=made.name)
    event = till.events[0]
    data = event["data"]
    return [f"{event['type']} {data['number']} {data['subject']}: signed, {took:.1f} s after the ticket was opened"]


def _new_app(story: Context) -> Kehu:
    """Return the client of a new app of the service department that may subscribe."""
    made = story.sign_ins.administrator().access.create_principal(principal={
        "kind": "PRINCIPAL_KIND_APP", "login": f"till-{secrets.token_hex(4)}", "department": "service",
        "roles": ["role:agent", "role:subscriber"],
    })  # fmt: skip
    app = story.sign_ins.app(made.login, made.secret.client_secret, "service")
    require(wait_until(lambda: _is_known(app), HEARD_SECONDS, 0.2), "the new app's roles did not come into force")
    return app


def _is_known(app: Kehu) -> bool:
    try:
        app.webhooks.list_webhook_event_types()
    except PermissionDenied:
        return False
    return True
