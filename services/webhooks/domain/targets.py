"""Which URLs and addresses are sent to (OWASP API7:2023, SSRF): public names by https, and public addresses only.

A URL is read once, here, by a grammar narrower than RFC 3986: what any two parsers could read differently is refused.
Names are checked by what they resolve to, each time, and the address that was checked is the one connected to.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass

from services.webhooks.domain.errors import TargetRefused

PORTS = (443, 8443)
URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
TOP = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")  # never a number: 127.1, 0x7f.1 and 017700000001 are no names
PRIVATE_NAMES = (  # RFC 6761, 6762, 8375, 9476, and what clusters and clouds use
    "localhost", "local", "internal", "intranet", "private", "corp", "home", "lan", "svc", "arpa", "test", "invalid",
    "example", "onion", "alt",
)  # fmt: skip
V4_REFUSED = tuple(
    ipaddress.ip_network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
    )
)  # fmt: skip  # the IANA special-purpose registry (RFC 6890), and a cloud's metadata service at a public address
V6_PUBLIC = ipaddress.ip_network("2000::/3")  # global unicast: mapped, NAT64, local and multicast ones are outside
V6_REFUSED = tuple(
    ipaddress.ip_network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")
)  # Teredo, ORCHID and others of the IETF, documentation, 6to4, AS112

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart; `unchecked` when the configuration names the host, for trying out."""

    scheme: str
    host: str
    port: int
    path: str
    unchecked: bool = False


def read_target(url: str, dev_hosts: Collection[str] = ()) -> Target:
    """Return the parts of a URL that may be sent to; `dev_hosts` are `host` or `host:port`, by http too.

    Raises:
        TargetRefused: saying what to change.
    """
    found = URL.fullmatch(url)
    if found is None:
        raise TargetRefused("write https://host/path, without user, fragment, spaces or an address in brackets")
    scheme, host = found["scheme"], found["host"].lower()
    port = int(found["port"] or (443 if scheme == "https" else 80))
    path = (found["path"] or "/") + (found["query"] or "")
    if {host, f"{host}:{port}"} & set(dev_hosts) and 0 < port < 65536:
        return Target(scheme, host, port, path, unchecked=True)
    if scheme != "https":
        raise TargetRefused("use https")
    if port not in PORTS:
        raise TargetRefused(f"use port {' or '.join(map(str, PORTS))}")
    labels = host.split(".")
    if len(labels) < 2 or not all(map(LABEL.fullmatch, labels)) or not TOP.fullmatch(labels[-1]):
        raise TargetRefused("name a public host, such as hooks.example.com; addresses are not taken")
    if labels[-1] in PRIVATE_NAMES:
        raise TargetRefused(f"names under .{labels[-1]} are not public")
    return Target(scheme, host, port, path)


def is_public(address: str) -> bool:
    """Tell whether an address is somebody's on the internet, reached without translation or a tunnel."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # with a zone, or no address
        return False
    if not found.is_global or found.is_multicast or found.is_reserved:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return not any(found in network for network in V4_REFUSED)
    return found in V6_PUBLIC and not any(found in network for network in V6_REFUSED)
