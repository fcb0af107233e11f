"""Callers' quotas, shared between gateways: each hands out portions that the access service leased to it (ADR 0023).

A portion is good until its period ends. While access does not answer, a gateway hands out in each period what it got in
the last one that access answered in, and a quarter of a quota it never got anything of.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from gateway.problems import Problem, refusal
from gateway.reasons import Reason
from services.chassis.access.quotas import Quota, applying

CALLERS_LIMIT = 10_000  # callers × kinds of calls remembered; the oldest goes first
FIRST_PART = 64  # the first portion of a period is this part of the quota: more is asked for as it is used
LARGEST_PART = 4
FALLBACK_PART = 4
WAIT_SECONDS = 0.25  # that a request waits for a portion, before access counts as away
AGAIN_SECONDS = 1.0  # between two tries while it is
ASKS_AT_ONCE = 500
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of one caller's quota; `spent` was handed out without a portion."""

    quota: Quota
    subject: str
    wanted: int
    spent: int


@dataclass(frozen=True, slots=True)
class Portion:
    """What was granted, what nobody has yet, and the seconds until the period ends."""

    granted: int
    left: int
    ends_in: float


Lease = Callable[[Sequence[Ask]], Awaitable[Sequence[Portion]]]


@dataclass(slots=True, eq=False)
class Account:
    """What this gateway may still hand out of one caller's quota in this period; times are monotonic seconds."""

    quota: Quota
    subject: str
    tokens: int = 0
    left: int = 0  # that nobody had when access was last asked
    ends: float = 0.0
    granted: int = 0  # in this period
    share: int = -1  # that was granted in the period before; -1 when there was none
    step: int = 0  # what is asked for next
    is_alone: bool = False  # access did not answer, and what is handed out is this gateway's share
    again: float = 0.0  # when it is asked again then
    unleased: int = 0  # handed out meanwhile in this period, to be told
    waiting: int = 0
    asking: asyncio.Task[None] | None = None
    policy: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.policy = f'"{self.quota.name}";q={self.quota.requests};w={self.quota.period_seconds}'.encode()

    def is_open(self, now: float) -> bool:
        """Whether a request may be handed out without asking anybody."""
        return self.tokens > 0 and now < self.ends

    def is_spent(self, now: float) -> bool:
        """Whether there is nothing left in this period, as far as can be known now."""
        knows = now < self.again if self.is_alone else self.left <= 0
        return knows and self.tokens <= 0 and now < self.ends

    def spend(self) -> bool:
        """Count one request; return whether more should be asked for."""
        self.tokens -= 1
        if self.is_alone:
            self.unleased += 1
            return False
        return self.left > 0 and self.tokens < self.step // LARGEST_PART and self.asking is None

    def ask(self, now: float) -> Ask:
        """Return what to ask for: more each time, as long as there is much left."""
        first = math.ceil(self.quota.requests / FIRST_PART)
        wanted = first if self.is_alone or now >= self.ends else min(self.step, self.left // LARGEST_PART)
        return Ask(self.quota, self.subject, min(max(wanted, self.waiting, 1), self.quota.requests), self.unleased)

    def take(self, portion: Portion, asked: Ask, now: float) -> None:
        """Add a portion; the first of a period, or since access was away, takes the place of what there was."""
        if self.is_alone or now >= self.ends:
            if self.ends and not self.is_alone:
                self.share = self.granted
            self.is_alone = False
            self.tokens = self.granted = 0
            self.step = math.ceil(self.quota.requests / FIRST_PART)
        self.unleased = max(self.unleased - asked.spent, 0)
        self.tokens += portion.granted
        self.granted += portion.granted
        self.left = portion.left
        self.ends = now + portion.ends_in
        self.step = min(self.step * 2, max(self.quota.requests // LARGEST_PART, 1))

    def do_without(self, now: float) -> None:
        """Go on with the share of this gateway, for access does not answer; what was granted is part of it."""
        self.again = now + AGAIN_SECONDS
        if now < self.ends and self.is_alone:
            return
        granted = self.granted if now < self.ends else 0
        if now >= self.ends:
            self.share = self.granted if self.ends and not self.is_alone else self.share
            self.ends, self.tokens, self.unleased = now + self.quota.period_seconds, 0, 0
        share = self.share if self.share >= 0 else self.quota.requests // FALLBACK_PART
        self.tokens += max(share - granted, 0)
        self.left, self.is_alone = 0, True

    def header(self, now: float) -> bytes:
        """Return the value of RateLimit (draft-ietf-httpapi-ratelimit-headers): what is left, and for how long."""
        left = max(self.tokens, 0) + self.left
        return f'"{self.quota.name}";r={left};t={max(math.ceil(self.ends - now), 0)}'.encode()


class Quotas:
    """Counts requests against the quotas of their callers."""

    def __init__(self, lease: Lease, now: Callable[[], float] = time.monotonic) -> None:
        self._lease = lease
        self._now = now
        self._known: tuple[Quota, ...] = ()
        self._accounts: dict[tuple[str, str], Account] = {}
        self._applying: dict[tuple[str, str, str], tuple[Account, ...]] = {}
        self._waiting: list[tuple[Account, Ask, asyncio.Future[None]]] = []
        self._sender: asyncio.Task[None] | None = None

    def of(self, quotas: tuple[Quota, ...], subject: str, resource: str, action: str) -> tuple[Account, ...]:
        """Return the accounts that a call counts in."""
        if quotas is not self._known:
            self._change(quotas)
        if not quotas:
            return ()
        key = (subject, resource, action)
        found = self._applying.get(key)
        if found is None:
            accounts = (self._account(quota, subject) for quota in applying(quotas, subject, resource, action))
            found = self._applying[key] = tuple(accounts)
            if len(self._applying) > CALLERS_LIMIT:
                self._applying.pop(next(iter(self._applying)))
        return found

    async def spend(self, accounts: Sequence[Account]) -> None:
        """Count one request in each account.

        Raises:
            Problem: 429, one of them has nothing left.
        """
        while True:
            now = self._now()
            short = [account for account in accounts if not account.is_open(now)]
            if not short:
                break
            for account in short:
                if account.is_spent(now):
                    raise exceeded(account, now)
                await self._renew(account)
        for account in accounts:
            if account.spend():
                account.asking = asyncio.ensure_future(self._ask(account))

    def headers(self, accounts: Sequence[Account]) -> tuple[tuple[bytes, bytes], ...]:
        """Return the headers of a reply that tell the caller of its quotas."""
        now = self._now()
        lists = (account.header(now) for account in accounts), (account.policy for account in accounts)
        return (b"ratelimit", b", ".join(lists[0])), (b"ratelimit-policy", b", ".join(lists[1]))

    def _change(self, quotas: tuple[Quota, ...]) -> None:
        """Follow another policy; what did not change keeps its account."""
        self._known = quotas
        self._applying.clear()
        present = {quota.name: quota for quota in quotas}
        for key, account in list(self._accounts.items()):
            if present.get(key[0]) != account.quota:
                del self._accounts[key]

    def _account(self, quota: Quota, subject: str) -> Account:
        key = (quota.name, subject)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(quota, subject)
            if len(self._accounts) > CALLERS_LIMIT:
                self._accounts.pop(next(iter(self._accounts)))
        return account

    async def _renew(self, account: Account) -> None:
        """Wait until a portion came, or access counts as away."""
        account.waiting += 1
        try:
            if account.asking is None:
                account.asking = asyncio.ensure_future(self._ask(account))
            await asyncio.shield(account.asking)
        finally:
            account.waiting -= 1

    async def _ask(self, account: Account) -> None:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)  # requests of the same moment are counted in
        asked = account.ask(self._now())
        self._waiting.append((account, asked, answered))
        if self._sender is None:
            self._sender = asyncio.ensure_future(self._send())
        try:
            await asyncio.wait_for(answered, WAIT_SECONDS)
        except (TimeoutError, OSError):
            account.do_without(self._now())
        finally:
            account.asking = None

    async def _send(self) -> None:
        """Ask access for all that is wanted now, in one call."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:ASKS_AT_ONCE], self._waiting[ASKS_AT_ONCE:]
                try:
                    portions = await self._lease([asked for _, asked, _ in batch])
                except Exception as error:  # whatever failed: access is away
                    _log.warning("no portions of quotas: %s", type(error).__name__)
                    for _, _, answered in batch:
                        if not answered.done():
                            answered.set_exception(OSError())
                    continue
                for (account, asked, answered), portion in zip(batch, portions, strict=True):
                    account.take(portion, asked, self._now())
                    if not answered.done():
                        answered.set_result(None)
        finally:
            self._sender = None


def exceeded(account: Account, now: float) -> Problem:
    """Return the refusal of a caller whose quota is used up, with what to wait for."""
    quota, wait = account.quota, account.ends - now
    what = "requests" if quota.action == "*" and quota.resource == "*" else f"'{quota.action}' on '{quota.resource}'"
    detail = f"the quota '{quota.name}' is used up: {quota.requests} of {what} in {quota.period_seconds} s"
    metadata = {
        "quota": quota.name,
        "requests": str(quota.requests),
        "period_seconds": str(quota.period_seconds),
    }
    headers = (
        (b"retry-after", str(max(math.ceil(wait), 1)).encode()),
        (b"ratelimit", account.header(now)),
        (b"ratelimit-policy", account.policy),
    )
    return refusal(429, Reason.QUOTA_EXCEEDED, detail, metadata=metadata, headers=headers)
