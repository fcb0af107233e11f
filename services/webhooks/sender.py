"""Send one request to a target: the address that was checked is the one connected to.

httpcore speaks HTTP and TLS and follows nothing: no redirects, no proxies, no environment. Its connections are made
here: the name is resolved once, every address of it must be public, and TLS is verified against the name (SNI too).
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from services.webhooks.domain.errors import TargetRefused
from services.webhooks.domain.schedule import retry_after
from services.webhooks.domain.targets import Target, is_public, read_target

if TYPE_CHECKING:
    from services.webhooks.wires import Pinned

SECONDS = 15.0  # for all of it: name, connection, TLS, request and reply
REPLY_BYTES = 4096  # of a challenge's reply; of others nothing is read
ADDRESSES = 4  # of a name that are tried
DELIVERED = "delivered"

Resolve = Callable[[str, int], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of sending: `kind` as WebhookAttempt.outcome says, `status` 0 without an answer."""

    kind: str
    status: int = 0
    milliseconds: int = 0
    asked_wait: timedelta | None = None
    body: bytes = field(default=b"", repr=False)


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name.

    Raises:
        OSError: it has none now.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Sender:
    """Sends to targets that may be sent to; thread-safe, keeps no connection."""

    def __init__(
        self,
        dev_hosts: Collection[str] = (),
        authorities: Path | None = None,
        resolve: Resolve = resolve,
        seconds: float = SECONDS,
    ) -> None:
        """`dev_hosts` are sent to unchecked; `authorities` is a PEM file beside the public ones."""
        self.dev_hosts = frozenset(dev_hosts)
        self._authorities, self._resolve, self._seconds = authorities, resolve, seconds

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        import certifi

        context = ssl.create_default_context(cafile=certifi.where())
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._authorities is not None:
            context.load_verify_locations(self._authorities)
        return context

    def send(self, url: str, body: bytes, headers: Mapping[str, str], *, read: bool = False) -> Outcome:
        """Post a body; never raises for what the target does. `read` returns the start of the reply."""
        began = time.monotonic()
        try:
            target = read_target(url, self.dev_hosts)
            found = self._post(target, self._addresses(target), body, headers, began + self._seconds, read)
        except TargetRefused:
            found = Outcome("refused")
        except OSError:
            found = Outcome("unreachable")
        return Outcome(found.kind, found.status, int((time.monotonic() - began) * 1000), found.asked_wait, found.body)

    def _addresses(self, target: Target) -> Sequence[str]:
        """Return the addresses of a target; one that is not public refuses them all.

        Raises:
            TargetRefused: the name leads inside.
            OSError: the name cannot be resolved.
        """
        found = self._resolve(target.host, target.port)
        if not target.unchecked and not all(map(is_public, found)):
            raise TargetRefused("the name leads to an address that is not public")
        return found[:ADDRESSES]

    def _post(
        self, target: Target, addresses: Sequence[str], body: bytes, headers: Mapping[str, str], end: float, read: bool
    ) -> Outcome:
        import httpcore

        from services.webhooks.wires import Pinned

        wires: Pinned = Pinned(addresses, end)
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        left = max(end - time.monotonic(), 0.001)
        timeouts = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), left)}
        sent = [("content-type", "application/json"), ("user-agent", "kehu-webhooks"), *headers.items()]
        tls = self._tls if target.scheme == "https" else None
        try:
            with (
                httpcore.ConnectionPool(ssl_context=tls, network_backend=wires, http1=True, http2=False) as pool,
                pool.stream("POST", url, headers=sent, content=body, extensions=timeouts) as reply,
            ):
                kind = DELIVERED if 200 <= reply.status < 300 else "status"
                return Outcome(kind, reply.status, 0, _asked_wait(reply.headers), _start(reply) if read else b"")
        except httpcore.TimeoutException:
            return Outcome("timeout")
        except httpcore.ConnectError as error:
            return Outcome("tls" if _is_tls(error) else "unreachable")
        except httpcore.NetworkError:
            return Outcome("unreachable")
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol):
            return Outcome("protocol")


def _start(reply: object) -> bytes:
    held = b""
    for part in reply.iter_stream():  # type: ignore[attr-defined]
        held += part
        if len(held) > REPLY_BYTES:
            return b""
    return held


def _asked_wait(headers: Sequence[tuple[bytes, bytes]]) -> timedelta | None:
    found = next((value for name, value in headers if name.lower() == b"retry-after"), b"")
    return retry_after(found.decode("latin-1").strip(), datetime.now(UTC)) if found else None


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
