"""One record lent on a running stack: seen in every process within seconds, and gone when it is taken back."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from kehu.client import KehuProblem

from tests.flows.people import customers, upsert
from tests.flows.raw import entries

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]
SOON_SECONDS = 30.0


def waited(is_so) -> float:
    """Return how many seconds it takes until something holds."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < SOON_SECONDS
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_record_is_lent_followed_and_taken_back_on_a_running_stack(whole_stack, till):
    app = {"kind": "PRINCIPAL_KIND_APP", "login": "lent-app", "department": "marketing", "roles": ["role:borrower"]}
    made = whole_stack.administrator.post("/v1/principals", app)
    borrower = whole_stack.sign_ins.app("lent-app", made["secret"]["client_secret"], "marketing")
    first, second = customers(2, 77_000)
    one, other = upsert(whole_stack.steward, [first, second])

    def seen() -> list[str]:
        return [str(item["name"]) for item in entries(borrower.get("/v1/profiles"), "profiles")]

    def found() -> list[str]:
        hits = entries(borrower.post("/v1/search", {"types": ["profiles"]}), "hits")
        return [str(hit["name"]) for hit in hits]

    def is_let_in() -> bool:
        """Tell whether every process has heard of the app."""
        try:
            return [*seen(), *found()] == []
        except KehuProblem as problem:
            assert problem.status in (401, 403)
            return False

    waited(is_let_in)
    until = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    terms = {"borrower": "app:lent-app", "purpose": "marketing", "reason": "joint campaign", "end_time": until}
    share = whole_stack.steward.post(f"/v1/profiles/{one}:share", terms)
    lent = waited(lambda: seen() == [f"profiles/{one}"])
    waited(lambda: found() == [f"profiles/{one}"])
    assert borrower.get(f"/v1/profiles/{one}")["name"] == f"profiles/{one}"
    assert [each["name"] for each in entries(borrower.get("/v1/shares"), "shares")] == [share["name"]]
    with pytest.raises(KehuProblem):
        borrower.get(f"/v1/profiles/{other}")

    whole_stack.steward.post(f"/v1/{share['name']}:revoke")
    gone = waited(lambda: seen() == [])
    with pytest.raises(KehuProblem):
        borrower.get(f"/v1/profiles/{one}")
    waited(lambda: found() == [])

    assert whole_stack.steward.get(f"/v1/{share['name']}")["state"] == "revoked"
    print(f"lent after {lent:.2f} s, gone after {gone:.2f} s")
