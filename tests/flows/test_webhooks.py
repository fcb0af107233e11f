"""An app that keeps copies hears through the running stack what became of a person, up to their erasure."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace

import pytest
from kehu.client import KehuProblem

from infra.processes import wait_until
from infra.story.webhooks import SETTLED_SECONDS
from tests.flows.people import customers, upsert
from tests.flows.raw import Raw
from tests.webhooks.receivers import Receiver, receiving

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]
HEARD_SECONDS = 90  # the flows before it have left thousands of events
EVENTS = ["profiles.profile_changed", "profiles.profile_erased"]


def keeper_of_copies(stack) -> Raw:
    """Return a new app that may read profiles and subscribe."""
    made = stack.administrator.post("/v1/principals", {
        "kind": "PRINCIPAL_KIND_APP", "login": f"mirror-{secrets.token_hex(4)}", "department": "marketing",
        "roles": ["role:marketer", "role:subscriber"],
    })  # fmt: skip
    app = stack.sign_ins.app(made["login"], made["secret"]["client_secret"], "marketing")

    def is_known() -> bool:
        try:
            app.get("/v1/webhookEventTypes")
        except KehuProblem as problem:
            assert problem.status == 403
            return False
        return True

    assert wait_until(is_known, 30, 0.2)
    return app


def told_of(receiver: Receiver, resource: str, kind: str) -> list[dict]:
    found = [got.content for got in receiver.got]
    return [each for each in found if (each["resource"], each["type"]) == (resource, kind)]


def test_who_keeps_copies_hears_of_a_change_a_merge_and_an_erasure(whole_stack, till):
    one, other = customers(2, 320_000)
    with receiving() as receiver:
        app = keeper_of_copies(whole_stack)
        wanted = {"target_url": receiver.url, "event_types": EVENTS, "fields": ["name", "tier"]}
        made = app.post("/v1/webhookSubscriptions", wanted)
        app.post(f"/v1/{made['name']}:activate", {})
        time.sleep(SETTLED_SECONDS)
        names = [f"profiles/{each}" for each in upsert(till, [one, other])]
        changed, erased = EVENTS
        assert wait_until(lambda: all(told_of(receiver, name, changed) for name in names), HEARD_SECONDS, 0.2)

        upsert(till, [replace(one, card=other.card)])
        living = till.get(f"/v1/{names[0]}")["name"]
        (ended,) = set(names) - {living}
        moved = {"name": living}
        assert wait_until(
            lambda: any(moved.items() <= each["data"].items() for each in told_of(receiver, ended, changed)),
            HEARD_SECONDS, 0.2,
        ), "the copy of the one that ended is moved"  # fmt: skip

        till.post(f"/v1/{living}:erase", {"reason": "DSR-mirror"})
        assert wait_until(lambda: all(told_of(receiver, name, erased) for name in names), HEARD_SECONDS, 0.2)
        assert not any("data" in each for name in names for each in told_of(receiver, name, erased))
        app.delete(f"/v1/{made['name']}")
