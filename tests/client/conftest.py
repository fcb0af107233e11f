"""The real gateway with all its routes, before a recorder in place of the services."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from kehu.client import GivenToken, Kehu

from gateway.auth import Doorkeeper
from gateway.limits import Limits
from gateway.main import build_gateway, routed_methods
from gateway.routes.derived import Edge
from gateway.transcoding.reading import Readers
from gateway.transcoding.writing import Writers
from gateway.upstreams import Upstreams
from infra.processes import free_port
from tests.gateway.conftest import serving_in_thread
from tests.harness import MemoryTrail, OpenPolicy, StatedTokens

LIMITS = Limits(rate=1e6, burst=1e6, anonymous_rate=1e6, anonymous_burst=1e6)


@dataclass
class Upload:
    """A client-streaming call that keeps what is written."""

    parts: list[bytes]
    reply: bytes
    ended: bool = False

    async def write(self, part):
        self.parts.append(part)

    async def done_writing(self):
        self.ended = True

    def done(self):
        return self.ended

    def __await__(self):
        async def answer():
            return self.reply

        return answer().__await__()


class Recorder(Upstreams):
    """Answers in place of all services, and keeps what reached it: (path, request, metadata)."""

    def __init__(self, methods):
        super().__init__(methods, lambda service, names: None)
        self.replies: list[bytes] = []
        self.calls: list[tuple[str, bytes, dict[str, str]]] = []
        self.parts: list[bytes] = []

    async def call(self, service, path, request, metadata, timeout):
        self.calls.append((path, request, {**dict(metadata), "timeout": timeout}))
        return self.replies.pop(0)

    def stream(self, service, path, metadata, timeout):
        self.calls.append((path, b"", dict(metadata)))
        return Upload(self.parts, self.replies.pop(0))


@pytest.fixture(scope="session")
def recording():
    """The gateway's port, and the recorder behind it."""
    methods, port = routed_methods(), free_port()
    recorder = Recorder(methods)

    def make_app():
        doorkeeper = Doorkeeper(OpenPolicy(), StatedTokens(), MemoryTrail(), LIMITS)
        edge = Edge(doorkeeper, recorder, LIMITS, Readers(), Writers())
        return build_gateway(edge, methods, f"http://127.0.0.1:{port}", lambda: True)

    with serving_in_thread(make_app, port):
        yield port, recorder


@pytest.fixture
def recorder(recording):
    """The recorder, with nothing in it."""
    _, recorder = recording
    recorder.replies.clear()
    recorder.calls.clear()
    recorder.parts.clear()
    return recorder


@pytest.fixture(scope="session")
def kehu(recording):
    port, _ = recording
    with Kehu(f"http://127.0.0.1:{port}", GivenToken(lambda: "user:ann@sales"), "service") as client:
        yield client
