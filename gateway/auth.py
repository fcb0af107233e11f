"""Decide at the edge who calls and whether they may, before anything of the request is looked at (AIP-211)."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

from kehu.options.v1 import options_pb2

from gateway.certificates import CertificateReader
from gateway.limits import Buckets, Limits, counted_for
from gateway.problems import Problem, challenge, refusal
from gateway.quotas import Quotas
from gateway.reasons import Reason
from gateway.transcoding.catalog import Method
from gateway.wire import Exchange
from services.chassis.access import Caller, Decision, SnapshotHolder, StepUpRequired, UnattendedDenied, check_step_up
from services.chassis.errors import Unauthenticated, Unavailable
from services.chassis.server import Call
from services.chassis.server.guard import TokenVerifier, Trail

PURPOSE = re.compile(r"[a-z][a-z0-9_-]{0,63}")
ANONYMOUS = Caller(subject="anonymous", kind="anonymous")


class Doorkeeper:
    """Verifies the token, takes the purpose, asks the policy, and counts what each caller sends."""

    def __init__(
        self,
        holder: SnapshotHolder,
        tokens: TokenVerifier,
        trail: Trail,
        limits: Limits,
        now: Callable[[], float] = time.monotonic,
        certificates: CertificateReader | None = None,
        clock: Callable[[], float] = time.time,
        quotas: Quotas | None = None,
    ) -> None:
        self._holder = holder
        self._tokens = tokens
        self._trail = trail
        self._now = now
        self._certificates = certificates or CertificateReader()
        self._clock = clock
        self._quotas = quotas
        self._limits = limits
        self._at_once: Counter[str] = Counter()
        self._callers = Buckets(limits.rate, limits.burst)
        self._strangers = Buckets(limits.anonymous_rate, limits.anonymous_burst)

    async def admit(self, exchange: Exchange, method: Method) -> Caller:
        """Return who calls, when they may call the method; sets `exchange.caller`.

        Raises:
            Problem: 401 without a good token or a fresh second factor where one is needed, 403 when the policy
                says no, 429 above the rate or a quota, 503 when no policy was ever loaded.
        """
        if method.is_public:
            self._count_stranger(exchange)
            exchange.thumbprint = self._certificates.thumbprint(exchange)
            exchange.caller = ANONYMOUS
            return ANONYMOUS
        caller = self.authenticate(exchange)
        self.decide(caller, method, exchange.request_id)
        await self.spend(exchange, caller, method)
        return caller

    async def spend(self, exchange: Exchange, caller: Caller, method: Method) -> None:
        """Count a call that is allowed against the caller's quotas, and have the reply tell of them.

        Raises:
            Problem: 429, one is used up.
        """
        if self._quotas is None:
            return
        rule = method.plan
        accounts = self._quotas.of(self._holder.current.quotas, caller.subject, rule.resource, rule.action)
        if accounts:
            await self._quotas.spend(accounts)
            exchange.told = self._quotas.headers(accounts)

    @contextmanager
    def stranger(self, exchange: Exchange) -> Iterator[None]:
        """Hold one of the few places an address has on routes without a token: a slow body must not take them all.

        Raises:
            Problem: 429, it has none left.
        """
        address, limit = counted_for(exchange.peer), self._limits.anonymous_at_once
        if self._at_once[address] >= limit:
            raise refusal(429, Reason.RATE_LIMITED, "too many requests of this address at once", retry_seconds=1)
        self._at_once[address] += 1
        try:
            yield
        finally:
            self._at_once[address] -= 1
            if not self._at_once[address]:
                del self._at_once[address]

    async def pace(self, exchange: Exchange, caller: Caller, method: Method) -> None:
        """Count another call of a caller who is admitted, waiting while it is above its rate.

        Raises:
            Problem: 429, a quota is used up.
        """
        while wait := self._callers.take(caller.subject, self._now()):
            await asyncio.sleep(wait)
        await self.spend(exchange, caller, method)

    def authenticate(self, exchange: Exchange) -> Caller:
        """Return the caller of the bearer token, with the purpose named; see admit."""
        if exchange.caller is not None:
            return exchange.caller
        scheme, _, token = exchange.text(b"authorization").partition(" ")
        if not token or scheme.lower() != "bearer":
            self._count_stranger(exchange)
            raise refusal(401, Reason.TOKEN_MISSING, "send Authorization: Bearer with a token")
        exchange.thumbprint = self._certificates.thumbprint(exchange)
        try:
            caller = self._tokens.verify(token, exchange.thumbprint)
        except Unauthenticated as error:
            self._count_stranger(exchange)
            raise refusal(401, Reason.TOKEN_INVALID, error.message) from None
        except Unavailable as error:
            raise refusal(503, Reason.POLICY_NOT_LOADED, error.message, retry_seconds=1) from None
        wait = self._callers.take(caller.subject, self._now())
        if wait:
            raise rate_limited(wait, "rate", self._limits.rate, self._limits.burst)
        purpose = exchange.headers.get(b"x-purpose")
        word = "" if purpose is None else checked_purpose(purpose.decode("latin-1"))
        exchange.caller = caller = caller.calling(word, exchange.peer)
        return caller

    def decide(self, caller: Caller, method: Method, request_id: str) -> None:
        """Ask the policy, and audit its refusal: the service will never hear of it; see admit."""
        rule = method.plan
        if rule.purpose_required and not caller.purpose:
            decision = Decision(False, Reason.PURPOSE_REQUIRED.name, 0)
            told = {"decision_id": self._record(caller, method, decision, request_id)}
            raise refusal(403, Reason.PURPOSE_REQUIRED, "state a purpose: send X-Purpose", metadata=told)
        try:
            policy = self._holder.current
        except Unavailable as error:
            raise refusal(503, Reason.POLICY_NOT_LOADED, error.message, retry_seconds=1) from None
        decision = policy.decide(caller, rule.resource, rule.action)
        if not decision.allowed:
            decision_id = self._record(caller, method, decision, request_id)
            raise denied(rule.resource, rule.action, decision.policy_version, decision_id)
        if not method.plan.step_up:
            return
        try:
            check_step_up(policy, caller, rule.resource, rule.action, self._clock())
        except (StepUpRequired, UnattendedDenied) as error:
            decision_id = self._record(caller, method, replace(decision, reason=error.reason), request_id)
            raise not_stepped_up(error, decision_id) from None

    def _record(self, caller: Caller, method: Method, decision: Decision, request_id: str) -> str:
        """Write a refusal into the trail and return its decision id; no id for a method that is not audited."""
        if method.plan.audit in (options_pb2.AUDIT_LEVEL_UNSPECIFIED, options_pb2.AUDIT_LEVEL_NONE):
            return ""
        call = Call(caller, decision, request_id, self._now())
        code = "UNAUTHENTICATED" if decision.reason == StepUpRequired.reason else "PERMISSION_DENIED"
        return self._trail.record(call, method.plan, "", code, decision.reason)

    def _count_stranger(self, exchange: Exchange) -> None:
        wait = self._strangers.take(counted_for(exchange.peer), self._now())
        if wait:
            raise rate_limited(wait, "address", self._limits.anonymous_rate, self._limits.anonymous_burst)


@lru_cache(maxsize=1024)
def checked_purpose(purpose: str) -> str:
    """Return the purpose when it is well formed.

    Raises:
        Problem: it is not.
    """
    if not PURPOSE.fullmatch(purpose):
        raise refusal(400, Reason.BAD_HEADER, "X-Purpose must be a lower-case word of at most 64 characters")
    return purpose


def rate_limited(wait_seconds: float, name: str, rate: float, burst: float) -> Problem:
    """Return the refusal of a caller above its rate, with what a burst is and how long it takes to have one again."""
    policy = f'"{name}";q={burst:.0f};w={max(math.ceil(burst / rate), 1)}'
    left = f'"{name}";r=0;t={max(math.ceil(wait_seconds), 1)}'
    headers = (b"ratelimit", left.encode()), (b"ratelimit-policy", policy.encode())
    detail = "too many requests from this caller"
    return refusal(429, Reason.RATE_LIMITED, detail, retry_seconds=wait_seconds, headers=headers)


def denied(resource: str, action: str, policy_version: int, decision_id: str) -> Problem:
    """Return the refusal of the policy, in the words the services use."""
    metadata = {"resource": resource, "action": action, "policy": str(policy_version), "decision_id": decision_id}
    detail = f"'{action}' on '{resource}' is not permitted, or it does not exist"
    return refusal(403, Reason.PERMISSION_DENIED, detail, metadata=metadata)


def not_stepped_up(error: StepUpRequired | UnattendedDenied, decision_id: str) -> Problem:
    """Return the refusal of a caller who did not show a second factor of late: 401 (RFC 9470), or of an app: 403."""
    status = 401 if isinstance(error, StepUpRequired) else 403
    headers = ((b"www-authenticate", challenge(error.reason)),) if status == 401 else ()
    metadata = {**error.metadata, "decision_id": decision_id}
    return Problem(status, error.reason, error.message, metadata, headers=headers)
