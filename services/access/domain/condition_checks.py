"""Find the faults of a policy's conditions, departments and teams before it is accepted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services.access.domain.policies import Content
from services.access.domain.vocabulary import CALLERS_OWN, Inventory
from services.chassis.access.conditions import (
    DateWindow,
    DevicePosture,
    NamedCondition,
    Network,
    RecordAttribute,
    SecondFactorAge,
    TimeOfDay,
    minutes,
)
from services.chassis.access.shares import LENT_BY, SHARED
from services.chassis.errors import FieldViolation

CONDITION = re.compile(r"[a-z][a-z0-9-]{0,39}")
DEPARTMENT = re.compile(r"[a-z][a-z-]{0,39}")  # as principals carry it
MEMBER = re.compile(r"(user|app):[a-z0-9][a-z0-9._-]{0,62}")
CLAIM = re.compile(r"[a-z][a-z0-9_]{0,39}")
FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
DAY_SECONDS = 24 * 3600
DEPARTMENT_DEPTH = 10


def condition_faults(conditions: Sequence[NamedCondition]) -> Iterator[FieldViolation]:
    """Yield every fault of the conditions."""
    seen: set[str] = set()
    for position, condition in enumerate(conditions):
        place = f"conditions[{position}]"
        if not CONDITION.fullmatch(condition.name):
            yield FieldViolation(f"{place}.name", "use lower-case letters, digits and -, such as office-hours")
        if condition.name in seen:
            yield FieldViolation(f"{place}.name", "another condition has this name")
        seen.add(condition.name)
        for field, what in _test(condition):
            yield FieldViolation(f"{place}.{condition.test.kind}{field}", what)


def _test(condition: NamedCondition) -> Iterator[tuple[str, str]]:
    test = condition.test
    if isinstance(test, TimeOfDay):
        yield from _time_of_day(test)
    elif isinstance(test, DateWindow):
        if not (test.start or test.end) or (test.end and test.end <= test.start):
            yield "", "give a start, an end after it, or both"
    elif isinstance(test, Network):
        yield from _network(test)
    elif isinstance(test, SecondFactorAge):
        if not 1 <= test.seconds <= DAY_SECONDS:
            yield ".max_age", f"use 1 to {DAY_SECONDS} seconds"
    elif isinstance(test, DevicePosture):
        if not CLAIM.fullmatch(test.claim):
            yield ".claim", "use lower-case letters, digits and _"
        if not test.values or not all(test.values):
            yield ".values", "give one value at least, none of them empty"
    else:
        yield from _record(test, condition.negated)


def _time_of_day(test: TimeOfDay) -> Iterator[tuple[str, str]]:
    try:
        ZoneInfo(test.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield ".time_zone", "name a zone of the IANA database, such as Asia/Shanghai"
    try:
        start, end = minutes(test.start), minutes(test.end)
    except ValueError:
        yield "", "write start and end as HH:MM"
        return
    if start == end or start == 24 * 60:
        yield "", "start and end are the same moment"
    if len(set(test.weekdays)) < len(test.weekdays) or not all(1 <= day <= 7 for day in test.weekdays):
        yield ".weekdays", "use 1 (Monday) to 7 (Sunday), each once"


def _network(test: Network) -> Iterator[tuple[str, str]]:
    if not test.ranges:
        yield ".ranges", "give one range at least"
    for position, text in enumerate(test.ranges):
        try:
            found = ip_network(text)
        except ValueError:
            yield f".ranges[{position}]", "write a range such as 10.20.0.0/16, its host bits zero"
            continue
        if found.prefixlen == 0:
            yield f".ranges[{position}]", "this is every address: leave the condition out"


def _record(test: RecordAttribute, negated: bool) -> Iterator[tuple[str, str]]:
    if negated:
        yield "", "write a rule that denies: what a record lacks cannot be turned around"
    if not FIELD_NAME.fullmatch(test.field):
        yield ".field", "write a field name in lower case"
    yield from _values(test.values)


def _values(values: Sequence[str]) -> Iterator[tuple[str, str]]:
    if not values or not all(values):
        yield ".values", "give one value at least, none of them empty"
    if any(value.startswith("$") and value not in (*CALLERS_OWN, SHARED) for value in values):
        yield ".values", f"of the caller's own there are {', '.join(CALLERS_OWN)}, {SHARED}"
    if SHARED in values and len(values) > 1:
        yield ".values", f"{SHARED} stands alone: unite it with others by another rule or role"


def rule_condition_faults(
    place: str,
    names: Sequence[str],
    resource: str,
    effect: str,
    known: Mapping[str, NamedCondition],
    inventory: Inventory,
) -> Iterator[FieldViolation]:
    """Yield every fault of the conditions that one rule names."""
    if len(set(names)) < len(names):
        yield FieldViolation(f"{place}.conditions", "name each condition once")
    records = []
    for position, name in enumerate(names):
        if name not in known:
            yield FieldViolation(f"{place}.conditions[{position}]", "the policy defines no condition of this name")
        elif isinstance(test := known[name].test, RecordAttribute):
            records.append(test)
            yield from row_field_faults(f"{place}.conditions[{position}]", resource, test.field, inventory)
            yield from shared_faults(f"{place}.conditions[{position}]", resource, test.field, test.values)
            if effect == "deny" and SHARED in test.values:
                yield FieldViolation(f"{place}.conditions[{position}]", f"a rule that denies cannot use {SHARED}")
    if effect == "deny" and len(records) > 1:
        yield FieldViolation(
            f"{place}.conditions", "a rule that denies takes one condition on records: write two rules"
        )


def row_field_faults(place: str, resource: str, field: str, inventory: Inventory) -> Iterator[FieldViolation]:
    """Yield a fault when no method of a resource can narrow by a field."""
    if not FIELD_NAME.fullmatch(field):
        yield FieldViolation(place, "write a field name in lower case")
    elif not {field, "*"} & (offered := inventory.rows.get(resource, frozenset())):
        what = f"no method narrows by it: use {', '.join(sorted(offered)) or 'another resource'}"
        yield FieldViolation(place, what)


def shared_faults(place: str, resource: str, field: str, values: Sequence[str]) -> Iterator[FieldViolation]:
    """Yield a fault when what is lent stands for anything but the ids of records of that kind."""
    if SHARED in values and LENT_BY.get(resource) != field:
        kinds = " or ".join(f"{name} of {kind}" for kind, name in LENT_BY.items())
        yield FieldViolation(place, f"{SHARED} stands for the {kinds}")


def row_value_faults(place: str, values: Sequence[str]) -> Iterator[FieldViolation]:
    """Yield every fault of the values of a row filter."""
    for field, what in _values(values):
        yield FieldViolation(place + field, what)


def organization_faults(content: Content) -> Iterator[FieldViolation]:
    """Yield every fault of departments and teams."""
    parents = dict(content.departments)
    if len(parents) < len(content.departments):
        yield FieldViolation("departments", "name each department once")
    for position, (name, parent) in enumerate(content.departments):
        place = f"departments[{position}]"
        if not DEPARTMENT.fullmatch(name):
            yield FieldViolation(f"{place}.name", "use lower-case letters and -")
        if parent and parent not in parents:
            yield FieldViolation(f"{place}.parent", "no department has this name")
        elif _is_too_deep(name, parents):
            yield FieldViolation(f"{place}.parent", f"{DEPARTMENT_DEPTH} levels at most, no circle")
    seen: set[str] = set()
    for position, (name, members) in enumerate(content.teams):
        place = f"teams[{position}]"
        if not CONDITION.fullmatch(name) or name in seen:
            yield FieldViolation(f"{place}.name", "use lower-case letters, digits and -; name each team once")
        seen.add(name)
        if not members or not all(MEMBER.fullmatch(member) for member in members):
            yield FieldViolation(f"{place}.members", "name people and apps, one at least: user:… or app:…")


def _is_too_deep(name: str, parents: Mapping[str, str]) -> bool:
    for _ in range(DEPARTMENT_DEPTH):
        name = parents.get(name, "")
        if not name:
            return False
    return True
