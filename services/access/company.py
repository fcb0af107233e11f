"""Ask company issuers and apps for their keys, which are kept for an hour and renewed when a key is new.

Of an issuer the key set is found by discovery, of an app an administrator names it. Nothing else is followed, and only
by https; no redirects, no large replies, no long waits.
"""

from __future__ import annotations

import asyncio
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
QUIET_SECONDS = 300.0  # nobody asked about an unknown key for so long: the first pause again
REPLY_BYTES = 256 * 1024
TIMEOUT_SECONDS = 3.0
ASKED = {"Accept": "application/json", "Accept-Encoding": "identity"}

Jwk = Mapping[str, object]
log = logging.getLogger("kehu.access")


class IssuerSilent(Unavailable):
    """The issuer did not answer, or not with what an OpenID provider answers."""


def fetch_json(url: str) -> object:
    """Return a JSON document; all of it, from the name to the last byte, takes some seconds at most.

    Raises:
        IssuerSilent: there is none of a reasonable size within that time.
    """
    import httpx
    import orjson

    loop = asyncio.new_event_loop()
    try:
        return orjson.loads(loop.run_until_complete(asyncio.wait_for(_body(url), TIMEOUT_SECONDS)))
    except TimeoutError:
        raise IssuerSilent("its reply is too slow") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise IssuerSilent(f"it does not answer: {type(error).__name__}") from None
    finally:
        loop.close()  # and waits for no thread that resolves a name


async def _body(url: str) -> bytes:
    import httpx

    body = b""
    async with (
        httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False) as http,
        http.stream("GET", url, headers=ASKED) as reply,
    ):
        if reply.status_code != 200:
            raise IssuerSilent(f"it answers {reply.status_code}")
        if reply.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise IssuerSilent("its reply is encoded, which was not asked for")
        async for part in reply.aiter_raw():  # as it comes: a few bytes may unpack to gigabytes
            body += part
            if len(body) > REPLY_BYTES:
                raise IssuerSilent("its reply is too long")
    return body


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
        self._known: dict[tuple[str, str], _Known] = {}
        self._lock = threading.Lock()

    def key(self, url: str, key_id: str) -> Jwk | None:
        """Return a key of an issuer; None when it has no such key or cannot be asked now."""
        return self._key(url, key_id, self.discover)

    def key_of_set(self, url: str, key_id: str) -> Jwk | None:
        """Return a key of the key set at a URL; None when it has no such key or cannot be asked now."""
        return self._key(url, key_id, self.key_set)

    def _key(self, url: str, key_id: str, read: Callable[[str], Mapping[str, Jwk]]) -> Jwk | None:
        with self._lock:
            known = self._known.setdefault((read.__name__, url), _Known())
        now = self._clock()
        fresh = now - known.read_at < KEPT_SECONDS
        if key_id not in known.keys or not fresh:
            with known.lock:
                if (key_id not in known.keys or not fresh) and now >= known.ask_at:
                    self._renew(url, known, now, read)
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
        return self.key_set(where)

    def key_set(self, url: str) -> Mapping[str, Jwk]:
        """Return the keys of a key set (RFC 7517 §5).

        Raises:
            IssuerSilent: there is none, or no key in it that we take.
        """
        keys = usable_keys(self._fetch(url))
        if not keys:
            raise IssuerSilent("the key set has no key for RS256, ES256 or EdDSA")
        return keys

    def _renew(self, url: str, known: _Known, now: float, read: Callable[[str], Mapping[str, Jwk]]) -> None:
        if now >= known.ask_at + QUIET_SECONDS:
            known.tries = 0
        known.ask_at = now + PAUSES[min(known.tries, len(PAUSES) - 1)]
        known.tries += 1
        try:
            found = read(url)
        except IssuerSilent as error:
            log.warning("keys of others: %s", error.message)
            return
        if set(found) != set(known.keys):
            known.tries = 0  # keys did change: no more doubt in who asks
            known.ask_at = now + PAUSES[0]
        known.keys, known.read_at = found, now
