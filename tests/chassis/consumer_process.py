# ruff: noqa: E402  eventlet patches the process before anything else is imported
"""A consumer process for the tests: `python consumer_process.py AMQP_URI FILE`, one line in FILE per call."""

import eventlet

eventlet.monkey_patch(thread=False)

import _imp
import os
import sys
import threading
import time

from kehu.profiles.v1.events_pb2 import ProfileChanged, ProfilesMerged

from services.chassis.consuming import Event, on_event
from services.chassis.consuming.topology import Retries
from services.chassis.consuming.worker import run_consumers
from services.chassis.errors import Unavailable

RETRIES = Retries((100, 200, 300))


class Recorder:
    """Writes down every call; the subject of an event says how it goes."""

    name = "recorder"

    def __init__(self, path: str) -> None:
        self._out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def _record(self, word: str, event: Event) -> None:
        os.write(self._out, f"{word} {event.subject} {event.version}\n".encode())

    @on_event("profiles", ProfileChanged)
    def on_profile_changed(self, event: Event[ProfileChanged]) -> None:
        self._record("called", event)
        if threading.current_thread() is threading.main_thread():
            self._record("on the hub", event)
        if event.subject == "profiles/importing":
            _imp.acquire_lock()
            time.sleep(2)
            _imp.release_lock()
        if event.subject == "profiles/poison":
            raise ValueError("13800138000 is a phone number that no log may show")
        if event.subject == "profiles/outage" and self._outages() < 6:
            raise Unavailable("away")
        if event.subject.startswith("profiles/slow"):
            time.sleep(1)
        self._record("handled", event)

    @on_event("profiles", ProfilesMerged)
    def on_profiles_merged(self, event: Event[ProfilesMerged]) -> None:
        self._record("merged", event)

    def _outages(self) -> int:
        with open(sys.argv[2]) as lines:
            return sum("called profiles/outage" in line for line in lines)


if __name__ == "__main__":
    from services.chassis.logs import configure_logs

    configure_logs("recorder")
    run_consumers([Recorder(sys.argv[2])], sys.argv[1], retries=RETRIES)
