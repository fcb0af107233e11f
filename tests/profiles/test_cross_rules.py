"""Rules that look at other records: counted by the blind index, within a batch, on both stores; never by a scan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kehu.profiles.v1 import intake_pb2, profiles_pb2, profiles_pb2_grpc, resources_pb2
from kehu.profiles.v1 import validation_pb2 as pb

from services.profiles.ageing.retiring import Retirer
from services.profiles.domain.cross_record import Known, Rising, Shared, Value
from services.profiles.domain.quality import Dimension
from services.profiles.domain.retention import Action, RecordType, RetentionRule
from services.profiles.domain.sources import SourceSettings
from services.profiles.domain.standardize import standardize
from services.profiles.domain.validation import Rule
from services.profiles.domain.values import RawRecord, Severity, StandardRecord
from services.profiles.intake.rules import INDEXED_UP_TO, Trials
from services.profiles.quality.examining import Examiner
from services.profiles.store import MongoStore, Store
from services.profiles.values import Field, record_key
from tests.harness import Harness
from tests.profiles.people import Service, batch, csv_of, person, source_request, upload
from tests.profiles.test_jobs import finish
from tests.profiles.test_rules import activated, made, reason_of, rule_of, tried
from tests.profiles.test_store import mongo_store, profile, record, store, write

__all__ = ["mongo_store", "store"]
Stub = profiles_pb2_grpc.ProfilesServiceStub
CREATED, UPDATED = profiles_pb2.RecordResult.OUTCOME_CREATED, profiles_pb2.RecordResult.OUTCOME_UPDATED
REJECTED, UNCHANGED = profiles_pb2.RecordResult.OUTCOME_REJECTED, profiles_pb2.RecordResult.OUTCOME_UNCHANGED
NOW = datetime(2025, 6, 1, tzinfo=UTC)
CLERK = "13917263548"


def standard(record_id: str = "1", source_id: str = "till", **fields: str) -> StandardRecord:
    return standardize(RawRecord(source_id, record_id, NOW, fields), SourceSettings(source_id, ()))


def broken_among(rule: Rule, item: StandardRecord, *holders: str, former: StandardRecord | None = None) -> bool:
    asked: list[Value] = []

    def holding(value: Value) -> set[str]:
        asked.append(value)
        return set(holders)

    found = rule.is_broken_among(item, record_key(*item.key), holding, former)
    assert set(asked) <= set(rule.asks(item))
    return found


@pytest.mark.parametrize(
    ("holders", "expected"),
    [((), False), (("till/1",), False), (("till/2",), False), (("till/1", "till/2"), False),
     (("till/2", "till/3"), True), (("till/1", "till/2", "till/3"), True)],
)  # fmt: skip
def test_a_record_is_counted_once_whether_it_is_stored_already_or_not(holders: tuple[str, ...], expected: bool) -> None:
    rule = Rule("r", "phone", Shared(2, is_everywhere=True), Severity.REJECT)

    assert broken_among(rule, standard(phone=CLERK), *holders) == expected
    assert not broken_among(rule, standard(email="a@example.cn"), *holders)


def test_a_value_is_counted_in_its_own_source_or_in_all() -> None:
    own, everywhere = (Rule("r", "phone", Shared(1, is_everywhere=item), Severity.REJECT) for item in (False, True))
    asked = [set(rule.asks(standard(phone=CLERK))) for rule in (own, everywhere)]

    assert asked == [{Value("phone", "till", f"+86{CLERK}")}, {Value("phone", "", f"+86{CLERK}")}]
    assert Rule("r", "phone", Shared(1), Severity.REJECT, "shop").asks(standard(phone=CLERK)) == {}


def test_nobody_vouches_for_a_value_by_holding_it_himself() -> None:
    rule = Rule("r", "referrer", Known("crm", "member_no"), Severity.REJECT)
    item = standard("7", "crm", phone=CLERK, referrer="M1")

    assert set(rule.asks(item)) == {Value("member_no", "crm", "M1")}
    assert broken_among(rule, item)
    assert broken_among(rule, item, "crm/7")
    assert not broken_among(rule, item, "crm/7", "crm/8")


@pytest.mark.parametrize(
    ("former", "now", "expected"),
    [("9", "10", False), ("10", "9", True), ("10", "10", False), ("", "1", False), ("5", "", False),
     ("2025-02-01", "2025-01-31", True), ("a", "b", False), ("b", "a", True)],
)  # fmt: skip
def test_a_value_that_falls_is_told_as_number_date_or_text(former: str, now: str, expected: bool) -> None:
    rule = Rule("r", "points", Rising(), Severity.REJECT)

    assert broken_among(rule, standard(phone=CLERK, points=now), former=standard(points=former)) == expected
    assert not broken_among(rule, standard(phone=CLERK, points=now))


def test_a_store_tells_who_carries_a_token_as_many_as_asked_or_all(store: Store) -> None:
    write(store, *(profile(f"p{at}", record(at), tokens=("all", f"own{at}")) for at in range(30)))
    everybody = {f"till/{at}" for at in range(30)}
    counted = {"own3": 2, "all": 5, "none": 5, **{f"own{at}": 1 for at in range(10, 30)}}
    for held in (store.holders(counted), store.look([], [], counted).held):
        assert held["own3"] == {"till/3"}
        assert held["none"] == set()
        assert len(held["all"]) >= 5
        assert held["all"] <= everybody
        assert all(held[f"own{at}"] == {f"till/{at}"} for at in range(10, 30))
    assert store.holders({"all": 31})["all"] == everybody
    assert store.holders({}) == {}


@contextmanager
def serving(tmp_path: Path, store: Store) -> Iterator[tuple[Service, Harness]]:
    service = Service(tmp_path / "keys", store)
    trials = Trials(store, service.vault, 7, settle_seconds=0).run
    handlers = service.importer.handlers()
    service.importer.handlers = lambda: {**handlers, "try-rule": trials}  # type: ignore[method-assign]
    for name in ("member_no", "referrer", "points"):
        store.fields.insert(Field(name, name, classification=2, group="identity"))
    with service.serving() as harness:
        for source_id in ("till", "shop"):
            harness.stub(Stub).CreateSource(source_request(source_id), timeout=10)
        yield service, harness


@pytest.fixture
def served(tmp_path: Path, store: Store) -> Iterator[tuple[Service, Harness]]:
    with serving(tmp_path, store) as found:
        yield found


def in_use(service: Service, harness: Harness, text: str, rule_id: str = "r") -> pb.RuleTrial:
    """Make, try and use a rule; return what the trial said."""
    name = made(harness, text, rule_id).name
    trial = tried(service, harness, name)
    activated(harness, name, 1)
    return trial


def sent(harness: Harness, source_id: str, *records: tuple[str, dict[str, str]]) -> list[profiles_pb2.RecordResult]:
    return list(harness.stub(Stub).BatchUpsertRecords(batch(source_id, *records), timeout=20).results)


def customer(number: int, **fields: str) -> tuple[str, dict[str, str]]:
    return str(number), {**person(number), **fields}


FEW = 'field: "phone" severity: SEVERITY_REJECT shared { most: 3 among: AMONG_ALL }'


def test_a_phone_on_more_records_than_a_rule_allows_is_told_by_the_trial_and_then_set_apart(
    served: tuple[Service, Harness],
) -> None:
    service, harness = served
    sent(harness, "till", *(customer(number, phone=CLERK) for number in range(3)), customer(9))
    sent(harness, "shop", customer(3, phone=CLERK))
    trial = in_use(service, harness, FEW)

    assert (trial.records_checked, trial.records_broken) == (5, 4)
    assert set(trial.examples) == {"sources/shop/records/3", *(f"sources/till/records/{at}" for at in range(3))}
    (refused,) = sent(harness, "shop", customer(4, phone=CLERK))
    assert refused.outcome == REJECTED
    assert [(item.field, item.reason) for item in refused.reasons] == [("phone", "RULE_r")]
    assert refused.reject
    assert service.store.by_record_keys(["shop/4"]) == []

    (again,) = sent(harness, "shop", customer(3, phone=CLERK))
    assert again.outcome == UNCHANGED
    corrected = sent(harness, "shop", customer(4))
    assert corrected[0].outcome == CREATED
    (reject,) = service.store.rejects.page({}, "", 10)
    assert reject.state == "corrected"


def test_a_record_that_gives_a_value_up_or_is_deleted_makes_room(served: tuple[Service, Harness]) -> None:
    service, harness = served
    in_use(service, harness, FEW)
    first = sent(harness, "till", *(customer(number, phone=CLERK) for number in range(5)))
    assert [item.outcome for item in first] == [CREATED, CREATED, CREATED, REJECTED, REJECTED]

    both = sent(harness, "till", customer(0), customer(5, phone=CLERK))
    assert [item.outcome for item in both] == [UPDATED, CREATED]
    assert sent(harness, "till", customer(6, phone=CLERK))[0].outcome == REJECTED
    assert sent(harness, "till", ("1", {"record_deleted": "1"}))[0].outcome == UPDATED
    assert sent(harness, "till", customer(6, phone=CLERK))[0].outcome == CREATED


def test_an_import_counts_within_itself_and_the_same_file_again_says_the_same(served: tuple[Service, Harness]) -> None:
    service, harness = served
    in_use(service, harness, FEW.replace("REJECT", "WARNING"))
    content = csv_of(range(250))
    for number in range(0, 250, 25):
        content = content.replace(person(number)["phone"].encode(), CLERK.encode())
    for created, unchanged in ((250, 0), (0, 250)):
        operation = finish(service, harness.stub(Stub).ImportRecords(upload("till", content), timeout=10))
        response = resources_pb2.ImportRecordsResponse()
        assert operation.response.Unpack(response)
        summary = response.summary
        assert (summary.rows_accepted, summary.rows_unchanged) == (created, unchanged)
        assert summary.warnings_by_reason["RULE_r"] == 7


MEMBER = 'field: "member_no" severity: SEVERITY_REJECT shared { most: 1 among: AMONG_SOURCE }'


def test_a_value_is_unique_within_its_source_also_among_records_older_than_the_rule(
    served: tuple[Service, Harness],
) -> None:
    service, harness = served
    sent(harness, "till", *(customer(number, member_no=f"M{number}") for number in range(20)))
    sent(harness, "till", customer(20, member_no="M7"))
    trial = in_use(service, harness, MEMBER)

    assert (trial.records_checked, trial.records_broken) == (21, 2)
    assert sent(harness, "till", customer(30, member_no="M3"))[0].outcome == REJECTED
    assert sent(harness, "shop", customer(31, member_no="M3"))[0].outcome == CREATED
    assert sent(harness, "shop", customer(32, member_no="M3"))[0].outcome == REJECTED
    assert sent(harness, "till", customer(3, member_no="M3", email="new@example.cn"))[0].outcome == UPDATED


def test_what_is_counted_survives_a_merge_and_what_retention_takes_and_goes_with_the_value(
    served: tuple[Service, Harness],
) -> None:
    service, harness = served
    in_use(service, harness, MEMBER)
    sent(harness, "till", customer(1, member_no="M1"))
    sent(harness, "shop", customer(1, member_no="S1"))  # joins the person
    token = service.vault.value_token(Value("member_no", "till", "M1"))
    (holder,) = service.store.by_record_keys(["till/1"])

    assert len(holder.records) == 2
    assert service.store.holders({token: 5}) == {token: {"till/1"}}

    def retire(field: str) -> None:
        retirer, now = Retirer(service.store, service.vault, service.dictionary), datetime.now(UTC) + timedelta(days=9)
        rule = RetentionRule(f"r_{field}", 1, RecordType.SOURCE_RECORDS, 1, Action.DELETE, field)
        due = retirer.due(RecordType.SOURCE_RECORDS, [rule], "", 10, now)
        retirer.take(RecordType.SOURCE_RECORDS, [rule], due.items, now, "run")

    retire("address")
    (less,) = service.store.by_record_keys(["till/1"])
    assert less.version > holder.version
    assert service.store.holders({token: 5}) == {token: {"till/1"}}
    retire("member_no")
    assert service.store.holders({token: 5}) == {token: set()}

    sent(harness, "till", customer(2, member_no="M1"))
    assert service.store.holders({token: 5}) == {token: {"till/2"}}
    sent(harness, "till", customer(2, member_no="M2"))
    assert service.store.holders({token: 5}) == {token: set()}


def test_a_referrer_must_be_a_member_of_the_other_source(served: tuple[Service, Harness]) -> None:
    service, harness = served
    sent(harness, "till", *(customer(number, member_no=f"M{number}") for number in range(8)))
    sent(harness, "shop", customer(50, referrer="M5"), customer(51, referrer="M51"))
    known = 'field: "referrer" severity: SEVERITY_REJECT known { source: "sources/till" field: "member_no" }'
    trial = in_use(service, harness, known)

    assert list(trial.examples) == ["sources/shop/records/51"]
    assert sent(harness, "shop", customer(52, referrer="M6"))[0].outcome == CREATED
    assert sent(harness, "shop", customer(53, referrer="M60", member_no="M60"))[0].outcome == REJECTED
    outcomes = [item.outcome for item in sent(harness, "till", customer(60, member_no="M60"))]
    assert outcomes == [CREATED]
    assert sent(harness, "shop", customer(53, referrer="M60"))[0].outcome == CREATED


def test_points_never_fall_and_an_older_version_is_late_not_wrong(served: tuple[Service, Harness]) -> None:
    service, harness = served
    rising = 'field: "points" severity: SEVERITY_REJECT rising {}'
    for points in ("100", "90"):
        sent(harness, "till", customer(1, points=points))
    sent(harness, "till", customer(2, points="5"))
    assert list(in_use(service, harness, rising).examples) == ["sources/till/records/1"]

    assert sent(harness, "till", customer(2, points="4"))[0].outcome == REJECTED
    assert sent(harness, "till", customer(2, points="12"))[0].outcome == UPDATED
    late = batch("till", customer(2, points="3"))
    late.records[0].update_time.FromDatetime(datetime.now(UTC) - timedelta(days=9))
    outcome = harness.stub(Stub).BatchUpsertRecords(late, timeout=10).results[0].outcome
    assert outcome == profiles_pb2.RecordResult.OUTCOME_STALE


def test_a_preview_shows_what_other_records_make_of_a_row_and_writes_nothing(served: tuple[Service, Harness]) -> None:
    service, harness = served
    in_use(service, harness, FEW)
    sent(harness, "till", customer(900, phone=CLERK), customer(901, phone=CLERK))
    content = csv_of(range(6))
    for number in (1, 4):
        content = content.replace(person(number)["phone"].encode(), CLERK.encode())
    parts = [intake_pb2.PreviewImportRequest(header=intake_pb2.PreviewImportHeader(name="sources/till")),
             intake_pb2.PreviewImportRequest(chunk=content)]  # fmt: skip
    found = harness.stub(Stub).PreviewImport(iter(parts), timeout=10)

    assert [[item.reason for item in row.problems] for row in found.rows] == [[], [], [], [], ["RULE_r"], []]
    assert found.rows_rejected == 1
    assert service.store.by_record_keys(["till/4"]) == []


def test_measured_validity_goes_by_who_holds_a_value_now(served: tuple[Service, Harness]) -> None:
    service, harness = served
    in_use(service, harness, FEW.replace("most: 3", "most: 1").replace("REJECT", "WARNING"))
    sent(harness, "till", customer(1, phone=CLERK))
    sent(harness, "till", customer(2, phone=CLERK))

    def invalid() -> set[str]:
        examiner = Examiner(service.store, service.vault, service.dictionary, datetime.now(UTC))
        examined = examiner.examine(service.store.page_profiles("", 10, ()))
        return {item.key for found in examined for item in found.findings
                if (item.field, item.dimension) == ("phone", Dimension.VALIDITY) and not item.passed}  # fmt: skip

    assert len(invalid()) == 2
    sent(harness, "till", customer(1))
    assert invalid() == set()


def test_a_trial_cut_while_it_indexes_goes_on_where_it_was(served: tuple[Service, Harness]) -> None:
    service, harness = served
    sent(harness, "till", *(customer(number, member_no=f"M{number // 2}") for number in range(40)))
    rule = made(harness, MEMBER)
    operation = harness.stub(Stub).TryValidationRule(pb.TryValidationRuleRequest(name=rule.name), timeout=10)
    original, calls = service.store.write_profiles, iter(range(100))

    def write_profiles(changes: object) -> list[str]:
        if next(calls) == 2:
            raise SystemExit
        return original(changes)  # type: ignore[arg-type]

    service.store.write_profiles = write_profiles  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        finish(service, operation)
    kept = service.operations.get(operation.name)
    assert kept is not None
    assert kept["checkpoint"][INDEXED_UP_TO]  # type: ignore[index]
    trial = pb.RuleTrial()
    finish(service, operation).response.Unpack(trial)

    assert (trial.records_checked, trial.records_broken) == (40, 40)


def test_a_trial_waits_until_every_process_knows_what_to_index(served: tuple[Service, Harness]) -> None:
    service, harness = served
    handlers = service.importer.handlers()
    waiting = {**handlers, "try-rule": Trials(service.store, service.vault, settle_seconds=3600).run}
    service.importer.handlers = lambda: waiting  # type: ignore[method-assign]
    for rule_id, text, is_done in (("own", MEMBER, False), ("known", FEW, True)):
        name = made(harness, text, rule_id).name
        operation = harness.stub(Stub).TryValidationRule(pb.TryValidationRuleRequest(name=name), timeout=10)
        service.worker().run_one()
        assert service.jobs.get(operation.name, "data-office").done == is_done


@pytest.mark.parametrize(
    "text",
    [
        'field: "member_no" severity: SEVERITY_REJECT known { source: "sources/none" }',
        'field: "member_no" severity: SEVERITY_REJECT known { field: "no_such_field" }',
    ],
)
def test_a_rule_about_records_that_cannot_be_is_refused(served: tuple[Service, Harness], text: str) -> None:
    request = pb.CreateValidationRuleRequest(validation_rule_id="wrong", validation_rule=rule_of(text))

    assert reason_of(served[1], "CreateValidationRule", request) == "RULE_INVALID"


def test_one_write_asks_no_more_often_for_rules_that_count(tmp_path: Path, mongo_store: MongoStore) -> None:
    asked: Counter[str] = Counter()

    class Watched(MongoStore):
        def __getattribute__(self, name: str) -> object:
            asked[name] += name in ("look", "holders", "by_record_keys", "near", "profiles")
            return super().__getattribute__(name)

    with serving(tmp_path, Watched()) as (service, harness):
        in_use(service, harness, FEW)
        in_use(service, harness, MEMBER, "two")
        in_use(service, harness, 'field: "points" severity: SEVERITY_REJECT rising {}', "three")
        sent(harness, "till", customer(1, member_no="M1", points="3"))
        asked.clear()
        assert sent(harness, "till", customer(1, member_no="M1", points="4"))[0].outcome == UPDATED
        assert sent(harness, "till", customer(2, member_no="M1", points="3"))[0].outcome == REJECTED

    assert +asked == Counter(look=2)
