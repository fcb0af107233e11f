from __future__ import annotations

import asyncio
import os
import threading

import pytest

from gateway.threads import served

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux tells batches from others")


def policies_of(serving) -> tuple[int, int]:
    """Return how a thread that a server begins is scheduled, and its caller once it runs."""
    done, found = threading.Event(), []

    async def server() -> None:
        thread = threading.Thread(target=done.wait)
        thread.start()
        found.append(os.sched_getscheduler(thread.native_id))
        await serving()
        found.append(os.sched_getscheduler(0))

    try:
        asyncio.run(served(server()))
    finally:
        done.set()
    return tuple(found)


def test_a_servers_threads_wait_for_their_turn_and_the_one_that_answers_does_not():
    assert policies_of(lambda: asyncio.sleep(0.7)) == (os.SCHED_BATCH, os.SCHED_OTHER)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_server_that_cannot_start_says_so_at_once():
    async def fail() -> None:
        raise OSError("the port is taken")

    with pytest.raises(OSError, match="taken"):
        policies_of(fail)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_where_the_system_forbids_it_the_server_runs_all_the_same(monkeypatch):
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    assert policies_of(lambda: asyncio.sleep(0)) == (os.SCHED_OTHER, os.SCHED_OTHER)
