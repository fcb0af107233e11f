"""How much a caller may ask: which quotas of the policy count for one caller and one kind of call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ANY = "*"


@dataclass(frozen=True, slots=True)
class Quota:
    """`requests` of each caller it is about in each period of `period_seconds`.

    `subject` is a caller (`app:crm`), a kind (`app:*`, `user:*`) or `*`; resource and action are those of the
    methods' access rules, or `*`.
    """

    name: str
    subject: str
    resource: str
    action: str
    requests: int
    period_seconds: int


def applying(quotas: Iterable[Quota], subject: str, resource: str, action: str) -> tuple[Quota, ...]:
    """Return the quotas that count for a call: of each resource and action the one that names the caller nearest."""
    nearest = (subject, f"{subject.partition(':')[0]}:{ANY}", ANY)
    found: dict[tuple[str, str], Quota] = {}
    for quota in quotas:
        if quota.subject not in nearest or quota.resource not in (ANY, resource) or quota.action not in (ANY, action):
            continue
        scope = (quota.resource, quota.action)
        known = found.get(scope)
        if known is None or nearest.index(quota.subject) < nearest.index(known.subject):
            found[scope] = quota
    return tuple(found.values())
