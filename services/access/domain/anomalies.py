"""Rules over the trail that raise alerts: reads at night, in bulk, in the order of ids, the first use of something."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Literal, Protocol, get_args
from zoneinfo import ZoneInfo

from services.access.domain.trail import time_of
from services.chassis.audit import AuditEntry
from services.chassis.errors import Denied, NotAllowed

Kind = Literal["night", "bulk", "order", "first"]
KINDS: tuple[str, ...] = get_args(Kind)
WINDOW = timedelta(minutes=10)  # what is counted together
EXAMPLES = 10
OPEN, ACKNOWLEDGED, CLOSED = "open", "acknowledged", "closed"
FINDINGS = ("justified", "mistaken", "misuse")


@dataclass(frozen=True, slots=True)
class Rule:
    """One version of a rule; versions are never changed.

    night: a person was shown personal data `threshold` times between the hours. bulk: of `threshold` customers within
    ten minutes. order: of `threshold` single customers one after the other in the order of their ids. first: one of
    `groups`, or a purpose, not used by them in the `days` before, by somebody at work for longer than that.
    `callers` is user, app, or empty for both; hours are of `time_zone`.
    """

    id: str
    kind: Kind
    version: int = 1
    enabled: bool = True
    threshold: int = 1
    callers: str = ""
    from_hour: int = 22
    to_hour: int = 6
    time_zone: str = "Asia/Shanghai"
    groups: tuple[str, ...] = ()
    days: int = 90
    author: str = ""


DEFAULTS = (
    Rule("night-reads", "night", threshold=5, callers="user"),
    Rule("bulk-reads", "bulk", threshold=500, callers="user"),
    Rule("bulk-reads-of-apps", "bulk", threshold=20_000, callers="app"),
    Rule("reads-in-order", "order", threshold=30),
    Rule("first-use", "first", groups=("sensitive/document",)),
)


@dataclass(frozen=True, slots=True)
class Alert:
    """What a rule found: open, then acknowledged by somebody, then closed with a finding."""

    id: str
    rule: str
    rule_version: int
    subject: str
    department: str
    time: datetime
    count: int
    detail: str
    examples: tuple[str, ...]
    state: str = OPEN
    assignee: str = ""
    finding: str = ""
    comment: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry of the window, and its name."""

    name: str
    entry: AuditEntry


class Past(Protocol):
    """What the trail has of before a window."""

    def used(self, subject: str, name: str, value: str, since: datetime, until: datetime) -> bool:
        """Tell whether a subject has an entry in a period, with a value when `name` is given."""

    def shown_to(self, subject: str, since: datetime, until: datetime, most: int) -> list[Seen]:
        """Return the entries of a period that showed a subject something, at most so many."""


def alerts(rules: Iterable[Rule], window: Iterable[Seen], start: datetime, past: Past) -> list[Alert]:
    """Return what the rules find in a window; the same window gives the same alerts."""
    by_subject: dict[str, list[Seen]] = defaultdict(list)
    for seen in window:
        if has_shown(seen.entry):
            by_subject[seen.entry.subject].append(seen)
    found = []
    for subject, entries in sorted(by_subject.items()):
        entries.sort(key=lambda seen: seen.entry.time)
        for rule in rules:
            if rule.enabled and subject.partition(":")[0] in ((rule.callers,) if rule.callers else ("user", "app")):
                found += list(_FINDERS[rule.kind](rule, subject, entries, start, past))
    return found


def has_shown(entry: AuditEntry) -> bool:
    """Tell whether an entry is of data that somebody was shown, masked or not."""
    return entry.outcome == "allowed" and bool(entry.shown or entry.masked)


def _alert(rule: Rule, subject: str, entries: list[Seen], bucket: str, start: datetime, detail: str = "") -> Alert:
    id = hashlib.sha256(repr((rule.id, subject, bucket)).encode()).hexdigest()[:32]
    examples = tuple(seen.name for seen in entries[:EXAMPLES])
    department = entries[0].entry.department
    return Alert(id, rule.id, rule.version, subject, department, start, len(entries), detail, examples)


def _night(rule: Rule, subject: str, entries: list[Seen], start: datetime, past: Past) -> Iterator[Alert]:
    """What was read earlier that night counts too."""
    zone = ZoneInfo(rule.time_zone)
    nights: dict[str, list[Seen]] = defaultdict(list)
    for seen in entries:
        local = time_of(seen.entry).astimezone(zone)
        if _within(local.hour, rule.from_hour, rule.to_hour):
            evening = local - timedelta(hours=rule.to_hour if rule.from_hour > rule.to_hour else 0)
            nights[evening.date().isoformat()].append(seen)
    for night, reads in nights.items():
        evening = datetime.combine(date.fromisoformat(night), time(rule.from_hour), zone)
        before = past.shown_to(subject, evening, start, rule.threshold) if evening < start else []
        if len(before) + len(reads) >= rule.threshold:
            yield _alert(rule, subject, [*before, *reads], night, start, night)


def _within(hour: int, first: int, until: int) -> bool:
    return first <= hour < until if first <= until else hour >= first or hour < until


def _bulk(rule: Rule, subject: str, entries: list[Seen], start: datetime, past: Past) -> Iterator[Alert]:
    people = {profile for seen in entries for profile in seen.entry.profiles}
    if len(people) >= rule.threshold:
        found = _alert(rule, subject, entries, start.isoformat(), start, f"{len(people)} customers")
        yield replace(found, count=len(people))


def _order(rule: Rule, subject: str, entries: list[Seen], start: datetime, past: Past) -> Iterator[Alert]:
    """Ids are random: reads of living cases come in no order; thirty in a row ascend by chance once in 30! times."""
    single = [seen for seen in entries if len(seen.entry.profiles) == 1]
    run: list[Seen] = []
    longest: list[Seen] = []
    for seen in single:
        profile = seen.entry.profiles[0]
        before = run[-1].entry.profiles[0] if run else ""
        if profile == before:
            continue
        if profile > before:
            run.append(seen)
        else:
            run = [seen]
        longest = run if len(run) > len(longest) else longest
    if len(longest) >= rule.threshold:
        yield _alert(rule, subject, longest, start.isoformat(), start)


def _first(rule: Rule, subject: str, entries: list[Seen], start: datetime, past: Past) -> Iterator[Alert]:
    since = start - timedelta(days=rule.days)
    if not past.used(subject, "", "", since - timedelta(days=3650), since):
        return  # somebody new uses everything for the first time
    values: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for seen in entries:
        if seen.entry.purpose:
            values["purpose", seen.entry.purpose].append(seen)
        for group in (*seen.entry.shown, *seen.entry.masked):
            if not rule.groups or group in rule.groups:
                values["group", group].append(seen)
    for (name, value), uses in sorted(values.items()):
        if not past.used(subject, name, value, since, start):
            yield _alert(rule, subject, uses, f"{name} {value} {start.isoformat()}", start, f"{name} {value}")


_FINDERS: dict[str, Callable[[Rule, str, list[Seen], datetime, Past], Iterator[Alert]]] = {
    "night": _night, "bulk": _bulk, "order": _order, "first": _first,
}  # fmt: skip


def acknowledged(alert: Alert, by: str) -> Alert:
    """Return the alert as somebody's task.

    Raises:
        Denied: it is about them.
        NotAllowed: it is closed.
    """
    _refuse_own(alert, by)
    if alert.state == CLOSED:
        raise NotAllowed("The alert is closed.", metadata={"state": alert.state})
    return replace(alert, state=ACKNOWLEDGED, assignee=by)


def closed(alert: Alert, by: str, finding: str, comment: str) -> Alert:
    """Return the alert with what was found.

    Raises:
        Denied: it is about them.
        NotAllowed: nobody acknowledged it yet, or it is closed.
    """
    _refuse_own(alert, by)
    if alert.state != ACKNOWLEDGED:
        raise NotAllowed("Acknowledge the alert first; a closed one stays closed.", metadata={"state": alert.state})
    return replace(alert, state=CLOSED, assignee=by, finding=finding, comment=comment)


def _refuse_own(alert: Alert, by: str) -> None:
    if alert.subject == by:
        raise Denied("Nobody judges an alert about themselves.")
