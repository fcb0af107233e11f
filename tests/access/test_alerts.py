"""Rules over the trail: what raises an alert, what does not, and how an alert is closed."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kehu.access.v1 import alerts_pb2 as pb

from services.access.domain.anomalies import DEFAULTS, WINDOW, Alert, Rule, Seen
from services.access.domain.anomalies import alerts as found_in
from services.access.sentinel import LAG, Sentinel
from services.access.store.alerts import AlertRecord, Alerts, MemoryAlerts, MongoAlerts
from services.chassis import records
from services.chassis.audit import AuditEntry
from services.chassis.errors import AlreadyExists, Conflict
from tests.access.stores import BOTH, emptied
from tests.access.world import START, World, new_world, running_world
from tests.harness import bad_fields, refused

NOON = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)  # 12:00 in Shanghai
NIGHT = datetime(2026, 11, 21, 15, 30, tzinfo=UTC)  # 23:30
AUDITOR = "user:rita@administration"


@pytest.fixture(params=BOTH)
def store(request: pytest.FixtureRequest) -> Iterator[Alerts]:
    if request.param == "memory":
        yield MemoryAlerts()
        return
    with emptied(request, "audit_alerts", "audit_rules", "audit_watch"):
        records.ensure_indexes([AlertRecord])
        yield MongoAlerts()


def alert(number: int, at: datetime = START) -> Alert:
    id, seen = f"{number:032x}", ("auditEntries/1-0",)
    return Alert(id, "bulk-reads", 0, "user:ann", "service", at, 700, "700 customers", seen)


def read(world: World, at: datetime, who: str = "user:ann", *profiles: str, **values: Any) -> None:
    entry = AuditEntry.of(
        now=at,
        **{
            "service": "profiles", "subject": who, "department": "service", "outcome": "allowed",
            "purpose": "service", "shown": ("personal/name",), **values, "profiles": profiles or ("p1",),
        },
    )  # fmt: skip
    world.context.chain.append(f"b-{entry.entry_id}", [entry])


def watched(world: World, start: datetime, rules: tuple[Rule, ...] = ()) -> list[Alert]:
    """Return the alerts of the ten minutes from a time on."""
    store = MemoryAlerts()
    for rule in rules:
        store.revise(replace(rule, version=1))
    sentinel = Sentinel(world.context.chain.blocks, store)
    sentinel.look(start)
    sentinel.look(start + WINDOW + LAG)
    return store.page("", None, 1000)


def test_reads_at_night_raise_one_alert_a_night_and_those_by_day_none() -> None:
    world = new_world()
    for minute in range(6):
        read(world, NOON + timedelta(minutes=minute), "user:ann", f"d{minute % 2}")
        read(world, NIGHT + timedelta(minutes=minute), "user:ann", f"n{minute % 2}")
        read(world, NIGHT + timedelta(minutes=minute), "app:shop", f"n{minute % 2}")
    found = watched(world, NIGHT)

    assert watched(world, NOON) == []
    assert [(a.rule, a.subject, a.count, a.detail) for a in found] == [("night-reads", "user:ann", 6, "2026-11-21")]
    assert len(found[0].examples) == 6


class _NoPast:
    """A trail with nothing before the window."""

    def used(self, *_: object) -> bool:
        return False

    def shown_to(self, *_: object) -> list[Seen]:
        return []


def busy(reads: int) -> Iterator[Seen]:
    """Yield the reads of one app within ten minutes, the newest first, those of ten at a time the wrong way round."""
    for number in range(reads):
        at = NIGHT + WINDOW * (1 - (number - number % 10 + 9 - number % 10) / reads)
        entry = AuditEntry.of(
            now=at, service="profiles", subject="app:shop", department="sales", outcome="allowed", purpose="service",
            shown=("personal/name",), profiles=(f"{number * 37 % 97:08}",),
        )  # fmt: skip
        yield Seen(f"auditEntries/{number}-0", entry)


def peak_of(reads: int) -> int:
    tracemalloc.start()
    try:
        assert found_in(DEFAULTS, busy(reads), NIGHT, _NoPast()) == []
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_is_held_of_a_busy_window_does_not_grow_with_its_entries() -> None:
    assert peak_of(60_000) < 1.5 * peak_of(20_000)


def test_a_few_reads_in_each_ten_minutes_of_a_night_are_an_alert_once() -> None:
    world, store = new_world(), MemoryAlerts()
    for number in range(36):
        for second in range(2):
            read(world, NIGHT + number * WINDOW + timedelta(seconds=second), "user:ann", f"n{second}")
    sentinel = Sentinel(world.context.chain.blocks, store)
    sentinel.look(NIGHT)
    for number in range(1, 37):
        sentinel.look(NIGHT + number * WINDOW + LAG)

    assert [(a.rule, a.subject, a.count, a.detail) for a in store.page("", None, 1000)] == [
        ("night-reads", "user:ann", 6, "2026-11-21")
    ]


def test_four_reads_at_night_are_below_the_threshold_and_what_told_nothing_does_not_count() -> None:
    world = new_world()
    for minute in range(4):
        read(world, NIGHT + timedelta(minutes=minute))
    for minute in range(4):
        read(world, NIGHT + timedelta(minutes=minute), shown=())
        read(world, NIGHT + timedelta(minutes=minute), outcome="denied")

    assert watched(world, NIGHT) == []


def test_many_customers_within_ten_minutes_raise_an_alert_and_the_same_one_often_none() -> None:
    world, rule = new_world(), replace(DEFAULTS[1], threshold=40)
    for number in range(4):
        read(world, NOON + timedelta(minutes=number), "user:ann", *(f"p{number}-{n}" for n in range(10)))
        read(world, NOON + timedelta(minutes=number), "user:ben", *(f"p{n}" for n in range(10)))

    found = watched(world, NOON, (rule,))

    assert [(a.rule, a.subject, a.count) for a in found] == [("bulk-reads", "user:ann", 40)]


def test_reads_in_the_order_of_ids_raise_an_alert_and_the_same_in_another_order_none() -> None:
    world, rnd = new_world(), random.Random(3)
    ids = [f"{rnd.getrandbits(128):032x}" for _ in range(40)]
    for number, (plain, ordered) in enumerate(zip(ids, sorted(ids), strict=True)):
        read(world, NOON + timedelta(seconds=number), "user:ann", plain)
        read(world, NOON + timedelta(seconds=number), "app:scraper", ordered)

    found = watched(world, NOON)

    assert [(a.rule, a.subject, a.count) for a in found] == [("reads-in-order", "app:scraper", 40)]


def test_the_first_use_of_a_group_or_purpose_raises_an_alert_unless_somebody_is_new() -> None:
    world = new_world()
    read(world, NOON - timedelta(days=120), "user:ann")
    read(world, NOON - timedelta(days=5), "user:ann")
    sensitive = {"shown": ("sensitive/document",), "purpose": "marketing"}
    read(world, NOON, "user:ann", "p1", **sensitive)
    read(world, NOON, "user:new", "p1", **sensitive)
    read(world, NOON + WINDOW, "user:ann", "p2", **sensitive)

    details = {(a.subject, a.detail) for a in watched(world, NOON)}

    assert details == {("user:ann", "group sensitive/document"), ("user:ann", "purpose marketing")}
    assert watched(world, NOON + WINDOW) == [], "the second use is not the first"


def test_a_window_is_watched_once_by_however_many_processes() -> None:
    world, store = new_world(), MemoryAlerts()
    sentinels = [Sentinel(world.context.chain.blocks, store) for _ in range(3)]
    sentinels[0].look(NIGHT)
    for minute in range(6):
        read(world, NIGHT + timedelta(minutes=minute))

    assert sum(sentinel.look(NIGHT + WINDOW + LAG) for sentinel in sentinels) == 1
    assert store.cursor() == NIGHT + WINDOW


def test_a_window_waits_for_what_is_still_under_way() -> None:
    world, store = new_world(), MemoryAlerts()
    sentinel = Sentinel(world.context.chain.blocks, store)
    sentinel.look(NOON)
    sentinel.look(NOON + WINDOW + LAG - timedelta(seconds=1))

    assert store.cursor() == NOON


def test_alerts_come_back_by_state_newest_first_and_change_by_compare_and_set(store: Alerts) -> None:
    for number in range(6):
        assert store.add(alert(number, START + WINDOW * (number // 2)))
    assert not store.add(alert(3, START + WINDOW))
    known = store.get(alert(4).id)
    assert known is not None
    taken = store.save(replace(known, state="acknowledged", assignee="user:rita"))

    assert [a.id[-1] for a in store.page("", None, 3)] == ["5", "4", "3"]
    assert [a.id[-1] for a in store.page("", (START + WINDOW, alert(3).id), 3)] == ["2", "1", "0"]
    assert store.page("acknowledged", None, 10) == [taken] == [store.get(known.id)]
    with pytest.raises(Conflict):
        store.save(replace(known, state="closed"))


def test_a_version_of_a_rule_is_taken_once_and_the_newest_counts(store: Alerts) -> None:
    first = replace(DEFAULTS[0], version=1, threshold=9)
    store.revise(first)
    store.revise(replace(first, version=2, enabled=False))

    with pytest.raises(AlreadyExists):
        store.revise(first)
    assert [(rule.id, rule.version) for rule in store.rules() if rule.version] == [("night-reads", 2)]
    assert len(store.rules()) == len(DEFAULTS)


def test_the_cursor_moves_for_the_first_who_saw_it(store: Alerts) -> None:
    store.advance(None, START)
    store.advance(None, START + WINDOW * 5)
    store.advance(START, START + WINDOW)
    store.advance(START, START + WINDOW * 9)

    assert store.cursor() == START + WINDOW


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as found:
        yield found


def test_an_alert_is_acknowledged_then_closed_with_a_finding(world: World) -> None:
    world.context.alerts.add(alert(1))
    stub = world.stub(AUDITOR)
    (listed,) = stub.ListAuditAlerts(pb.ListAuditAlertsRequest(state="open"), timeout=5).audit_alerts
    close = pb.CloseAuditAlertRequest(alert_id=alert(1).id, finding="justified", comment="an audit of the branch")

    assert refused(lambda: stub.CloseAuditAlert(close, timeout=5)).reason == "STATE_FORBIDS"
    stub.AcknowledgeAuditAlert(pb.AcknowledgeAuditAlertRequest(alert_id=alert(1).id), timeout=5)
    found = stub.CloseAuditAlert(close, timeout=5)

    assert (listed.name, listed.count) == (f"auditAlerts/{alert(1).id}", 700)
    assert (found.state, found.finding, found.assignee) == ("closed", "justified", "user:rita")
    assert not stub.ListAuditAlerts(pb.ListAuditAlertsRequest(state="open"), timeout=5).audit_alerts
    again = pb.AcknowledgeAuditAlertRequest(alert_id=alert(1).id)
    assert refused(lambda: stub.AcknowledgeAuditAlert(again, timeout=5)).reason == "STATE_FORBIDS"


def test_nobody_judges_an_alert_about_themselves(world: World) -> None:
    world.context.alerts.add(alert(1))
    request = pb.AcknowledgeAuditAlertRequest(alert_id=alert(1).id)
    stub = world.stub("user:ann@administration")

    assert refused(lambda: stub.AcknowledgeAuditAlert(request, timeout=5)).reason == "PERMISSION_DENIED"


def test_a_rule_is_revised_by_whoever_knows_its_version(world: World) -> None:
    stub = world.stub(AUDITOR)
    rules = {rule.rule_id: rule for rule in stub.ListAuditRules(pb.ListAuditRulesRequest(), timeout=5).audit_rules}
    wanted = rules["night-reads"]
    wanted.threshold = 2
    request = pb.ReviseAuditRuleRequest(rule_id="night-reads", audit_rule=wanted)

    revised = stub.ReviseAuditRule(request, timeout=5)

    assert (revised.version, revised.threshold, revised.kind, revised.author) == (1, 2, "night", "user:rita")
    assert refused(lambda: stub.ReviseAuditRule(request, timeout=5)).reason == "ETAG_MISMATCH"
    request.audit_rule.time_zone, request.audit_rule.version = "Mars/Phobos", 1
    assert bad_fields(lambda: stub.ReviseAuditRule(request, timeout=5)) == ["audit_rule.time_zone"]
    request.rule_id = "no-such"
    assert refused(lambda: stub.ReviseAuditRule(request, timeout=5)).reason == "NOT_FOUND"
