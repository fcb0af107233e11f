"""Quotas of a policy: their faults, and the portions that gateways get of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from services.access.domain.policies import Content
from services.access.domain.vocabulary import Inventory
from services.chassis.access.quotas import ANY
from services.chassis.errors import FieldViolation

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
WHOSE = re.compile(r"\*|(app|user):(\*|[a-z0-9][a-z0-9._-]{0,62})")
LONGEST_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Window:
    """A period of one caller's quota: where it is counted, and how many seconds of it are left."""

    key: str
    seconds_left: float


def window_of(quota: str, subject: str, period_seconds: int, now: datetime) -> Window:
    """Return the period that `now` lies in; periods begin at whole multiples of their length since 1970."""
    seconds = now.timestamp()
    start = int(seconds // period_seconds) * period_seconds
    return Window(f"{start}/{period_seconds} {quota} {subject}", start + period_seconds - seconds)


def portion(requests: int, taken_before: int, wanted: int) -> tuple[int, int]:
    """Return how many of `wanted` are granted when so many were taken before, and how many are left then."""
    free = max(requests - taken_before, 0)
    granted = min(wanted, free)
    return granted, free - granted


def quota_faults(content: Content, inventory: Inventory) -> Iterator[FieldViolation]:
    """Yield what is wrong with the quotas of a policy."""
    names: set[str] = set()
    scopes: set[tuple[str, str, str]] = set()
    for position, quota in enumerate(content.quotas):
        place = f"quotas[{position}]"
        if not NAME.fullmatch(quota.name):
            yield FieldViolation(f"{place}.name", "use lower-case letters, digits and '-'")
        if quota.name in names:
            yield FieldViolation(f"{place}.name", "another quota has this name")
        if not WHOSE.fullmatch(quota.subject):
            yield FieldViolation(f"{place}.subject", "write app:NAME, user:NAME, app:*, user:* or *")
        if quota.resource != ANY and quota.resource not in inventory.actions:
            yield FieldViolation(f"{place}.resource", "no RPC has this resource; * is any")
        elif quota.action != ANY and (quota.resource == ANY or quota.action not in inventory.actions[quota.resource]):
            yield FieldViolation(f"{place}.action", "the resource has no such action; * is any")
        if quota.requests < 0 or not 1 <= quota.period_seconds <= LONGEST_SECONDS:
            yield FieldViolation(place, f"give it requests from 0 and a period of 1 to {LONGEST_SECONDS} seconds")
        scope = (quota.subject, quota.resource, quota.action)
        if scope in scopes:
            yield FieldViolation(place, "another quota is for the same caller, resource and action")
        names.add(quota.name)
        scopes.add(scope)
