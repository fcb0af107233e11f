"""Ask company issuers for their keys: discovery, then the key set, kept for an hour and renewed when a key is new.

Nothing is followed but what the issuer's own document names, by https; no redirects, no large replies, no long waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.access.domain.issuers import is_safe, usable_keys
from services.chassis.errors import Unavailable

DISCOVERY = "/.well-known/openid-configuration"
KEPT_SECONDS = 3600.0
STALE_SECONDS = 86_400.0  # keys that cannot be renewed are believed no longer
PAUSES = (5.0, 10.0, 30.0, 60.0, 300.0)  # between askings about an unknown key, or after a failure
REPLY_BYTES = 256 * 1024
TIMEOUT_SECONDS = 3.0

Jwk = Mapping[str, object]
log = logging.getLogger("kehu.access")


class IssuerSilent(Unavailable):
    """The issuer did not answer, or not with what an OpenID provider answers."""


def fetch_json(url: str) -> object:
    """Return a JSON document.

    Raises:
        IssuerSilent: there is none of a reasonable size within some seconds.
    """
    import httpx
    import orjson

    try:
        with (
            httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False) as http,
            http.stream("GET", url, headers={"Accept": "application/json"}) as reply,
        ):
            if reply.status_code != 200:
                raise IssuerSilent(f"the issuer answers {reply.status_code}")
            body, end = b"", time.monotonic() + TIMEOUT_SECONDS
            for part in reply.iter_bytes():
                body += part
                if len(body) > REPLY_BYTES or time.monotonic() > end:
                    raise IssuerSilent("the issuer's reply is too long or too slow")
        return orjson.loads(body)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise IssuerSilent(f"the issuer does not answer: {type(error).__name__}") from None


@dataclass(slots=True)
class _Known:
    """What is known of one issuer."""

    keys: Mapping[str, Jwk] = field(default_factory=dict)
    read_at: float = float("-inf")
    ask_at: float = float("-inf")  # not before
    tries: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Companies:
    """The keys of company issuers, as one process of access knows them."""

    def __init__(
        self,
        loopback: bool = False,
        fetch: Callable[[str], Any] = fetch_json,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`loopback` also allows plain http to this machine, for trying things out."""
        self.loopback = loopback
        self._fetch, self._clock = fetch, clock
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def key(self, url: str, key_id: str) -> Jwk | None:
        """Return a key of an issuer; None when it has no such key or cannot be asked now."""
        with self._lock:
            known = self._known.setdefault(url, _Known())
        now = self._clock()
        fresh = now - known.read_at < KEPT_SECONDS
        if key_id not in known.keys or not fresh:
            with known.lock:
                if (key_id not in known.keys or not fresh) and now >= known.ask_at:
                    self._renew(url, known, now)
        return known.keys.get(key_id) if now - known.read_at < STALE_SECONDS else None

    def discover(self, url: str) -> Mapping[str, Jwk]:
        """Return the keys of an issuer.

        Raises:
            IssuerSilent: it does not answer as OpenID Connect Discovery 1.0 §4 says.
        """
        document = self._fetch(url.rstrip("/") + DISCOVERY)
        if not isinstance(document, dict) or document.get("issuer") != url:
            raise IssuerSilent("the discovery document is of another issuer")
        where = document.get("jwks_uri")
        if not isinstance(where, str) or not is_safe(where, self.loopback):
            raise IssuerSilent("the discovery document names no key set by https")
        keys = usable_keys(self._fetch(where))
        if not keys:
            raise IssuerSilent("the key set has no key for RS256, ES256 or EdDSA")
        return keys

    def _renew(self, url: str, known: _Known, now: float) -> None:
        known.ask_at = now + PAUSES[min(known.tries, len(PAUSES) - 1)]
        known.tries += 1
        try:
            found = self.discover(url)
        except IssuerSilent as error:
            log.warning("company issuer: %s", error.message)
            return
        if set(found) != set(known.keys):
            known.tries = 0  # keys did change: no more doubt in who asks
            known.ask_at = now + PAUSES[0]
        known.keys, known.read_at = found, now
