"""The interactions that analytics keeps, as retention sees them: months that are due, and go but for who is held."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import grpc
from kehu.analytics.v1 import retention_pb2 as lake
from kehu.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub

from services.chassis.errors import Unavailable
from services.profiles.ageing.holding import held_now
from services.profiles.ageing.retiring import Due, Item
from services.profiles.domain.retention import Held, RecordType, RetentionRule
from services.profiles.store import Store

MOST_KEPT = 20_000  # ids that ListInteractionMonths and DeleteInteractionMonths take
TIMEOUT_SECONDS = 120.0  # files of a month are written anew where somebody's rows stay


class Month(NamedTuple):
    """A month of UTC as YYYY-MM, its interactions, and how many of them are of the people asked about."""

    month: str
    rows: int
    kept: int

    @property
    def end(self) -> datetime:
        """Return when it is over."""
        year, month = map(int, self.month.split("-"))
        return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


class Interactions(Protocol):
    """What is asked of the lake; a profile is meant by any of its ids."""

    def months(self, kept_ids: Sequence[str]) -> list[Month]:
        """Return the months that have interactions, oldest first.

        Raises:
            Unavailable: the lake does not answer.
        """

    def delete(self, months: Sequence[str], kept_ids: Sequence[str]) -> None:
        """Delete the interactions of months but for those of some people; a repeat changes nothing.

        Raises:
            Unavailable: the lake does not answer.
        """


class RemoteInteractions:
    """Analytics over gRPC."""

    def __init__(self, stub: AnalyticsServiceStub) -> None:
        self._stub = stub

    def months(self, kept_ids: Sequence[str]) -> list[Month]:
        """Return the months that have interactions."""
        request = lake.ListInteractionMonthsRequest(kept_profile_ids=kept_ids)
        try:
            found = self._stub.ListInteractionMonths(request, timeout=TIMEOUT_SECONDS).months
        except grpc.RpcError as error:
            raise _unavailable(error) from error
        return [Month(item.month, item.interaction_count, item.kept_count) for item in found]

    def delete(self, months: Sequence[str], kept_ids: Sequence[str]) -> None:
        """Delete the interactions of months."""
        request = lake.DeleteInteractionMonthsRequest(months=months, kept_profile_ids=kept_ids)
        try:
            self._stub.DeleteInteractionMonths(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise _unavailable(error) from error


def _unavailable(error: grpc.RpcError) -> Exception:
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return Unavailable("the analytics service does not answer; interactions are kept until it does")
    return error


class MonthRetirer:
    """Finds months that are due and takes them, as Retirer does of what profiles keeps itself.

    A hold on a source holds every month: the lake does not know where an interaction came from. So do holds on more
    people than can be told to it.
    """

    def __init__(self, store: Store, interactions: Interactions) -> None:
        self._store = store
        self._interactions = interactions

    def due(self, kind: RecordType, rules: Sequence[RetentionRule], after: str, limit: int, now: datetime) -> Due:
        """Return the months that are due at `now`, after one, nothing changed."""
        held = held_now(self._store, datetime.now(UTC))
        page = [item for item in self._interactions.months(_kept_ids(held)) if item.month > after][:limit]
        found = Due(last=page[-1].month if page else "")
        for month in page:
            rule = _due_rule(kind, rules, month, now)
            if rule is None:
                continue
            is_held = _holds_all(held, rules[rule])
            if is_held or month.kept:
                found.held.append(rule)
            if not is_held and month.rows > month.kept:
                found.items.append(Item(rule, f"{kind}/{month.month}", month.month))
        return found

    def take(
        self, kind: RecordType, rules: Sequence[RetentionRule], items: Sequence[Item], now: datetime, run: str
    ) -> tuple[list[Item], list[Item]]:
        """Take months that were due; return those that are gone, and those that are held by now."""
        held = held_now(self._store, datetime.now(UTC))
        there = {item.month for item in self._interactions.months(_kept_ids(held)) if item.rows > item.kept}
        kept = [item for item in items if item.ref in there and _holds_all(held, rules[item.rule])]
        taken = [item for item in items if item not in kept]
        if taken and not _are_too_many(held):
            self._interactions.delete([item.ref for item in taken], _kept_ids(held))
        return taken, kept


def _due_rule(kind: RecordType, rules: Sequence[RetentionRule], month: Month, now: datetime) -> int | None:
    for place, rule in enumerate(rules):
        if rule.record_type is kind and rule.is_due(month.end, month.end, now):
            return place
    return None


def _holds_all(held: Held, rule: RetentionRule) -> bool:
    return held.keeps(rule.rule_id) or bool(held.sources) or _are_too_many(held)


def _are_too_many(held: Held) -> bool:
    return len(held.profiles) > MOST_KEPT


def _kept_ids(held: Held) -> list[str]:
    return [] if _are_too_many(held) else sorted(held.profiles)
