"""Serve a service in this process behind the real guard, over a real loopback socket, with stated callers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.chassis.access import ALL_SHOWN, Caller, Decision, FieldGrant, Obligations
from services.chassis.access.quotas import Quota
from services.chassis.client import intercepted
from services.chassis.errors import Unauthenticated
from services.chassis.server import (
    NOTHING,
    Call,
    Guard,
    MethodPlan,
    Seen,
    Serving,
    build_server,
    plans_by_path,
    service_names,
)

StubType = TypeVar("StubType")
TODAY = date(2026, 11, 21)


class StatedTokens:
    """Accepts tokens of the form `user:alice@marketing`: the caller says who they are, and has just signed in.

    A person of the form `user:alice~300@marketing` signed in so many seconds ago.
    """

    def verify(self, bearer: str, thumbprint: str = "") -> Caller:
        """Return the stated caller; `user:alice@marketing bound=THUMBPRINT` counts over that certificate only."""
        bearer, _, bound = bearer.partition(" bound=")
        if bound and bound != thumbprint:
            raise Unauthenticated("the token is not valid")
        subject, at, department = bearer.partition("@")
        kind, colon, _ = subject.partition(":")
        if not at or not colon:
            raise Unauthenticated("the token is not valid")
        subject, _, ago = subject.partition("~")
        at = datetime.now(UTC) - timedelta(seconds=float(ago or 0)) if kind == "user" else None
        methods = ("pwd", "otp") if kind == "user" else ("client_secret",)
        return Caller(subject, kind, department, token_id="test", auth_time=at, methods=methods)


@dataclass
class OpenPolicy:
    """Allows everything, with these obligations; add (resource, action) pairs to `denied` to refuse them."""

    obligations: Obligations = ALL_SHOWN
    denied: set[tuple[str, str]] = field(default_factory=set)
    field_grants: tuple[FieldGrant, ...] = ()
    shadow: None = None
    quotas: tuple[Quota, ...] = ()

    @property
    def known(self) -> OpenPolicy:
        """Be one's own snapshot."""
        return self

    @property
    def current(self) -> OpenPolicy:
        """Be one's own snapshot."""
        return self

    def emergency(self, caller: Caller) -> str:
        """Know of no broken glass."""
        return ""

    def decide(self, caller: Caller, resource: str, action: str, rows_of: tuple[str, ...] = ()) -> Decision:
        """Answer."""
        allowed = (resource, action) not in self.denied
        return Decision(allowed, "open test policy", 1, self.obligations)


@dataclass
class MemoryTrail:
    """Keeps audit entries in a list of (subject, method path, resource, code), and beside it what each reply told."""

    entries: list[tuple[str, str, str, str]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def record(
        self, call: Call | None, plan: MethodPlan, resource: str, code: str, reason: str, seen: Seen = NOTHING
    ) -> str:
        """Remember one entry."""
        self.entries.append((call.caller.subject if call else "", plan.path, resource, code))
        self.seen.append(seen)
        return f"decision-{len(self.entries)}"


def stated_peer(context: grpc.ServicerContext) -> str:
    """Return the peer named in the metadata, the gateway if none: stands in for the certificate."""
    return str(dict(context.invocation_metadata()).get("x-test-peer", "gateway"))


class _As(grpc.UnaryUnaryClientInterceptor, grpc.StreamUnaryClientInterceptor):
    def __init__(self, metadata: list[tuple[str, str]]) -> None:
        self._metadata = metadata

    def intercept_unary_unary(self, continuation: Callable, client_call_details: object, request: object) -> object:
        return continuation(self._with(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Callable, client_call_details: object, request_iterator: object
    ) -> object:
        return continuation(self._with(client_call_details), request_iterator)

    def _with(self, details: object) -> object:
        metadata = [*(details.metadata or ()), *self._metadata]
        return details._replace(metadata=metadata)


@dataclass
class Harness:
    """A running server and the ways to call it."""

    address: str
    policy: OpenPolicy
    trail: MemoryTrail
    _channels: list[grpc.Channel] = field(default_factory=list)

    def stub(
        self,
        stub_class: Callable[[grpc.Channel], StubType],
        *,
        caller: str = "user:test@data-office",
        purpose: str = "stewardship",
        peer: str = "gateway",
        forward: bool = False,
    ) -> StubType:
        """Return a stub that calls as a person or app (`caller`), or, with `caller=""`, as service `peer`.

        `forward=True` sends no caller of its own: the call being served is passed on, as in production.
        """
        metadata = [("x-test-peer", peer)]
        if not forward:
            metadata += [("authorization", f"Bearer {caller}")] if caller else []
            metadata += [("x-purpose", purpose)] if purpose else []
        channel = grpc.insecure_channel(self.address)
        self._channels.append(channel)
        return stub_class(intercepted(grpc.intercept_channel(channel, _As(metadata))))


@contextmanager
def running(serving: Serving, policy: OpenPolicy | None = None) -> Iterator[Harness]:
    """Run a service until the block ends."""
    policy, trail = policy or OpenPolicy(), MemoryTrail()
    plans = plans_by_path(service_names(serving))
    guard = Guard(serving.service, plans, policy, StatedTokens(), trail, stated_peer, lambda: TODAY)
    server = build_server(serving, guard, threads=16)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    harness = Harness(f"127.0.0.1:{port}", policy, trail)
    try:
        yield harness
    finally:
        for channel in harness._channels:
            channel.close()
        server.stop(0.5).wait()


def bad_fields(call: Callable[[], object]) -> list[str]:
    """Return the fields that a call is refused for."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(refused.value).details:
        detail.Unpack(found)
    return [violation.field for violation in found.field_violations]


def refused(call: Callable[[], object]) -> error_details_pb2.ErrorInfo:
    """Return why a call is refused."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(error.value).details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return info
