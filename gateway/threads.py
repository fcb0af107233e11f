"""Have the HTTP server's own threads interrupt nobody (ADR 0028).

The one that reads and writes sockets is woken for each reply. With all cores busy it then interrupted the thread that
answers two times out of three, and threw what that had at hand out of the caches.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Iterator

STARTING_SECONDS = 0.5  # in which a server begins its threads


async def served(serving: Coroutine[object, object, None]) -> None:
    """Run a server until it ends; the threads of its first half second wait for their turn when they are woken."""
    task = asyncio.ensure_future(serving)
    with _waiting_for_their_turn():
        await asyncio.wait([task], timeout=STARTING_SECONDS)
    await task


@contextlib.contextmanager
def _waiting_for_their_turn() -> Iterator[None]:
    """Begin threads inside under SCHED_BATCH (sched(7)), where there is such a thing and it is allowed."""
    try:
        before = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except (AttributeError, OSError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))
