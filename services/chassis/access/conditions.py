"""Conditions on rules: a fixed vocabulary of typed tests, each of them true, false or unknown (Kleene's logic).

A rule that allows needs all of its conditions true; a rule that denies counts unless one of them is false. So what
nobody knows, such as the address of a caller that came without one, never opens a door and never keeps one from
being shut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

from services.chassis.errors import Invalid

Outcome: TypeAlias = bool | None  # None: nobody knows
Address: TypeAlias = IPv4Address | IPv6Address

CONDITION_SEPARATOR = "+"  # between the names in the seventh field of a rule
DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Facts:
    """What a condition may look at; `now` and `second_factor_at` in seconds since 1970, `address` as text."""

    now: float
    address: str = ""
    second_factor_at: float | None = None
    device: tuple[tuple[str, str], ...] = ()


NO_FACTS = Facts(float("nan"))


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """Clock time in a named zone, from `start` up to `end`, both "HH:MM", on weekdays 1 (Monday) to 7 (ISO 8601).

    An end at or before the start is on the next day, which counts to the weekday of the start; no weekday means any.
    """

    time_zone: str
    start: str
    end: str
    weekdays: tuple[int, ...] = ()
    kind: Literal["time_of_day"] = "time_of_day"

    def outcome(self, facts: Facts) -> Outcome:
        """Tell whether it is that time now."""
        if facts.now != facts.now:
            return None
        here = datetime.fromtimestamp(facts.now, _zone(self.time_zone))
        minute, start, end = here.hour * 60 + here.minute, minutes(self.start), minutes(self.end)
        if end > start:
            return start <= minute < end and self._counts(here)
        if minute >= start:
            return self._counts(here)
        return minute < end and self._counts(here - timedelta(days=1))

    def _counts(self, day: datetime) -> bool:
        return not self.weekdays or day.isoweekday() in self.weekdays


@dataclass(frozen=True, slots=True)
class DateWindow:
    """From a moment up to another, seconds since 1970, 0 for open: a time-boxed grant."""

    start: float = 0
    end: float = 0
    kind: Literal["date_window"] = "date_window"

    def outcome(self, facts: Facts) -> Outcome:
        """Tell whether it is between the two."""
        if facts.now != facts.now:
            return None
        return self.start <= facts.now and (not self.end or facts.now < self.end)


@dataclass(frozen=True, slots=True)
class Network:
    """The caller's address, as the gateway sees it, lies in one of these ranges (CIDR, RFC 4632 and RFC 4291)."""

    ranges: tuple[str, ...]
    kind: Literal["network"] = "network"

    def outcome(self, facts: Facts) -> Outcome:
        """Tell whether the address is in a range."""
        address = _address(facts.address)
        return None if address is None else any(address in known for known in _networks(self.ranges))


@dataclass(frozen=True, slots=True)
class SecondFactorAge:
    """The caller showed a second factor, at most so many seconds ago."""

    seconds: int
    kind: Literal["second_factor_age"] = "second_factor_age"

    def outcome(self, facts: Facts) -> Outcome:
        """Tell whether that is so; unknown when the token names no second factor."""
        if facts.second_factor_at is None or facts.now != facts.now:
            return None
        return facts.now - facts.second_factor_at <= self.seconds


@dataclass(frozen=True, slots=True)
class DevicePosture:
    """The company's issuer says this of the device, such as `managed` = `true`."""

    claim: str
    values: tuple[str, ...]
    kind: Literal["device_posture"] = "device_posture"

    def outcome(self, facts: Facts) -> Outcome:
        """Tell whether the claim has one of the values; unknown when the token lacks the claim."""
        for name, value in facts.device:
            if name == self.claim:
                return value in self.values
        return None


@dataclass(frozen=True, slots=True)
class RecordAttribute:
    """The record's field has one of the values; `$subject`, `$department` and `$departmentTree` are the caller's.

    Asked of each record by the service that owns it, as a row filter.
    """

    field: str
    values: tuple[str, ...]
    kind: Literal["record_attribute"] = "record_attribute"


Test: TypeAlias = TimeOfDay | DateWindow | Network | SecondFactorAge | DevicePosture
KINDS: Mapping[str, type] = {
    "time_of_day": TimeOfDay,
    "date_window": DateWindow,
    "network": Network,
    "second_factor_age": SecondFactorAge,
    "device_posture": DevicePosture,
    "record_attribute": RecordAttribute,
}


@dataclass(frozen=True, slots=True)
class NamedCondition:
    """A condition that rules name; `negated` turns true and false around and leaves unknown unknown."""

    name: str
    test: Test | RecordAttribute
    negated: bool = False
    description: str = ""

    def outcome(self, facts: Facts) -> Outcome:
        """Return the outcome of a test that looks at the request."""
        if isinstance(self.test, RecordAttribute):
            raise TypeError("a record condition is asked of records")
        found = self.test.outcome(facts)
        return found if found is None or not self.negated else not found


@dataclass(frozen=True, slots=True)
class Gate:
    """The conditions of one rule: those of the request, and those of the record."""

    tests: tuple[NamedCondition, ...] = ()
    records: tuple[RecordAttribute, ...] = ()

    def outcome(self, facts: Facts) -> Outcome:
        """Return false when a test of the request is false, unknown when one is unknown, else true."""
        unknown = False
        for test in self.tests:
            found = test.outcome(facts)
            if found is False:
                return False
            unknown = unknown or found is None
        return None if unknown else True

    def unmet(self, facts: Facts) -> list[str]:
        """Return the names of the tests that are not true."""
        return [test.name for test in self.tests if test.outcome(facts) is not True]


@dataclass(slots=True)
class Gates:
    """The gates of a policy by the seventh field of its rules, each made once."""

    conditions: Mapping[str, NamedCondition]
    _made: dict[str, Gate] = field(default_factory=dict)

    @classmethod
    def of(cls, conditions: Iterable[NamedCondition]) -> Gates:
        """Return the gates of these conditions."""
        return cls({condition.name: condition for condition in conditions})

    @property
    def used(self) -> bool:
        """Whether any rule named a condition."""
        return bool(self._made)

    def gate(self, names: str) -> Gate:
        """Return the gate of a rule's seventh field.

        Raises:
            Invalid: it names a condition that is not there.
        """
        known = self._made.get(names)
        if known is None:
            found = [self.conditions.get(name) for name in names.split(CONDITION_SEPARATOR)]
            if any(condition is None for condition in found):
                raise Invalid("a rule names a condition that the policy does not define")
            known = self._made[names] = _gate([condition for condition in found if condition])
        return known


def _gate(conditions: Sequence[NamedCondition]) -> Gate:
    records = [each.test for each in conditions if isinstance(each.test, RecordAttribute)]
    tests = [each for each in conditions if not isinstance(each.test, RecordAttribute)]
    return Gate(tuple(tests), tuple(records))


def plain(condition: NamedCondition) -> dict[str, object]:
    """Return a condition as plain values, for JSON."""
    return asdict(condition)


def from_plain(raw: Mapping[str, object]) -> NamedCondition:
    """Return the condition that `plain` wrote."""
    test = raw["test"]
    if not isinstance(test, Mapping):
        raise Invalid("a stored condition has no test")
    values = {name: tuple(value) if isinstance(value, list | tuple) else value for name, value in test.items()}
    return NamedCondition(
        str(raw["name"]), KINDS[str(values["kind"])](**values), bool(raw["negated"]), str(raw["description"])
    )


def minutes(clock: str) -> int:
    """Return the minutes since midnight of "HH:MM"; "24:00" is the end of the day.

    Raises:
        ValueError: it is no such time.
    """
    hour, colon, minute = clock.partition(":")
    found = int(hour) * 60 + int(minute)
    if not colon or len(clock) != 5 or not 0 <= int(minute) < 60 or not 0 <= found <= DAY_MINUTES:
        raise ValueError("write HH:MM")
    return found


@lru_cache(maxsize=100)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(maxsize=10_000)
def _address(text: str) -> Address | None:
    """Return an address; one of IPv4 inside IPv6 as what it is (RFC 4291 §2.5.5.2); None for anything else."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


@lru_cache(maxsize=1000)
def _networks(ranges: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in ranges)
