"""Channels to the other services: mTLS, a deadline on every call, the caller's token passed on.

Only UNAVAILABLE is retried, and only on methods that read (AIP-194), within a budget (gRPC A6: a failure costs one of
twenty tokens, an answer earns a fifth of one, below half of them nothing is retried). A peer that mostly fails is left
alone for half a second at a time. A call without a timeout is refused, for grpc has no default deadline and a stopped
peer would hang its caller for ever.
"""

from __future__ import annotations

import collections
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc
from google.protobuf import descriptor_pool
from grpc_status import rpc_status

from services.chassis.breaker import Breaker, is_missing
from services.chassis.config import MESSAGE_BYTES, TRUST_DOMAIN, ProcessConfig
from services.chassis.server.calls import CALLER_ADDRESS, CERTIFICATE_HEADER, find_call
from services.chassis.server.plans import service_plans
from services.chassis.telemetry import trace_headers

StubType = TypeVar("StubType")
LOOK_SECONDS = 5.0  # how often a channel looks whether its certificate was replaced: hours before it ends
OLD_SECONDS = 120.0  # the longest call is over by then


class DeadlineMissing(TypeError):
    """A call was made without `timeout=`: a fault of our own code."""


class _Details(
    collections.namedtuple(
        "_Details", ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression")
    ),
    grpc.ClientCallDetails,
):
    """Call details with our metadata added."""


class PeerLeftAlone(grpc.RpcError, grpc.Call):
    """The peer mostly failed of late: it was not asked. Reads like any call to a peer that is gone."""

    def code(self) -> grpc.StatusCode:
        """Return UNAVAILABLE."""
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        """Return the text of the status."""
        return "the peer does not answer"

    def initial_metadata(self) -> tuple[()]:
        """Return nothing: there was no call."""
        return ()

    def trailing_metadata(self) -> tuple[()]:
        """Return nothing: no peer described it."""
        return ()

    def is_active(self) -> bool:
        """Say that it is over."""
        return False

    def time_remaining(self) -> None:
        """Return nothing: it is over."""

    def cancel(self) -> bool:
        """Say that it was over before."""
        return False

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Say that nothing will be called: it is over."""
        return False


class _Outgoing(grpc.UnaryUnaryClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Refuses calls without a deadline, shortens it to the caller's own, passes the caller on, leaves a peer alone."""

    def __init__(self) -> None:
        self._breaker = Breaker()

    def intercept_unary_unary(
        self,
        continuation: Callable[..., object],
        client_call_details: grpc.ClientCallDetails,
        request: object,
    ) -> object:
        """Send one request."""
        details = _outgoing(client_call_details)
        if not self._breaker.allows():
            raise PeerLeftAlone
        call = continuation(details, request)
        call.add_done_callback(lambda done: self._told(done, details.timeout))  # type: ignore[attr-defined]
        return call

    def _told(self, call: grpc.Call, timeout: float) -> None:
        code = call.code()
        if code == grpc.StatusCode.CANCELLED:
            self._breaker.forgo()
        else:
            self._breaker.record(is_missing(code, timeout) and not _is_refusal(call, code))

    def intercept_stream_unary(
        self,
        continuation: Callable[..., object],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Iterator[object],
    ) -> object:
        """Send a stream of requests."""
        return continuation(_outgoing(client_call_details), request_iterator)


def _is_refusal(call: grpc.Call, code: grpc.StatusCode) -> bool:
    """Whether a peer that is there described why it does not answer."""
    return code == grpc.StatusCode.UNAVAILABLE and rpc_status.from_call(call) is not None


def _outgoing(details: grpc.ClientCallDetails) -> _Details:
    if details.timeout is None:
        raise DeadlineMissing(f"{details.method} needs timeout=seconds")
    metadata = list(details.metadata or ())
    timeout = details.timeout
    call = find_call()
    if call is not None:
        timeout = min(timeout, call.seconds_left())
        metadata.append(("x-request-id", call.request_id))
        if call.authorization:
            metadata.append(("authorization", call.authorization))
        if call.thumbprint:
            metadata.append((CERTIFICATE_HEADER, call.thumbprint))
        if call.caller.purpose:
            metadata.append(("x-purpose", call.caller.purpose))
        if call.caller.address:
            metadata.append((CALLER_ADDRESS, call.caller.address))
    metadata.extend(trace_headers().items())
    return _Details(
        details.method, timeout, metadata, details.credentials, getattr(details, "wait_for_ready", None),
        getattr(details, "compression", None),
    )  # fmt: skip


def channel_options(peer: str, service_names: list[str]) -> list[tuple[str, object]]:
    """Return the options of a channel to `peer`: identity expected, quick reconnect, retries for reads."""
    pool = descriptor_pool.Default()
    plans = [plan for name in service_names for plan in service_plans(pool.FindServiceByName(name))]
    paths = [plan.path[1:].partition("/") for plan in plans if plan.reads_only]
    names = [{"service": service, "method": method} for service, _, method in paths]
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": names,
                "retryPolicy": {
                    "maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "0.5s", "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ] if names else [],
        "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.2},
    }  # fmt: skip
    return [
        ("grpc.ssl_target_name_override", f"{peer}.{TRUST_DOMAIN}"),
        ("grpc.service_config", json.dumps(config)),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
    ]


def channel_credentials(config: ProcessConfig, service: str) -> grpc.ChannelCredentials:
    """Return credentials that show this process's certificate and trust our authority only."""
    files = config.tls(service)
    return grpc.ssl_channel_credentials(files.ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes())


class FollowingChannel(grpc.Channel):
    """A channel that is opened anew when the certificate it shows was replaced; calls under way end on the old one."""

    def __init__(self, make: Callable[[], grpc.Channel], stamp: Callable[[], object]) -> None:
        self._make, self._stamp = make, stamp
        self._lock = threading.Lock()
        self._known = stamp()
        self._looked = time.monotonic()
        self._channel = make()

    def _current(self) -> grpc.Channel:
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return self._channel
        with self._lock:
            self._looked = time.monotonic()
            try:
                found = self._stamp()
            except OSError:  # it is being replaced at this moment
                return self._channel
            if found != self._known:
                old, self._channel, self._known = self._channel, self._make(), found
                closing = threading.Timer(OLD_SECONDS, old.close)
                closing.daemon = True
                closing.start()
        return self._channel

    def unary_unary(self, method: str, *rest: object, **named: object) -> object:
        """Return the method on the channel of now; interceptors ask for it at each call."""
        return self._current().unary_unary(method, *rest, **named)

    def unary_stream(self, method: str, *rest: object, **named: object) -> object:
        """Return the method on the channel of now."""
        return self._current().unary_stream(method, *rest, **named)

    def stream_unary(self, method: str, *rest: object, **named: object) -> object:
        """Return the method on the channel of now; interceptors ask for it at each call."""
        return self._current().stream_unary(method, *rest, **named)

    def stream_stream(self, method: str, *rest: object, **named: object) -> object:
        """Return the method on the channel of now."""
        return self._current().stream_stream(method, *rest, **named)

    def subscribe(self, callback: Callable[..., None], try_to_connect: bool | None = False) -> None:
        """Hear of the present channel's states."""
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[..., None]) -> None:
        """Hear no more."""
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> FollowingChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Channels:
    """One lazily opened channel per service this process calls; build after any fork, close at the end."""

    def __init__(self, config: ProcessConfig, service: str) -> None:
        self._config = config
        self._service = service
        self._channels: dict[str, grpc.Channel] = {}

    def to(self, peer: str, service_names: list[str]) -> grpc.Channel:
        """Return the channel to a service, by its short name such as "consent"."""
        if peer not in self._channels:
            channel = FollowingChannel(
                lambda: grpc.secure_channel(
                    self._config.addresses[peer],
                    channel_credentials(self._config, self._service),
                    channel_options(peer, service_names),
                ),
                self._config.tls(self._service).stamp,
            )
            self._channels[peer] = grpc.intercept_channel(channel, _Outgoing())
        return self._channels[peer]

    def stub(self, stub_class: Callable[[grpc.Channel], StubType]) -> StubType:
        """Return a stub such as ConsentServiceStub over the channel its module's package names."""
        package = stub_class.__module__.rpartition(".")[0]  # kehu.consent.v1
        peer = package.split(".")[1]
        full_name = f"{package}.{stub_class.__name__.removesuffix('Stub')}"
        return stub_class(self.to(peer, [full_name]))

    def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            channel.close()


def intercepted(channel: grpc.Channel) -> grpc.Channel:
    """Return a channel with the same promises over one made elsewhere, such as a test's."""
    return grpc.intercept_channel(channel, _Outgoing())
