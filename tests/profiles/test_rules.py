"""Validation rules: data, versioned, tried on what is stored, then used for what comes in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from kehu.profiles.v1 import intake_pb2, profiles_pb2, profiles_pb2_grpc, resources_pb2
from kehu.profiles.v1 import validation_pb2 as pb

from services.profiles.domain import validation as checks
from services.profiles.domain.readings import DATE, NUMBER
from services.profiles.domain.sources import SourceSettings
from services.profiles.domain.standardize import standardize
from services.profiles.domain.validation import Compared, Listed, Present, Range, Rule, Shape, fits
from services.profiles.domain.values import RawRecord, Severity
from services.profiles.intake.rules import Trials
from services.profiles.store import Store
from services.profiles.values import StoredRule
from tests.harness import Harness
from tests.profiles.people import Service, batch, csv_of, person, source_request, upload
from tests.profiles.test_jobs import finish
from tests.profiles.test_store import mongo_store, store

__all__ = ["mongo_store", "store"]
NOW = datetime(2025, 6, 1, tzinfo=UTC)
Stub = profiles_pb2_grpc.ProfilesServiceStub
SETTINGS = SourceSettings("till", ())


@pytest.mark.parametrize(
    ("text", "shape", "expected"),
    [
        ("VIP-123456", "VIP-999999", True),
        ("VIP-12345", "VIP-999999", False),
        ("VIP-1234567", "VIP-999999", False),
        ("+8613812345670", "+861*", True),
        ("张三", "汉汉", True),
        ("Zhang", "汉汉", False),
        ("a9", "A9", True),
        ("a*b", "\\A*", False),
        ("A*b", "\\A\\*b", True),
        ("", "*", True),
        ("", "?", False),
        ("abcabc", "*abc", True),
        ("abcabd", "*abc*", True),
        ("x\\", "x\\", True),
    ],
)
def test_a_shape_fits_whole_texts_only(text: str, shape: str, expected: bool) -> None:
    assert fits(text, shape) == expected


@given(st.text(max_size=60))
def test_every_text_fits_itself_written_literally(text: str) -> None:
    assert fits(text, "".join(f"\\{char}" for char in text))


def test_no_shape_costs_more_than_its_length_times_the_texts() -> None:
    calls = 0

    class Counted(str):
        def __getitem__(self, at: object) -> str:
            nonlocal calls
            calls += 1
            return super().__getitem__(at)  # type: ignore[index]

    text, shape = Counted("a" * 500), "*a" * 49 + "*b"
    assert not fits(text, shape)
    assert calls <= len(text) * len(shape)


def holds(check: checks.Check, text: str, other: str = "") -> bool:
    return check.holds((text,) if text else (), (other,) if other else ())


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (Range(NUMBER, "1", "10"), ["1", "10", "2.5"], ["0.99", "11", "many", "NaN", "1e999"]),
        (Range(NUMBER, "", "10"), ["-5"], ["10.01"]),
        (Range(DATE, "1900-01-01", "2010-12-31"), ["1900-01-01", "1990-02-28"], ["2011-01-01", "1990-02-30"]),
        (Range(checks.LENGTH, "2", "3"), ["张三", "abc"], ["a", "abcd"]),
        (Listed(frozenset(("gold", "silver"))), ["gold"], ["Gold", "bronze"]),
        (Shape(("VIP999", "A9")), ["VIP123", "b7"], ["VIP12", "77"]),
    ],
)
def test_a_check_holds_for_good_values_and_nothing_and_not_for_bad_ones(
    check: checks.Check, good: list[str], bad: list[str]
) -> None:
    assert all(holds(check, text) for text in [*good, ""])
    assert not any(holds(check, text) for text in bad)


@pytest.mark.parametrize(
    ("relation", "one", "two", "expected"),
    [
        (checks.LESS, "1990-01-02", "1990-01-03", True),
        (checks.LESS, "9", "10", True),
        (checks.LESS, "10", "9", False),
        (checks.LESS_OR_EQUAL, "10", "10.0", True),
        (checks.EQUAL, "10", "10.0", True),
        (checks.NOT_EQUAL, "a", "a", False),
        (checks.LESS, "b", "a", False),
        (checks.EQUAL, "", "a", True),
        (checks.EQUAL, "a", "", True),
    ],
)
def test_fields_are_compared_as_what_both_are(relation: str, one: str, two: str, expected: bool) -> None:
    assert holds(Compared("other", relation), one, two) == expected


def test_a_field_that_must_be_there_is_missed_only_when_its_condition_holds() -> None:
    assert not holds(Present(), "")
    assert holds(Present(), "x")
    assert holds(Present("phone"), "", "")
    assert not holds(Present("phone"), "", "+8613812345670")


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_value_makes_a_check_fail_to_answer(one: str, two: str) -> None:
    for relation in (checks.LESS, checks.LESS_OR_EQUAL, checks.EQUAL):
        assert holds(Compared("x", relation), one, two) in (True, False)
    for kind in (NUMBER, DATE, checks.LENGTH):
        assert holds(Range(kind, "1", "2"), one) in (True, False)


def test_rules_see_standard_forms_and_only_their_own_source() -> None:
    raw = RawRecord("till", "1", NOW, {"name": "張三", "phone": "138 1234 5670", "level": " gold "})
    record = standardize(raw, SETTINGS)
    rule = Rule("r", "phone", Shape(("+8613999999999",)), Severity.REJECT, "till")

    assert not rule.is_broken_by(record)
    assert Rule("r", "phone", Shape(("+86137*",)), Severity.REJECT).is_broken_by(record)
    assert not Rule("r", "phone", Shape(("+86137*",)), Severity.REJECT, "shop").is_broken_by(record)
    assert not Rule("r", "level", Listed(frozenset(("gold",))), Severity.REJECT).is_broken_by(record)
    assert not Rule("r", "name", Listed(frozenset(("张三",))), Severity.REJECT).is_broken_by(record)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Service, Harness]]:
    service = Service(tmp_path / "keys")
    with service.serving() as harness:
        harness.stub(Stub).CreateSource(source_request(), timeout=10)
        yield service, harness


def call(harness: Harness, method: str, request: object) -> pb.ValidationRule:
    return getattr(harness.stub(Stub), method)(request, timeout=10)


def rule_of(text: str) -> pb.ValidationRule:
    return text_format.Parse(text, pb.ValidationRule())


BORN = 'field: "birth_date" severity: SEVERITY_REJECT range { kind: KIND_DATE least: "1960-01-01" }'


def made(harness: Harness, text: str, rule_id: str = "born") -> pb.ValidationRule:
    request = pb.CreateValidationRuleRequest(validation_rule_id=rule_id, validation_rule=rule_of(text))
    return call(harness, "CreateValidationRule", request)


def tried(service: Service, harness: Harness, name: str) -> pb.RuleTrial:
    operation = finish(service, call(harness, "TryValidationRule", pb.TryValidationRuleRequest(name=name)))
    trial = pb.RuleTrial()
    assert operation.response.Unpack(trial)
    return trial


def call_list(harness: Harness) -> list[pb.ValidationRule]:
    return list(harness.stub(Stub).ListValidationRules(pb.ListValidationRulesRequest(), timeout=10).validation_rules)


def activated(harness: Harness, name: str, revision: int) -> pb.ValidationRule:
    return call(harness, "ActivateValidationRule", pb.ActivateValidationRuleRequest(name=name, revision=revision))


def reason_of(harness: Harness, method: str, request: object) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        call(harness, method, request)
    status = status_pb2.Status.FromString(dict(refused.value.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason


def sent(harness: Harness, number: int, **fields: str) -> profiles_pb2.RecordResult:
    request = batch("till", (str(number), {**person(number), **fields}))
    return harness.stub(Stub).BatchUpsertRecords(request, timeout=10).results[0]


def test_a_rule_is_tried_on_what_is_stored_before_it_is_used(served: tuple[Service, Harness]) -> None:
    service, harness = served
    for number in range(20):
        assert sent(harness, number).outcome == profiles_pb2.RecordResult.OUTCOME_CREATED
    rule = made(harness, BORN)
    request = pb.ActivateValidationRuleRequest(name=rule.name, revision=1)
    assert reason_of(harness, "ActivateValidationRule", request) == "RULE_NOT_TRIED"
    trial = tried(service, harness, rule.name)
    young = [number for number in range(20) if person(number)["birth_date"] >= "1960"]

    assert (trial.revision, trial.records_checked, trial.records_broken) == (1, 20, 20 - len(young))
    assert set(trial.examples) == {f"sources/till/records/{number}" for number in set(range(20)) - set(young)}
    assert sent(harness, 60, birth_date="1950-01-01").outcome == profiles_pb2.RecordResult.OUTCOME_CREATED

    assert activated(harness, rule.name, 1).active_revision == 1
    refused = sent(harness, 61, birth_date="1950-01-01")
    assert refused.outcome == profiles_pb2.RecordResult.OUTCOME_REJECTED
    assert [(item.field, item.reason) for item in refused.reasons] == [("birth_date", "RULE_born")]
    assert "validationRules/born" in refused.reasons[0].description
    assert sent(harness, 62, birth_date="1971-02-03").outcome == profiles_pb2.RecordResult.OUTCOME_CREATED

    activated(harness, rule.name, 0)
    assert sent(harness, 63, birth_date="1950-01-01").outcome == profiles_pb2.RecordResult.OUTCOME_CREATED


def test_a_change_is_a_revision_and_the_one_in_use_stays_until_the_new_one_is_tried(
    served: tuple[Service, Harness],
) -> None:
    service, harness = served
    name = made(harness, BORN).name
    tried(service, harness, name)
    activated(harness, name, 1)
    change = rule_of('shape { shapes: "2*" }')
    change.name = name
    changed = call(harness, "UpdateValidationRule", pb.UpdateValidationRuleRequest(validation_rule=change))

    assert (changed.revision, changed.active_revision, changed.WhichOneof("check")) == (2, 1, "shape")
    assert sent(harness, 1, birth_date="1971-02-03").outcome == profiles_pb2.RecordResult.OUTCOME_CREATED
    request = pb.ActivateValidationRuleRequest(name=name, revision=2)
    assert reason_of(harness, "ActivateValidationRule", request) == "RULE_NOT_TRIED"
    tried(service, harness, name)
    activated(harness, name, 2)
    assert sent(harness, 2, birth_date="1971-02-03").outcome == profiles_pb2.RecordResult.OUTCOME_REJECTED
    stored = service.store.rules.get("born")
    assert stored is not None
    assert [entry[0] for entry in stored.activations] == [1, 2]
    activated(harness, name, 0)

    shown = call(harness, "GetValidationRule", pb.GetValidationRuleRequest(name=name))
    assert [(item.revision, item.subject) for item in shown.activations] == [(n, "user:test") for n in (1, 2, 0)]
    assert shown.activations[0].time.ToDatetime() <= shown.activations[1].time.ToDatetime()
    first = call(harness, "GetValidationRule", pb.GetValidationRuleRequest(name=name, revision=1))
    assert (first.revision, first.WhichOneof("check"), first.range.least) == (1, "range", "1960-01-01")
    missing = pb.GetValidationRuleRequest(name=name, revision=3)
    assert reason_of(harness, "GetValidationRule", missing) == "RULE_NOT_FOUND"
    shown.display_name = "new"
    again = call(harness, "UpdateValidationRule", pb.UpdateValidationRuleRequest(validation_rule=shown))
    kept = service.store.rules.get("born")
    assert again.revision == 3
    assert kept is not None and "activations" not in kept.latest
    assert list(call_list(harness)[0].activations) == []
    assert "KIND_DATE" in str(stored.activations[0][3])


def test_a_warning_takes_the_record_in_and_a_preview_shows_it(served: tuple[Service, Harness]) -> None:
    service, harness = served
    name = made(harness, 'field: "email" severity: SEVERITY_WARNING shape { shapes: "*@mail0.example.cn" }').name
    tried(service, harness, name)
    activated(harness, name, 1)
    header = intake_pb2.PreviewImportHeader(name="sources/till")
    parts = [intake_pb2.PreviewImportRequest(header=header), intake_pb2.PreviewImportRequest(chunk=csv_of(range(7)))]
    found = harness.stub(Stub).PreviewImport(iter(parts), timeout=10)

    assert found.rows_rejected == 0
    assert found.rates_by_reason["RULE_born"] == pytest.approx(6 / 7)
    taken = sent(harness, 1)
    assert taken.outcome == profiles_pb2.RecordResult.OUTCOME_CREATED
    assert [(item.field, item.reason) for item in taken.warnings] == [("email", "RULE_born")]


def test_an_import_counts_its_rows_by_warning_while_it_runs_and_at_its_end(served: tuple[Service, Harness]) -> None:
    service, harness = served
    name = made(harness, 'field: "email" severity: SEVERITY_WARNING shape { shapes: "*@mail0.example.cn" }').name
    tried(service, harness, name)
    activated(harness, name, 1)
    for _ in range(2):  # the second time nothing changes, and the file is no better
        operation = finish(service, harness.stub(Stub).ImportRecords(upload("till", csv_of(range(7))), timeout=10))
        metadata, response = resources_pb2.ImportMetadata(), resources_pb2.ImportRecordsResponse()
        operation.metadata.Unpack(metadata)
        operation.response.Unpack(response)

        assert dict(response.summary.warnings_by_reason) == {"RULE_born": 6}
        assert metadata.summary == response.summary
    assert response.summary.rows_unchanged == 7


def test_a_deletion_breaks_no_rule(served: tuple[Service, Harness]) -> None:
    service, harness = served
    sent(harness, 1)
    name = made(harness, 'field: "email" severity: SEVERITY_REJECT present {}').name
    tried(service, harness, name)
    activated(harness, name, 1)
    request = batch("till", ("1", {"record_deleted": "1"}))

    assert harness.stub(Stub).BatchUpsertRecords(request, timeout=10).summary.rows_deleted == 1
    assert tried(service, harness, name).records_checked == 0


@pytest.mark.parametrize(
    "text",
    [
        'field: "no_such_field" severity: SEVERITY_REJECT present {}',
        'field: "name" severity: SEVERITY_REJECT source: "sources/none" present {}',
        'field: "name" severity: SEVERITY_REJECT range { kind: KIND_NUMBER least: "many" }',
        'field: "name" severity: SEVERITY_REJECT range { kind: KIND_LENGTH }',
        'field: "name" severity: SEVERITY_REJECT compare { relation: RELATION_LESS other_field: "nothing" }',
    ],
)
def test_a_rule_about_what_is_not_there_is_refused(served: tuple[Service, Harness], text: str) -> None:
    request = pb.CreateValidationRuleRequest(validation_rule_id="wrong", validation_rule=rule_of(text))

    assert reason_of(served[1], "CreateValidationRule", request) == "RULE_INVALID"


def test_rules_are_listed_and_named_once(served: tuple[Service, Harness]) -> None:
    _, harness = served
    for rule_id in ("one", "two"):
        made(harness, BORN, rule_id)
    listed = harness.stub(Stub).ListValidationRules(pb.ListValidationRulesRequest(), timeout=10)
    again = pb.CreateValidationRuleRequest(validation_rule_id="one", validation_rule=rule_of(BORN))

    assert [item.name for item in listed.validation_rules] == ["validationRules/one", "validationRules/two"]
    assert reason_of(harness, "CreateValidationRule", again) == "RULE_EXISTS"
    missing = pb.GetValidationRuleRequest(name="validationRules/none")
    assert reason_of(harness, "GetValidationRule", missing) == "RULE_NOT_FOUND"


def test_a_trial_cut_between_batches_counts_every_record_once(served: tuple[Service, Harness]) -> None:
    service, harness = served
    for number in range(12):
        sent(harness, number)
    rule = made(harness, BORN)
    service.importer.handlers = lambda: {"try-rule": Trials(service.store, service.vault, 3).run}  # type: ignore[method-assign]
    operation = call(harness, "TryValidationRule", pb.TryValidationRuleRequest(name=rule.name))
    original, calls = service.store.page_profiles, iter(range(100))

    def page(after: str, limit: int, departments: tuple[str, ...]) -> list:
        if next(calls) == 2:
            raise SystemExit
        return original(after, limit, departments)

    service.store.page_profiles = page  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        finish(service, operation)
    trial = pb.RuleTrial()
    finish(service, operation).response.Unpack(trial)

    assert trial.records_checked == 12


def test_a_store_keeps_rules(store: Store) -> None:
    kept = store.rules.insert(StoredRule("r", '{"field": "name"}', 1, activations=[[1, "2025", "user:x", "{}"]]))
    found = store.rules.get("r")

    assert found is not None
    assert (found.latest, found.revision, list(found.activations[0])) == (kept.latest, 1, [1, "2025", "user:x", "{}"])
    assert found.version == 1
