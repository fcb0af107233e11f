"""A service that hangs is answered for in time (row 44)."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.flows.conftest import LiveStack
from tests.flows.raw import Raw

pytestmark = [pytest.mark.flow, pytest.mark.slow]
PATIENCE, MOST_SECONDS = "1.5", 2.0
READS = {
    "access": ("administrator", "/v1/principals"),
    "profiles": ("steward", "/v1/sources/till"),
    "consent": ("steward", "/v1/purposes"),
    "tickets": ("agent", "/v1/tickets"),
    "marketing": ("marketer", "/v1/campaigns"),
    "analytics": ("analyst", "/v1/metrics"),
    "webhooks": ("administrator", "/v1/webhookSubscriptions"),
}


def asked(stack: LiveStack, service: str) -> Raw:
    who = READS[service][0]
    found: Raw = stack.sign_ins.department("service", "service") if who == "agent" else getattr(stack, who)
    return found


@pytest.mark.parametrize("service", READS)
def test_a_frozen_service_is_answered_for_within_two_seconds(whole_stack: LiveStack, till: Raw, service: str) -> None:
    who, path = asked(whole_stack, service), READS[service][1]
    headers = who.headers()
    url = f"{whole_stack.running.url}{path}"
    with httpx.Client(headers={**headers, "X-Request-Timeout": PATIENCE}, timeout=20, trust_env=False) as http:
        before = http.get(url)
        frozen = whole_stack.freeze(service)
        try:
            began = time.monotonic()
            status = http.get(url).status_code
            took = time.monotonic() - began
        finally:
            frozen.resume()

    assert before.status_code == 200, before.text
    assert status in (503, 504)
    assert took <= MOST_SECONDS
