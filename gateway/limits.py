"""Bound what one client, and all together, may ask of the gateway."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

SITE_BITS = 64  # of an IPv6 address: whoever has one has as many as they like below
CLIENTS_LIMIT = 10_000  # buckets kept; the least recently used goes first, and was full again by then


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one gateway process; rates are per second, sizes in bytes, times in seconds."""

    rate: float = 500.0  # per caller
    burst: float = 1000.0
    anonymous_rate: float = 50.0  # per address or IPv6 /64, for routes without a token and for bad tokens
    anonymous_burst: float = 100.0
    anonymous_at_once: int = 64  # requests of one address on routes without a token
    in_flight: int = 512
    body_bytes: int = 1024 * 1024
    upload_bytes: int = 4 * 1024**3
    body_wait: float = 20.0
    deadline: float = 10.0
    longest_deadline: float = 60.0
    upload_deadline: float = 3600.0
    streams: int = 64  # bodies of lines under way
    streams_each: int = 4  # per caller
    idle: float = 300.0  # that such a body may be silent


def address_of(peer: str) -> IPv4Address | IPv6Address:
    """Return the address of a peer, of an IPv4 one that is written as IPv6 the former.

    Raises:
        ValueError: it is none.
    """
    address = ip_address(peer.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def counted_for(peer: str) -> str:
    """Return whom a peer counts for: its address, or of IPv6 its site; what has no address is itself."""
    try:
        address = address_of(peer)
    except ValueError:
        return peer
    return str(ip_network((address, SITE_BITS), strict=False)) if isinstance(address, IPv6Address) else str(address)


@dataclass(slots=True)
class Bucket:
    """A token bucket: `tokens` were left at `at` (monotonic seconds)."""

    tokens: float
    at: float


class Buckets:
    """One token bucket per client."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, client: str, now: float) -> float:
        """Take a token; return 0 when there was one, else the seconds until there will be."""
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = Bucket(self._burst, now)
            if len(self._buckets) > CLIENTS_LIMIT:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(client)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) / self._rate
