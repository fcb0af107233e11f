"""A data owner's way from an incident to verified, by calls; nobody sees another department's."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from google.longrunning import operations_pb2
from google.protobuf.message import Message
from kehu.profiles.v1 import profiles_pb2, profiles_pb2_grpc, resources_pb2
from kehu.profiles.v1 import quality_pb2 as pb

from services.chassis.access import ALL_SHOWN, Condition, Obligations
from services.profiles.quality.page import report_page
from services.profiles.quality.reporting import Report, Wanted, find_report
from tests.harness import Harness, bad_fields
from tests.profiles.conftest import reason_of
from tests.profiles.people import Service
from tests.profiles.quality_world import (
    PEOPLE,
    department_of,
    fields,
    filled,
    finish,
    is_old,
    measure,
    records,
    sources_of,
)

WRONG = [n for n in range(PEOPLE) if n % 11 == 0]
VALIDITY = pb.QUALITY_DIMENSION_VALIDITY
FOUND, FIXING, VERIFIED = (
    pb.QualityIncident.STATE_FOUND, pb.QualityIncident.STATE_FIXING, pb.QualityIncident.STATE_VERIFIED,
)  # fmt: skip


class Owner:
    """A person with a policy, and the calls that they make."""

    def __init__(self, service: Service, harness: Harness) -> None:
        self.service, self.harness = service, harness

    def may_see(self, *departments: str, shown: Obligations = ALL_SHOWN) -> None:
        """Narrow the caller to these departments; all when none is named."""
        rows = (Condition("owner_department", departments),) if departments else ()
        self.harness.policy.obligations = Obligations(
            shown.shown, shown.masked, row_filter=rows, everything=shown.everything
        )

    def call(self, method: str, request: Message) -> Message:
        stub = self.harness.stub(profiles_pb2_grpc.ProfilesServiceStub, caller="user:owner@data-office")
        return getattr(stub, method)(request, timeout=20)

    def refused(self, method: str, request: Message) -> str:
        return reason_of(lambda: self.call(method, request))

    def add_rule(self, rule_id: str = "emails", **settings: object) -> pb.QualityRule:
        rule = pb.QualityRule(**{"dimension": VALIDITY, "field": "email", "threshold": 0.99, **settings})  # type: ignore[arg-type]
        return self.call("CreateQualityRule", pb.CreateQualityRuleRequest(quality_rule=rule, quality_rule_id=rule_id))

    def incidents(self, **asked: object) -> dict[str, pb.QualityIncident]:
        found = self.call("ListQualityIncidents", pb.ListQualityIncidentsRequest(**asked))  # type: ignore[arg-type]
        return {item.department: item for item in found.quality_incidents}

    def incident(self, name: str) -> pb.QualityIncident:
        return self.call("GetQualityIncident", pb.GetQualityIncidentRequest(name=name))

    def remeasured(self, name: str) -> pb.QualityMeasurement:
        operation: operations_pb2.Operation = self.call(
            "RemeasureQualityIncident", pb.RemeasureQualityIncidentRequest(name=name)
        )
        return finish(self.service, operation)

    def correct(self, numbers: list[int]) -> None:
        """Send records of the till again, their e-mail made good."""
        request = profiles_pb2.BatchUpsertRecordsRequest(parent="sources/till")
        for number in numbers:
            told = {**fields(number, "till"), "email": f"p{number}@mail.example.cn"}
            item = request.records.add(source_record_id=str(number), fields=told)
            stored = self.service.store.by_record_keys([f"till/{number}"])[0]
            time = next(one.updated_time for one in stored.records if one.key == f"till/{number}")
            item.update_time.FromDatetime(time)
            item.update_time.seconds += 1
        self.call("BatchUpsertRecords", request)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    service = filled(tmp_path / "keys")
    with service.serving() as harness:
        yield Owner(service, harness)


def of(department: str) -> list[int]:
    return [n for n in WRONG if department_of(n) == department]


def test_an_incident_from_found_to_verified_and_back_again(owner: Owner) -> None:
    owner.add_rule(due_days=2, severity=pb.QualityRule.SEVERITY_HIGH)
    measure(owner.service)
    name = owner.incidents()["sales"].name
    found = owner.incident(name)
    assert (found.state, found.severity, found.occurrence_count) == (FOUND, pb.QualityRule.SEVERITY_HIGH, 1)
    assert found.measured - found.passed == len(of("sales")) == len(found.samples)
    assert {cause.factor for cause in found.occurrences[0].causes} >= {pb.SuspectedCause.FACTOR_BATCH}

    taken = owner.call(
        "AcknowledgeQualityIncident", pb.AcknowledgeQualityIncidentRequest(name=name, note="asked the shop")
    )
    assert (taken.state, taken.occurrences[0].acknowledged_by) == (FIXING, "user:owner")

    assert owner.remeasured(name).incidents_open == 1
    assert owner.incident(name).state == FIXING, "nothing was mended yet"
    owner.correct(of("sales"))
    assert [item.fails_now for item in owner.incident(name).samples] == [False] * len(of("sales"))
    assert owner.incident(name).state == FIXING, "only a measurement closes it"
    assert owner.remeasured(name).incidents_verified == 1
    closed = owner.incident(name)
    assert (closed.state, closed.passed, closed.measured) == (VERIFIED, found.measured, found.measured)
    assert closed.occurrences[0].verify_time.seconds >= closed.occurrences[0].found_time.seconds
    assert owner.refused("AcknowledgeQualityIncident", pb.AcknowledgeQualityIncidentRequest(name=name)) == (
        "QUALITY_INCIDENT_CLOSED"
    )

    request = profiles_pb2.BatchUpsertRecordsRequest(parent="sources/till")
    request.records.add(source_record_id="1", fields={**fields(1, "till"), "email": "nobody"})
    owner.call("BatchUpsertRecords", request)
    measure(owner.service)
    again = owner.incident(name)
    assert (again.state, again.occurrence_count, len(again.occurrences)) == (FOUND, 2, 2)


def test_there_is_no_call_that_sets_an_incident_verified() -> None:
    service = profiles_pb2.DESCRIPTOR.services_by_name["ProfilesService"]
    writes = [m for m in service.methods if "QualityIncident" in m.name and not m.name.startswith(("Get", "List"))]

    assert {item.name for item in writes} == {"AcknowledgeQualityIncident", "RemeasureQualityIncident"}
    for item in writes:
        assert "state" not in item.input_type.fields_by_name


def test_an_owner_sees_nothing_of_another_departments_incidents_and_figures(owner: Owner) -> None:
    owner.add_rule()
    measure(owner.service)
    names = {department: item.name for department, item in owner.incidents().items()}
    assert set(names) == {"sales", "service"}

    owner.may_see("sales")
    assert set(owner.incidents()) == {"sales"}
    assert set(owner.incidents(department="service")) == set()
    for method, request in (
        ("GetQualityIncident", pb.GetQualityIncidentRequest(name=names["service"])),
        ("AcknowledgeQualityIncident", pb.AcknowledgeQualityIncidentRequest(name=names["service"])),
        ("RemeasureQualityIncident", pb.RemeasureQualityIncidentRequest(name=names["service"])),
    ):
        assert owner.refused(method, request) == "QUALITY_INCIDENT_NOT_FOUND", method
    report = owner.call("GetQualityReport", pb.GetQualityReportRequest(name="qualityReports/latest"))
    assert list(report.departments) == ["sales"]
    assert {item.department for item in report.figures} == {item.department for item in report.responses} == {"sales"}
    page = owner.call("GetQualityReportPage", pb.GetQualityReportPageRequest(name="qualityReports/latest"))
    assert b"sales" in page.data
    assert b"service" not in page.data
    listed = owner.call("ListQualityReports", pb.ListQualityReportsRequest()).quality_reports
    assert [list(item.departments) for item in listed] == [["sales"]]
    elsewhere = pb.GetQualityReportRequest(name="qualityReports/latest", department="service")
    assert owner.refused("GetQualityReport", elsewhere) == "QUALITY_REPORT_NOT_FOUND"
    assert owner.refused("MeasureQuality", pb.MeasureQualityRequest(department="service")) == "PERMISSION_DENIED"


def test_a_row_filter_that_quality_cannot_apply_refuses(owner: Owner) -> None:
    owner.add_rule()
    measure(owner.service)
    owner.harness.policy.obligations = Obligations(everything=True, row_filter=(Condition("tier", ("gold",)),))

    latest = pb.GetQualityReportRequest(name="qualityReports/latest")
    assert owner.refused("ListQualityIncidents", pb.ListQualityIncidentsRequest()) == "ROWS_NOT_NARROWED"
    assert owner.refused("GetQualityReport", latest) == "ROWS_NOT_NARROWED"
    assert owner.refused("MeasureQuality", pb.MeasureQualityRequest()) == "ROWS_NOT_NARROWED"


def test_an_owner_of_one_department_measures_that_one(owner: Owner) -> None:
    owner.may_see("sales")
    operation = owner.call("MeasureQuality", pb.MeasureQualityRequest())
    done = finish(owner.service, operation)

    assert done.department == "sales"
    assert done.profiles_read == sum(department_of(n) == "sales" for n in range(PEOPLE))
    owner.may_see("sales", "service")
    assert owner.refused("MeasureQuality", pb.MeasureQualityRequest()) == "PERMISSION_DENIED", "it says which"


def test_samples_are_masked_by_the_readers_rights_and_read_anew(owner: Owner) -> None:
    owner.add_rule()
    measure(owner.service)
    name = owner.incidents()["sales"].name
    seller = Obligations(frozenset({"personal/name"}), frozenset({"personal/contact"}))
    owner.may_see("sales", shown=seller)
    by_id = {item.source_record.source_record_id: item for item in owner.incident(name).samples}
    number = of("sales")[0]
    sample = by_id[str(number)]

    assert sample.record.display_name == fields(number, "till")["name"]
    assert list(sample.record.phones) == [f"139****{fields(number, 'till')['phone'][-4:]}"]
    assert (sample.record.resident_id, sample.record.birth_date) == ("", "")
    assert sample.value.email == "***"
    assert (list(sample.problems), sample.fails_now) == (["email:EMAIL_UNREADABLE"], True)
    owner.may_see("sales")
    shown = owner.incident(name).samples
    assert {item.value.email for item in shown} == {"nobody"}


def test_a_sample_that_belongs_to_another_department_by_now_is_not_shown(owner: Owner) -> None:
    owner.add_rule()
    measure(owner.service)
    number = of("sales")[0]
    told = {**fields(number, "app"), "name": fields(number, "till")["name"]}
    request = profiles_pb2.BatchUpsertRecordsRequest(parent="sources/app")
    request.records.add(source_record_id=str(number), fields=told)
    owner.call("BatchUpsertRecords", request)

    incident = owner.incident(owner.incidents()["sales"].name)
    shown = {item.source_record.source_record_id for item in incident.samples}
    assert shown == {str(n) for n in of("sales")} - {str(number)}


def test_a_row_that_is_set_apart_is_a_sample_with_its_reason(owner: Owner) -> None:
    request = profiles_pb2.BatchUpsertRecordsRequest(parent="sources/till")
    request.records.add(source_record_id="x", fields={"name": "王五", "phone": "1.38E+10"})
    owner.call("BatchUpsertRecords", request)
    owner.add_rule("rows", field="phone", threshold=1.0)
    measure(owner.service)

    (sample,) = owner.incident(owner.incidents()["sales"].name).samples
    assert sample.reject.startswith("rejects/")
    assert (sample.value.phone, sample.record.display_name) == ("1.38E+10", "王五")
    assert list(sample.problems) == ["phone:PHONE_DIGITS_LOST", ":IDENTIFIER_MISSING"]
    assert sample.fails_now


def test_a_report_has_figures_totals_response_times_and_recurring_causes(owner: Owner) -> None:
    owner.add_rule()
    measure(owner.service)
    report = owner.call("GetQualityReport", pb.GetQualityReportRequest(name="qualityReports/latest"))

    emails = [item for item in report.figures if (item.dimension, item.field) == (VALIDITY, "email")]
    assert sum(item.measured for item in emails) == len(list(records()))
    assert sum(item.measured - item.passed for item in emails) == len(WRONG)
    assert [item.dimension for item in report.totals] == sorted(
        {item.dimension for item in report.figures}, key=pb.QualityDimension.Name
    )
    for total in report.totals:
        parts = [item for item in report.figures if item.dimension == total.dimension]
        assert (total.passed, total.measured) == (sum(p.passed for p in parts), sum(p.measured for p in parts))
        assert total.score == pytest.approx(total.passed / total.measured)
    assert [(item.department, item.open, item.occurrences) for item in report.responses] == [
        ("sales", 1, 1), ("service", 1, 1),
    ]  # fmt: skip
    assert not report.responses[0].HasField("verify_seconds")
    first = report.recurring_causes[0]
    assert (first.value, first.occurrences) == ("EMAIL_UNREADABLE", 1), "two rows of service are no suspicion"
    only = pb.GetQualityReportRequest(name=report.name, dimension=VALIDITY, field="email", source="sources/till")
    figures = owner.call("GetQualityReport", only).figures
    assert {(item.field, item.source) for item in figures} == {("email", "sources/till")}
    listed = owner.call("ListQualityReports", pb.ListQualityReportsRequest(field="email", dimension=VALIDITY))
    (day,) = listed.quality_reports
    assert (day.name, [item.measured for item in day.totals]) == (report.name, [len(list(records()))])
    missing = pb.GetQualityReportRequest(name="qualityReports/2001-01-01")
    assert owner.refused("GetQualityReport", missing) == "QUALITY_REPORT_NOT_FOUND"


def test_zombies_are_counted_by_a_call_and_named_by_the_incident_of_a_rule(owner: Owner) -> None:
    timeliness = pb.QUALITY_DIMENSION_TIMELINESS
    owner.add_rule("alive", field="@record", dimension=timeliness, threshold=1, min_measured=1)
    measure(owner.service)
    zombies = {f"{source}/{n}" for source, n in all_records() if is_old(n, source)}

    def dead(field: str) -> int:
        asked = pb.GetQualityReportRequest(name="qualityReports/latest", dimension=timeliness, field=field)
        return sum(item.measured - item.passed for item in owner.call("GetQualityReport", asked).figures)

    assert dead("@record") == len(zombies) > 0
    assert dead("@person") == len([n for n in range(PEOPLE) if all(is_old(n, source) for source in sources_of(n))])
    named = {
        f"{sample.source_record.source.rpartition('/')[2]}/{sample.source_record.source_record_id}"
        for item in owner.incidents().values()
        for sample in owner.incident(item.name).samples
    }
    assert named <= zombies
    assert named


def all_records() -> list[tuple[str, int]]:
    return [(source, n) for n in range(PEOPLE) for source in sources_of(n)]


class Strict(HTMLParser):
    """Fails on a tag that is not closed and on anything fetched from elsewhere; keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe", "object")
        assert not [name for name, _ in attrs if name in ("src", "href") or name.startswith("on")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> str:
    reader = Strict()
    reader.feed(page)
    assert reader.open == []
    return reader.text


def test_the_page_is_complete_in_itself_and_shows_no_person(owner: Owner) -> None:
    owner.add_rule()
    measure(owner.service)
    reply = owner.call("GetQualityReportPage", pb.GetQualityReportPageRequest(name="qualityReports/latest"))
    page = reply.data.decode()
    text = parsed(page)

    assert reply.content_type == "text/html; charset=utf-8"
    for words in ("数据质量报告", "准确性 Accuracy", "完整性", "一致性", "有效性", "唯一性", "及时性", "已发现 found"):
        assert words in text
    for number in range(PEOPLE):
        for source in sources_of(number):
            told = fields(number, source)
            assert not [told[n] for n in ("name", "phone", "email", "resident_id") if told[n] and told[n] in page]


def test_the_latest_report_of_a_new_installation_is_asked_for_once(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, page = list[str](), owner.service.store.quality_figures.page
    monkeypatch.setattr(
        owner.service.store.quality_figures, "page", lambda *given: [reads.append(given[1]), page(*given)][1]
    )

    assert find_report(owner.service.store, "latest", Wanted(None)) is None
    assert len(reads) == 1


def test_the_page_escapes_what_others_named(owner: Owner) -> None:
    measure(owner.service)
    report = find_report(owner.service.store, "latest", Wanted(()))
    assert report is not None
    evil = '<script>alert("x")</script>'
    cells = [cell._replace(source_id=evil, department=evil, field=evil) for cell in report.cells[:3]]
    page = report_page(Report(report.day, report.start_time, [evil], cells))

    assert "<script>" not in page
    assert evil in parsed(page)


def test_a_rule_is_revised_and_what_it_judges_stays(owner: Owner) -> None:
    made = owner.add_rule(display_name="邮箱可读")
    assert (made.name, made.revision, len(made.revisions)) == ("qualityRules/emails", 1, 1)
    change = pb.QualityRule(name=made.name, threshold=0.5, etag=made.etag)
    changed = owner.call("UpdateQualityRule", pb.UpdateQualityRuleRequest(quality_rule=change))
    assert (changed.revision, changed.threshold, changed.display_name) == (2, 0.5, "邮箱可读")
    assert [(item.revision, item.threshold, item.changed_by) for item in changed.revisions] == [
        (1, 0.99, "user:owner"), (2, 0.5, "user:owner"),
    ]  # fmt: skip
    assert owner.refused("UpdateQualityRule", pb.UpdateQualityRuleRequest(quality_rule=change)) == "ETAG_MISMATCH"
    moved = pb.UpdateQualityRuleRequest(quality_rule=pb.QualityRule(name=made.name, field="phone"))
    moved.update_mask.paths.append("field")
    assert owner.refused("UpdateQualityRule", moved) == "FIELD_NOT_CHANGEABLE"
    measure(owner.service)
    assert owner.incidents() == {}, "the latest revision counts"


def test_a_rule_that_could_never_be_measured_is_refused(owner: Owner) -> None:
    def refusal(**settings: object) -> str:
        return reason_of(lambda: owner.add_rule("r", **settings))

    assert refusal(source="sources/none") == "QUALITY_RULE_INVALID"
    assert refusal(field="hobby") == "QUALITY_RULE_INVALID"
    assert refusal(field="province_code") == "QUALITY_RULE_INVALID"
    assert refusal(field="@person") == "QUALITY_RULE_INVALID"
    assert refusal(field="name", dimension=pb.QUALITY_DIMENSION_UNIQUENESS) == "QUALITY_RULE_INVALID"
    timely = {"field": "@person", "dimension": pb.QUALITY_DIMENSION_TIMELINESS}
    assert refusal(**timely, source="sources/till") == "QUALITY_RULE_INVALID"
    assert bad_fields(lambda: owner.add_rule("r", threshold=1.5)) == ["quality_rule.threshold"]
    assert bad_fields(lambda: owner.add_rule("r", dimension=0)) == ["quality_rule.dimension"]
    assert owner.add_rule("r", **timely).field == "@person"
    assert refusal(**timely) == "QUALITY_RULE_EXISTS"
    missing = pb.GetQualityRuleRequest(name="qualityRules/none")
    assert owner.refused("GetQualityRule", missing) == "QUALITY_RULE_NOT_FOUND"
    listed = owner.call("ListQualityRules", pb.ListQualityRulesRequest()).quality_rules
    assert [item.name for item in listed] == ["qualityRules/r"]


def test_incidents_are_listed_by_state_page_by_page(owner: Owner) -> None:
    for field in ("email", "name", "phone"):
        owner.add_rule(f"r_{field}", dimension=pb.QUALITY_DIMENSION_TIMELINESS, field=field, threshold=1.0)
    measure(owner.service)
    seen, token = [], ""
    while True:
        asked = pb.ListQualityIncidentsRequest(page_size=2, page_token=token, state=FOUND, department="sales")
        page = owner.call("ListQualityIncidents", asked)
        seen += [item.name for item in page.quality_incidents]
        token = page.next_page_token
        if not token:
            break

    assert len(seen) == len(set(seen)) == 3
    assert not any(item.samples for item in page.quality_incidents)
    assert owner.incidents(state=VERIFIED) == {}


def test_the_days_of_a_sources_life_are_kept_with_the_source(owner: Owner) -> None:
    source = resources_pb2.Source(name="sources/till", sign_of_life_days=500)
    request = profiles_pb2.UpdateSourceRequest(source=source)
    assert owner.call("UpdateSource", request).sign_of_life_days == 500
    measure(owner.service)

    asked = pb.GetQualityReportRequest(
        name="qualityReports/latest", dimension=pb.QUALITY_DIMENSION_TIMELINESS, source="sources/till"
    )
    assert all(item.score == 1.0 for item in owner.call("GetQualityReport", asked).figures)
    request.source.sign_of_life_days = -1
    assert bad_fields(lambda: owner.call("UpdateSource", request)) == ["sign_of_life_days"]
