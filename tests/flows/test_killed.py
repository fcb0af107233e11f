"""What was done when its processes died is not done again, though nobody was told that it was done."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

import httpx
import psutil
import pytest

from tests.flows.conftest import LiveStack
from tests.flows.raw import Raw

pytestmark = [pytest.mark.flow, pytest.mark.slow]
KILLS = 3  # after a write, before its reply
MOST_TRIES = 12


@pytest.mark.timeout(600)
def test_what_was_written_before_its_processes_were_killed_is_not_written_again(
    whole_stack: LiveStack, till: Raw
) -> None:
    """The gateway is stopped with the request on its way, so no reply leaves; then it and the service get kill -9."""
    agent = whole_stack.sign_ins.department("service", "service")
    profile = str(till.post("/v1/sources/till/records:batchUpsert", RECORD)["results"][0]["profile"])
    ticket = {"kind": "TICKET_KIND_COMPLAINT", "profile": profile, "channel": "CHANNEL_PHONE", "subject": "once"}
    written_before_the_kill = 0
    for number in range(MOST_TRIES):
        key, before = f"killed-{number}", count(agent, profile)
        send_and_kill(whole_stack, agent, ticket, key, 0.004 * 1.5**number)
        whole_stack.wait_whole()
        survived = count(agent, profile) - before
        first = agent.post("/v1/tickets", ticket, key=key)
        again = agent.post("/v1/tickets", ticket, key=key)

        assert first["name"] == again["name"]
        assert count(agent, profile) - before == 1
        written_before_the_kill += survived
        if written_before_the_kill == KILLS:
            return
    raise AssertionError(f"only {written_before_the_kill} writes were done before the kill: nothing was shown")


RECORD = {"records": [{"source_record_id": "killed", "fields": {"name": "重复", "email": "killed@flow.example"}}]}


def count(agent: Raw, profile: str) -> int:
    return len(list(agent.items("/v1/tickets", "tickets", profile=profile, page_size=100)))


def send_and_kill(stack: LiveStack, who: Raw, ticket: dict[str, object], key: str, seconds: float) -> None:
    """Send a change; so many seconds later stop the gateway, let the service end its work, and kill both."""
    pids, headers = stack.running.pids, who.headers()
    gateway = psutil.Process(pids["gateway"])

    def send() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(
                f"{stack.running.url}/v1/tickets",
                json=ticket,
                headers={**headers, "Idempotency-Key": key},
                timeout=20,
                trust_env=False,
            )

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(seconds)
    gateway.suspend()
    time.sleep(0.5)
    for name in ("tickets", "gateway"):
        os.kill(pids[name], signal.SIGKILL)
    sender.join(30)
