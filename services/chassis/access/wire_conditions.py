"""Conditions, departments and teams as protobuf messages, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.access.v1 import conditions_pb2 as pb

from services.chassis.access.conditions import (
    DateWindow,
    DevicePosture,
    NamedCondition,
    Network,
    RecordAttribute,
    SecondFactorAge,
    Test,
    TimeOfDay,
)
from services.chassis.access.reach import Organization
from services.chassis.errors import Invalid
from services.chassis.times import timestamp

Departments = tuple[tuple[str, str], ...]  # name, parent
Teams = tuple[tuple[str, tuple[str, ...]], ...]  # name, members


def condition_message(condition: NamedCondition) -> pb.PolicyCondition:
    """Return a condition as a message."""
    found = pb.PolicyCondition(name=condition.name, negated=condition.negated, description=condition.description)
    test = condition.test
    if isinstance(test, TimeOfDay):
        found.time_of_day.CopyFrom(
            pb.TimeOfDay(time_zone=test.time_zone, start=test.start, end=test.end, weekdays=test.weekdays)
        )
    elif isinstance(test, DateWindow):
        window = pb.DateWindow(start_time=when(test.start), end_time=when(test.end))
        found.date_window.CopyFrom(window)
    elif isinstance(test, Network):
        found.network.CopyFrom(pb.Network(ranges=test.ranges))
    elif isinstance(test, SecondFactorAge):
        found.second_factor_age.CopyFrom(pb.SecondFactorAge(max_age=Duration(seconds=test.seconds)))
    elif isinstance(test, DevicePosture):
        found.device_posture.CopyFrom(pb.DevicePosture(claim=test.claim, values=test.values))
    else:
        found.record_attribute.CopyFrom(pb.RecordAttribute(field=test.field, values=test.values))
    return found


def condition_of(message: pb.PolicyCondition) -> NamedCondition:
    """Return the condition of a message.

    Raises:
        Invalid: it has no test this version knows.
    """
    return NamedCondition(message.name, _test(message), message.negated, message.description)


def _test(message: pb.PolicyCondition) -> Test | RecordAttribute:
    kind = message.WhichOneof("test")
    if kind == "time_of_day":
        day = message.time_of_day
        return TimeOfDay(day.time_zone, day.start, day.end, tuple(day.weekdays))
    if kind == "date_window":
        window = message.date_window
        start = seconds(window.start_time) if window.HasField("start_time") else 0
        return DateWindow(start, seconds(window.end_time) if window.HasField("end_time") else 0)
    if kind == "network":
        return Network(tuple(message.network.ranges))
    if kind == "second_factor_age":
        return SecondFactorAge(message.second_factor_age.max_age.seconds)
    if kind == "device_posture":
        return DevicePosture(message.device_posture.claim, tuple(message.device_posture.values))
    if kind == "record_attribute":
        return RecordAttribute(message.record_attribute.field, tuple(message.record_attribute.values))
    raise Invalid("give each condition one test", violations=[])


def seconds(time: Timestamp) -> float:
    """Return seconds since 1970."""
    return time.seconds + time.nanos / 1e9


def when(moment: float) -> Timestamp | None:
    """Return a moment, seconds since 1970, as a message; None for 0."""
    return timestamp(datetime.fromtimestamp(moment, UTC)) if moment else None


def organization_of(departments: Iterable[pb.Department], teams: Iterable[pb.Team]) -> Organization:
    """Return the organization of messages."""
    return organization(
        tuple((each.name, each.parent) for each in departments),
        tuple((each.name, tuple(each.members)) for each in teams),
    )


def organization(departments: Departments, teams: Teams) -> Organization:
    """Return the organization of a policy's departments and teams."""
    parents: Mapping[str, str] = dict(departments)
    return Organization(parents, tuple(frozenset(members) for _, members in teams))
