"""The receiver of docs/webhooks.md, as it is printed there, takes a delivery, and a repeat once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.processes import free_port, listens, wait_until
from services.webhooks.domain.signing import new_secret, signed_headers
from services.webhooks.sender import Sender

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"


def test_the_printed_receiver_echoes_the_challenge_and_takes_each_event_once(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if found is None:
        pytest.fail("the page has no receiver")
    port, secret = free_port(), new_secret()
    (tmp_path / "webhook-secret").write_text(secret)
    (tmp_path / "receiver.py").write_text(found[1].replace("9000", str(port)))
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen([sys.executable, "-u", "receiver.py"], cwd=tmp_path, stdout=out, stderr=out)
    try:
        assert wait_until(lambda: listens(port), 20)
        outcomes = [
            Sender(["127.0.0.1"]).send(
                f"http://127.0.0.1:{port}/", body, signed_headers([key], "m1", int(time.time()), body), read=True
            )
            for key, body in (
                (secret, b'{"type": "webhooks.challenge", "challenge": "abc"}'),
                (secret, b'{"id": "m1", "type": "tickets.ticket_changed", "resource": "tickets/7"}'),
                (secret, b'{"id": "m1", "type": "tickets.ticket_changed", "resource": "tickets/7"}'),
                (new_secret(), b'{"id": "m2", "type": "tickets.ticket_changed", "resource": "tickets/8"}'),
            )
        ]
    finally:
        process.kill()
        process.wait()
    told = (tmp_path / "out").read_text()

    assert [each.status for each in outcomes] == [200, 200, 200, 401]
    assert json.loads(outcomes[0].body) == {"challenge": "abc"}
    assert (told.count("tickets/7"), told.count("tickets/8")) == (1, 0)
