"""Measured quality: exact against a count made another way, the same wherever it is cut; incidents by measurement."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kehu.profiles.v1 import validation_pb2

from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.jobs import Owner
from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.documents import record_of
from services.profiles.domain.incidents import Incident, Judgement, acknowledged
from services.profiles.intake.checks import validation_rules
from services.profiles.quality import tally as tallies
from services.profiles.quality.concluding import all_incidents, incident_id, judge, keep_figures
from services.profiles.quality.measuring import SCHEDULE, schedule, start_measuring
from services.profiles.quality.rules import all_rules
from services.profiles.quality.tally import QualityRule, Tally
from services.profiles.quality.values import DayFigures
from services.profiles.store import Store
from services.profiles.values import Pair, StoredRule
from tests.profiles.people import Service
from tests.profiles.quality_world import (
    PEOPLE,
    TODAY,
    add_rule,
    cells,
    department_of,
    fields,
    fill,
    filled,
    finish,
    is_old,
    measure,
    records,
    sources_of,
    worker,
)
from tests.profiles.test_jobs import Cut
from tests.profiles.test_store import mongo_store, profile, record, store

__all__ = ["mongo_store", "store"]
NOW = datetime(2026, 11, 1, tzinfo=UTC)
RULE = QualityRule("r", "validity", "email", 0.99)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return filled(tmp_path / "keys")


def sums(
    dimension: str, field: str, is_measured: Callable[[int, str], bool], passes: Callable[[int, str], bool]
) -> dict[tuple[str, str, str, str], tuple[int, int]]:
    """Return figures counted straight from the people, without any of the code under test."""
    measured: Counter[tuple[str, str, str, str]] = Counter()
    passed: Counter[tuple[str, str, str, str]] = Counter()
    for number, source in records():
        if is_measured(number, source):
            key = (dimension, field, source, department_of(number))
            measured[key] += 1
            passed[key] += passes(number, source)
    return {key: (passed[key], measured[key]) for key in measured}


def expected() -> dict[tuple[str, str, str, str], tuple[int, int]]:
    def has(name: str) -> Callable[[int, str], bool]:
        return lambda number, source: bool(fields(number, source)[name])

    def agrees(name: str) -> Callable[[int, str], bool]:
        """Return whether most sources that tell the field tell what this one does."""

        def check(number: int, source: str) -> bool:
            told = [fields(number, other)[name] for other in sources_of(number) if fields(number, other)[name]]
            return 2 * told.count(fields(number, source)[name]) > len(told)

        return check

    def any_source(number: int, source: str) -> bool:
        return True

    conflict = [number for number in range(PEOPLE) if number % 3 == 0 and number % 7 == 0]
    return {
        **sums("completeness", "phone", any_source, has("phone")),
        **sums("completeness", "name", any_source, any_source),
        **sums("validity", "email", any_source, lambda n, s: not (s == "till" and n % 11 == 0)),
        **sums("validity", "@record", any_source, lambda n, s: not (s == "till" and n % 11 == 0)),
        **sums("consistency", "birth_date", any_source, lambda n, s: not (s == "app" and n in conflict)
               and (len(sources_of(n)) == 1 or agrees("birth_date")(n, s))),
        **sums("accuracy", "resident_id", any_source, any_source),
        **sums("uniqueness", "@record", any_source, any_source),
        **sums("timeliness", "@record", any_source, lambda n, s: not is_old(n, s)),
        **sums("timeliness", "phone", has("phone"), lambda n, s: not is_old(n, s)),
    }  # fmt: skip


def test_figures_are_those_of_an_independent_count(service: Service) -> None:
    done = measure(service)

    found = cells(service.store)
    for key, figures in expected().items():
        assert found[key] == figures, key
    assert (done.profiles_read, done.records_read) == (PEOPLE, len(list(records())))
    everyone = [found["timeliness", "@person", "", name] for name in ("sales", "service")]
    alone_and_old = [n for n in range(PEOPLE) if n % 4 == 0 and sources_of(n) == ["till"]]
    assert sum(measured for _, measured in everyone) == PEOPLE
    assert sum(measured - passed for passed, measured in everyone) == len(alone_and_old)


def test_the_same_is_measured_on_the_real_database(mongo_store: Store, tmp_path: Path) -> None:
    service = Service(tmp_path / "keys", mongo_store)
    fill(mongo_store, service.vault, service.taker)
    add_rule(mongo_store, "emails", "validity", "email", 0.99)
    measure(service)

    found = cells(mongo_store)
    assert {key: found[key] for key in expected()} == expected()
    assert [item.department for item in all_incidents(mongo_store, {})] != []


def test_set_apart_rows_count_against_their_sources_department(service: Service) -> None:
    before = cells_of(service, "validity", "phone", "till", "sales")
    source = service.store.sources.get("till")
    assert source is not None
    admission = Admission(service.store, service.vault, service.taker)
    admission.admit(settings_of(source), [Entry(1, {"phone": "1.38E+10"}, False, "x")], "operations/profiles-x")

    passed, measured = cells_of(service, "validity", "phone", "till", "sales")
    assert (passed, measured) == (before[0], before[1] + 1)


def cells_of(service: Service, *key: str) -> tuple[int, int]:
    measure(service)
    return cells(service.store)[key]  # type: ignore[index]


def test_validity_goes_by_the_validation_rules_of_now(service: Service) -> None:
    check = validation_pb2.ValidationRule(
        field="email", severity=validation_pb2.ValidationRule.SEVERITY_WARNING,
        shape=validation_pb2.ShapeCheck(shapes=["q*"]),
    )  # fmt: skip
    plain = validation_rules(service.store).plain(check)
    rule = service.store.rules.insert(StoredRule("own", "", 1, active=plain, active_revision=1))
    service.tools.dictionary.forget()
    assert cells_of(service, "validity", "email", "shop", "sales")[0] == 0

    service.store.rules.replace(replace(rule, active="", active_revision=0))
    service.tools.dictionary.forget()
    passed, measured = cells_of(service, "validity", "email", "shop", "sales")
    assert passed == measured > 0


def test_sampled_merges_count_for_the_source_of_the_record_that_joined(service: Service) -> None:
    month = f"{datetime.now(UTC):%Y-%m}"
    for number, state in enumerate(("confirmed", "confirmed", "rejected", "obsolete")):
        key = f"shop/{6 * number}"
        service.store.pairs.insert(Pair(str(number), "a", "a", 9.0, 0.99, state=state, record=key, month=month))
    service.store.pairs.insert(Pair("label", "a", "b", 1.0, 0.5, state="rejected", month=month))
    measure(service)

    assert cells(service.store)["accuracy", "@match", "shop", "service"] == (2, 3)


def state_of(store: Store) -> list[object]:
    """Return all that a measurement leaves behind, its moments and names left out."""
    incidents = [
        (item.id, item.state, item.passed, item.measured, item.occurrence_count, list(item.current.causes),
         list(item.current.samples))
        for item in all_incidents(store, {})
    ]  # fmt: skip
    return [sorted(cells(store).items()), incidents]


CUTS = [
    ("page_profiles", 0), ("page_profiles", 3), ("page_profiles", 6), ("shared_tokens", 2), ("by_record_keys", 0),
    ("rejects.page", 0), ("rejects.page", 1), ("pairs.page", 1), ("quality_figures.insert", 0),
    ("quality_figures.insert", 1), ("incidents.write", 0), ("incidents.write", 1), ("incidents.page", 1),
]  # fmt: skip


def prepared(keys: Path) -> Service:
    service = filled(keys)
    add_rule(service.store, "emails", "validity", "email", 0.99)
    add_rule(service.store, "dates", "accuracy", "birth_date", 0.999)
    source = service.store.sources.get("till")
    assert source is not None
    admission = Admission(service.store, service.vault, service.taker)
    admission.admit(settings_of(source), [Entry(1, {"phone": "1.38E+10"}, False, "x")])
    month = f"{datetime.now(UTC):%Y-%m}"
    service.store.pairs.insert(Pair("p", "a", "a", 9.0, 0.99, state="confirmed", record="shop/6", month=month))
    return service


@pytest.mark.parametrize(("method", "at"), CUTS)
@pytest.mark.parametrize("after", [False, True])
def test_a_measurement_cut_anywhere_leaves_the_same_figures_and_incidents(
    tmp_path: Path, method: str, at: int, after: bool
) -> None:
    whole = prepared(tmp_path / "keys")
    sums_of_whole = measure(whole)
    service = prepared(tmp_path / "keys")
    operation = start_measuring(service.jobs, "", Owner("user:test", "data-office"), "one")
    restore = cutting(service.store, method, at, after)
    with pytest.raises(Cut):
        finish(service, operation)  # type: ignore[arg-type]
    restore()
    done = finish(service, operation)  # type: ignore[arg-type]

    assert state_of(service.store) == state_of(whole.store)
    for name in ("profiles_read", "records_read", "rejects_read", "incidents_found", "incidents_open"):
        assert getattr(done, name) == getattr(sums_of_whole, name), name
    assert done.incidents_found == 3


def cutting(store: Store, method: str, at: int, after: bool) -> Callable[[], None]:
    """Make the `at`-th call of a method of the store, or of a shelf, die before or after its work."""
    owner, name = store, method
    if "." in method:
        shelf, name = method.split(".")
        owner = getattr(store, shelf)
    original, calls = getattr(owner, name), iter(range(1_000_000))

    def call(*args: object) -> object:
        if next(calls) == at:
            if after:
                original(*args)
            raise Cut
        return original(*args)

    setattr(owner, name, call)
    return lambda: setattr(owner, name, original)


def test_the_sums_of_a_measurement_do_not_grow_with_what_it_measures(service: Service) -> None:
    rules = [QualityRule("r", "completeness", "name", 1.0)]
    small, large = Tally(rules), Tally(rules)
    for tally, times in ((small, 1000), (large, 5000)):
        for number in range(times):
            finding = tallies.Finding("completeness", "name", "till", f"till/{number}", False)  # type: ignore[arg-type]
            tally.add(finding, "sales", {"batch": (f"operations/{number % 2000}",)})

    assert len(large.dump()) < 1.3 * len(small.dump())
    rows = large.suspects("r", "sales")
    assert (rows.measured, len(rows.samples)) == (5000, tallies.SAMPLES_LIMIT)
    assert sum(seen for _, seen in rows.counts["batch"].values()) == 5000, "what is not named is counted as others"


def test_one_department_is_measured_without_touching_the_figures_of_others(service: Service) -> None:
    add_rule(service.store, "emails", "validity", "email", 0.99)
    measure(service)
    before = cells(service.store)
    correct(service, "till", "email", [n for n in range(PEOPLE) if n % 11 == 0])
    done = measure(service, "sales")

    after = cells(service.store)
    assert done.profiles_read == sum(department_of(n) == "sales" for n in range(PEOPLE))
    assert {key: after[key] for key in after if key[3] == "service"} == {
        key: before[key] for key in before if key[3] == "service"
    }
    states = {item.department: item.state for item in all_incidents(service.store, {})}
    assert states == {"sales": "verified", "service": "found"}


def correct(service: Service, source_id: str, name: str, numbers: list[int]) -> None:
    """Send records of a source again, one field made good."""
    source = service.store.sources.get(source_id)
    assert source is not None
    time = TODAY - timedelta(days=9)  # later than the record, earlier than what makes the department
    entries = [
        Entry(n + 1, {**fields(n, source_id), name: f"p{n}@mail.example.cn"}, False, str(n), time) for n in numbers
    ]
    Admission(service.store, service.vault, service.taker).admit(settings_of(source), entries)


def test_a_failing_rule_opens_one_incident_in_each_department_and_others_of_other_rules(service: Service) -> None:
    add_rule(service.store, "emails", "validity", "email", 0.99, due_days=3)
    add_rule(service.store, "dates", "accuracy", "birth_date", 0.999, source="sources/app")
    add_rule(service.store, "names", "completeness", "name", 1.0)
    measure(service)
    measure(service)

    found = {(item.rule_id, item.department): item for item in all_incidents(service.store, {})}
    assert set(found) == {("emails", "sales"), ("emails", "service"), ("dates", "service")}
    assert all(item.occurrence_count == 1 for item in found.values())
    incident = found["emails", "sales"]
    assert incident.current.due_time - incident.current.found_time == timedelta(days=3)
    wrong = [n for n in range(PEOPLE) if n % 11 == 0 and department_of(n) == "sales"]
    assert incident.measured - incident.passed == len(wrong)
    assert sorted(incident.current.samples) == sorted(f"till/{n}" for n in wrong)


def test_the_cause_is_the_batch_and_the_source_that_failing_rows_share(service: Service) -> None:
    add_rule(service.store, "emails", "validity", "email", 0.99)
    measure(service)

    incident = service.store.incidents.get(incident_id("emails", "sales"))
    assert incident is not None
    causes = {item.factor: item for item in incident.current.causes}
    till = sum(department_of(n) == "sales" for n in range(PEOPLE))
    failed = incident.measured - incident.passed
    assert causes["batch"].value == "operations/profiles-till"
    assert causes["source"].value == "sources/till"
    assert causes["settings"].value == "sources/till@1"
    assert causes["reason"].value == "EMAIL_UNREADABLE"
    assert (causes["batch"].failed, causes["batch"].measured) == (failed, till)
    assert causes["batch"].lift == pytest.approx(incident.measured / till)


def test_no_value_of_a_person_is_stored_with_figures_or_incidents(service: Service) -> None:
    add_rule(service.store, "emails", "validity", "email", 0.99)
    measure(service)
    kept = repr([*all_incidents(service.store, {}), *service.store.quality_figures.page({}, "", 100)])
    facts = repr(service.store.facts[-5:])  # type: ignore[attr-defined]

    for number in range(PEOPLE):
        for source in sources_of(number):
            told = fields(number, source)
            for name in ("name", "phone", "email", "resident_id"):
                assert not told[name] or told[name] not in kept
                assert not told[name] or told[name] not in facts


def test_news_of_an_incident_is_told_once_for_each_change_of_state(service: Service) -> None:
    add_rule(service.store, "emails", "validity", "email", 0.99, department="sales")
    measure(service)
    measure(service)
    correct(service, "till", "email", [n for n in range(PEOPLE) if n % 11 == 0])
    measure(service)

    facts = service.store.facts  # type: ignore[attr-defined]
    told = [item.message for item in facts if item.subject.startswith("qualityIncidents/")]
    assert [(item.state, item.department, item.rule_id) for item in told] == [
        ("found", "sales", "emails"), ("verified", "sales", "emails"),
    ]  # fmt: skip
    assert [item.version for item in told] == [1, 3]


def test_a_disabled_rule_opens_nothing_but_what_is_open_must_still_be_verified(store: Store) -> None:
    off = replace(RULE, is_active=False)
    failing = Judgement(True, 1, 10, NOW, "op1")
    judge(store, off, "sales", failing)
    assert list(all_incidents(store, {})) == []

    judge(store, RULE, "sales", failing)
    judge(store, off, "sales", replace(failing, start_time=NOW + timedelta(hours=1), failing=False))
    (incident,) = all_incidents(store, {})
    assert incident.state == "verified"
    judge(store, off, "sales", replace(failing, start_time=NOW + timedelta(hours=2)))
    (incident,) = all_incidents(store, {})
    assert (incident.state, incident.occurrence_count) == ("verified", 1)


def test_a_rule_fails_below_its_threshold_and_only_with_enough_rows() -> None:
    rule = replace(RULE, threshold=0.9, least_measured=10)

    assert not rule.fails(9, 10)
    assert rule.fails(8, 10)
    assert not rule.fails(0, 9)
    assert not replace(rule, least_measured=0).fails(0, 0)


def test_an_incident_is_kept_whole_and_changed_by_compare_and_set_only(store: Store) -> None:
    failing = Judgement(True, 1, 10, NOW, "op1", samples=["till/1"])
    judge(store, RULE, "sales", failing)
    first = store.incidents.get(incident_id("r", "sales"))
    assert first is not None
    taken = store.incidents.write(acknowledged(first, "user:a", "mine", NOW), [])

    assert store.incidents.get(first.id) == replace(taken, update_time=store.incidents.get(first.id).update_time)  # type: ignore[union-attr]
    assert (taken.version, taken.state, list(taken.current.samples)) == (2, "fixing", ["till/1"])
    with pytest.raises(Conflict):
        store.incidents.write(first, [])
    with pytest.raises(AlreadyExists):
        store.incidents.write(replace(first, version=0), [])


def test_incidents_are_paged_by_department(store: Store) -> None:
    made = []
    for number in range(7):
        item = Incident(uuid.uuid4().hex, "r", "sales" if number % 2 else "service", "validity", "email", "")
        made.append(store.incidents.write(item, []).id)

    assert [item.id for item in store.incidents.page({}, "", 3)] == sorted(made)[:3]
    assert [item.id for item in store.incidents.page({}, sorted(made)[2], 99)] == sorted(made)[3:]
    assert len(store.incidents.page({"department": "sales"}, "", 99)) == 3


def test_figures_of_a_measurement_that_began_earlier_do_not_take_the_place_of_later_ones(store: Store) -> None:
    tally = Tally([])
    tally.add(tallies.Finding("validity", "email", "till", "till/1", True), "sales", {})  # type: ignore[arg-type]
    keep_figures(store, tally.cells(), "", NOW, "late")
    keep_figures(store, [], "", NOW - timedelta(hours=1), "early")

    (kept,) = store.quality_figures.page({}, "", 9)
    assert (kept.operation, [list(cell) for cell in kept.cells]) == ("late", [["validity", "email", "till", 1, 1]])
    keep_figures(store, [], "", NOW + timedelta(hours=1), "later still")
    (kept,) = store.quality_figures.page({}, "", 9)
    assert (kept.operation, list(kept.cells)) == ("later still", []), "a department without rows has no figures left"
    assert isinstance(kept, DayFigures)
    assert kept.day == "2026-11-01"


def test_a_token_is_shared_when_another_living_profile_carries_it(store: Store) -> None:
    crowd = [profile(f"c{number}", record(100 + number), tokens=("crowd",)) for number in range(60)]
    many = profile("m", *(record(1000 + number) for number in range(60)), tokens=("mine",))
    one, two = profile("a", record(1), tokens=("t1", "t2")), profile("b", record(2), tokens=("t2",))
    gone = profile("d", record(3), tokens=("t1",))
    store.write_profiles([(item, []) for item in (one, two, gone, many, *crowd)])
    merged = replace(gone, version=1, merged_into=two.profile_id, records=[])
    store.write_profiles([(merged, [])])

    held = [("t1", one.profile_id), ("t2", one.profile_id), ("t2", two.profile_id), ("mine", many.profile_id)]
    held += [("crowd", item.profile_id) for item in crowd]
    shared = store.shared_tokens(held)
    assert shared == {item for item in held if item[0] in ("t2", "crowd")}
    assert store.shared_tokens([]) == set()


def test_a_record_stored_before_its_sources_version_was_kept_can_still_be_read(store: Store) -> None:
    old = {"s": "till", "i": "1", "n": 1, "h": "h", "t": NOW, "r": NOW, "k": "k", "b": b"", "o": "op:1", "x": []}

    assert record_of(old).source_version == 0
    kept = profile("a", replace(record(1), source_version=7))
    store.write_profiles([(kept, [])])
    assert store.profiles([kept.profile_id])[kept.profile_id].records[0].source_version == 7


def test_the_schedule_queues_one_measurement_a_day_however_often_it_is_asked(service: Service) -> None:
    schedule(service.jobs)
    schedule(service.jobs)
    for _ in range(20):
        for document in list(service.operations._documents.values()):
            if document["kind"] == SCHEDULE:
                document["wake_at"] = datetime.now(UTC)
        worker(service).run_one()
    kinds = Counter(str(item["kind"]) for item in service.operations._documents.values())

    assert kinds[SCHEDULE] == 1
    hour = (datetime.now(UTC) + timedelta(hours=8)).hour
    assert kinds["measure-quality"] == (1 if hour >= 2 else 0)
    assert not next(item for item in service.operations._documents.values() if item["kind"] == SCHEDULE)["done"]


def test_every_stored_rule_is_read_as_a_measurement_uses_it(store: Store) -> None:
    add_rule(store, "emails", "validity", "email", 0.95, source="sources/till", min_measured=5, severity=3, due_days=2)
    add_rule(store, "names", "completeness", "name", 1.0, department="sales", disabled=True)

    one, two = all_rules(store)
    assert one == QualityRule("emails", "validity", "email", 0.95, "till", "", 5, "high", 2, True)
    assert two == QualityRule("names", "completeness", "name", 1.0, "", "sales", 0, "medium", 7, False)
