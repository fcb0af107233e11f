"""Rules over the trail that raise alerts: reads at night, in bulk, in the order of ids, the first use of something."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict, deque
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
SORTED_AT_ONCE = 5_000  # entries that may lie between two of one subject that are kept the wrong way round
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


class Tally:
    """How often something was seen, and the first names of it; what is seen comes newest first."""

    def __init__(self) -> None:
        self.count, self.department = 0, ""
        self._names: deque[str] = deque(maxlen=EXAMPLES)

    def add(self, seen: Seen) -> None:
        """Count what was earlier than all before."""
        self.count, self.department = self.count + 1, seen.entry.department
        self._names.appendleft(seen.name)

    @property
    def examples(self) -> tuple[str, ...]:
        """The names of the earliest."""
        return tuple(self._names)


class Finder(Protocol):
    """What a rule keeps of one subject's window: counts and a few names, however many the entries."""

    def see(self, seen: Seen) -> None:
        """Take in an entry, each earlier than the one before."""

    def found(self, subject: str, start: datetime, past: Past) -> Iterable[Alert]:
        """Return the alerts."""


def alerts(rules: Iterable[Rule], window: Iterable[Seen], start: datetime, past: Past) -> list[Alert]:
    """Return what the rules find in a window that comes newest first; the same window gives the same alerts."""
    used = [rule for rule in rules if rule.enabled]
    finders: dict[str, list[Finder]] = {}
    for seen in _newest_first(seen for seen in window if has_shown(seen.entry)):
        subject = seen.entry.subject
        if subject not in finders:
            kind = subject.partition(":")[0]
            finders[subject] = [
                _FINDERS[rule.kind](rule)
                for rule in used
                if kind in ((rule.callers,) if rule.callers else ("user", "app"))
            ]
        for finder in finders[subject]:
            finder.see(seen)
    return [
        alert
        for subject, own in sorted(finders.items())
        for finder in own
        for alert in finder.found(subject, start, past)
    ]


def _newest_first(window: Iterable[Seen]) -> Iterator[Seen]:
    """Yield entries newest first, of which services that write at one time keep theirs in blocks of their own."""
    waiting: list[tuple[float, int, Seen]] = []
    for number, seen in enumerate(window):
        heapq.heappush(waiting, (-time_of(seen.entry).timestamp(), number, seen))
        if len(waiting) > SORTED_AT_ONCE:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def has_shown(entry: AuditEntry) -> bool:
    """Tell whether an entry is of data that somebody was shown, masked or not."""
    return entry.outcome == "allowed" and bool(entry.shown or entry.masked)


def _alert(rule: Rule, subject: str, tally: Tally, bucket: str, start: datetime, detail: str = "") -> Alert:
    id = hashlib.sha256(repr((rule.id, subject, bucket)).encode()).hexdigest()[:32]
    return Alert(id, rule.id, rule.version, subject, tally.department, start, tally.count, detail, tally.examples)


class _Night:
    """What was read earlier that night counts too."""

    def __init__(self, rule: Rule) -> None:
        self._rule, self._zone = rule, ZoneInfo(rule.time_zone)
        self._nights: dict[str, Tally] = defaultdict(Tally)

    def see(self, seen: Seen) -> None:
        rule, local = self._rule, time_of(seen.entry).astimezone(self._zone)
        if _within(local.hour, rule.from_hour, rule.to_hour):
            evening = local - timedelta(hours=rule.to_hour if rule.from_hour > rule.to_hour else 0)
            self._nights[evening.date().isoformat()].add(seen)

    def found(self, subject: str, start: datetime, past: Past) -> Iterator[Alert]:
        rule = self._rule
        for night, reads in sorted(self._nights.items()):
            evening = datetime.combine(date.fromisoformat(night), time(rule.from_hour), self._zone)
            before = past.shown_to(subject, evening, start, rule.threshold) if evening < start else []
            for seen in reversed(before):
                reads.add(seen)
            if reads.count >= rule.threshold:
                yield _alert(rule, subject, reads, night, start, night)


def _within(hour: int, first: int, until: int) -> bool:
    return first <= hour < until if first <= until else hour >= first or hour < until


class _Bulk:
    """Of a customer a hash is kept: there may be a million of them."""

    def __init__(self, rule: Rule) -> None:
        self._rule, self._reads, self._people = rule, Tally(), set[int]()

    def see(self, seen: Seen) -> None:
        self._reads.add(seen)
        self._people.update(map(hash, seen.entry.profiles))

    def found(self, subject: str, start: datetime, past: Past) -> Iterator[Alert]:
        people = len(self._people)
        if people >= self._rule.threshold:
            found = _alert(self._rule, subject, self._reads, start.isoformat(), start, f"{people} customers")
            yield replace(found, count=people)


class _Order:
    """Ids are random: reads of living cases come in no order; thirty in a row ascend by chance once in 30! times."""

    def __init__(self, rule: Rule) -> None:
        self._rule, self._later = rule, ""
        self._run = self._longest = Tally()

    def see(self, seen: Seen) -> None:
        profiles = seen.entry.profiles
        if len(profiles) != 1 or profiles[0] == self._later:
            return
        if profiles[0] > self._later:  # it was read before, and does not ascend to what was read next
            self._run = Tally()
        self._run.add(seen)
        self._later = profiles[0]
        if self._run.count >= self._longest.count:
            self._longest = self._run

    def found(self, subject: str, start: datetime, past: Past) -> Iterator[Alert]:
        if self._longest.count >= self._rule.threshold:
            yield _alert(self._rule, subject, self._longest, start.isoformat(), start)


class _First:
    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._values: dict[tuple[str, str], Tally] = defaultdict(Tally)

    def see(self, seen: Seen) -> None:
        entry, wanted = seen.entry, self._rule.groups
        if entry.purpose:
            self._values["purpose", entry.purpose].add(seen)
        for group in (*entry.shown, *entry.masked):
            if not wanted or group in wanted:
                self._values["group", group].add(seen)

    def found(self, subject: str, start: datetime, past: Past) -> Iterator[Alert]:
        since = start - timedelta(days=self._rule.days)
        if not past.used(subject, "", "", since - timedelta(days=3650), since):
            return  # somebody new uses everything for the first time
        for (name, value), uses in sorted(self._values.items()):
            if not past.used(subject, name, value, since, start):
                yield _alert(self._rule, subject, uses, f"{name} {value} {start.isoformat()}", start, f"{name} {value}")


_FINDERS: dict[str, Callable[[Rule], Finder]] = {"night": _Night, "bulk": _Bulk, "order": _Order, "first": _First}


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
