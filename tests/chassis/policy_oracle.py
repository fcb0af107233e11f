"""The rule language once more, as docs/policy.md tells it, in few words and with no thought of speed."""

from __future__ import annotations

from collections import namedtuple
from ipaddress import ip_address, ip_network
from typing import Any

DEPTH = 9
# who asks for what, when, from where; the record looked at, None for none
Request = namedtuple(
    "Request", "subject department resource action purpose now address device factor record", defaults=(None,)
)


def holds(condition: dict[str, Any], asked: Request) -> bool | None:
    """Say whether one condition holds, None when nobody knows."""
    kind, value, found = condition["kind"], condition["value"], None
    if kind == "window":
        found = value[0] <= asked.now < value[1]
    elif kind == "network" and asked.address is not None:
        found = ip_address(asked.address) in ip_network(value)
    elif kind == "device" and value[0] in asked.device:
        found = asked.device[value[0]] == value[1]
    elif kind == "factor" and asked.factor is not None:
        found = asked.now - asked.factor <= value
    elif kind == "record" and (asked.record is None or asked.record[value[0]]):
        own = [asked.subject if each == "$subject" else each for each in value[1]]
        found = asked.record is None or asked.record[value[0]] in own
    return found if found is None or not condition.get("negated") else not found


def paths(policy: dict[str, Any], asked: Request) -> list[list[str]]:
    """Return every way from the subject through its roles of now, nine steps at most."""
    found = edge = [[asked.subject]]
    for _ in range(DEPTH):
        edge = [
            [*way, role]
            for way in edge
            for member, role, department, start, end in policy["links"]
            if (member, department) == (way[-1], asked.department) and start <= asked.now < end and role not in way
        ]
        found = found + edge
    return found


def allowed(policy: dict[str, Any], asked: Request) -> bool:
    """Say whether the request is allowed, or, with a record, whether this record is in reach."""
    ways, granted = paths(policy, asked), []
    for subject, department, resource, action, purpose, effect, names in policy["rules"]:
        wanted = ((department, asked.department), (action, asked.action), (purpose, asked.purpose))
        here = [way for way in ways if way[-1] == subject]
        if not here or resource != asked.resource or any(rule not in ("*", given) for rule, given in wanted):
            continue
        answers = [holds(policy["conditions"][name], asked) for name in names]
        some = asked.record is None and any(policy["conditions"][name]["kind"] == "record" for name in names)
        if effect == "deny" and False not in answers and not some:
            return False
        granted += here if effect == "allow" and all(answer is True for answer in answers) else []
    filters = [item for item in policy["filters"] if asked.record is not None]
    return any(all(asked.record[field] in values for name, field, values in filters if name in way) for way in granted)
