"""The consent service over gRPC behind the real guard."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from kehu.consent.v1 import consent_pb2 as pb
from kehu.consent.v1 import consent_pb2_grpc

from services.chassis.access import ALL_SHOWN, Obligations
from services.chassis.access.values import Condition
from services.chassis.server import Serving
from services.consent.api import ConsentServicer
from services.consent.domain.decision import USE_WITHIN_SECONDS
from services.consent.domain.records import ConsentRecord, ConsentState
from services.consent.store import MemoryConsentStore
from services.consent.wire import record_to_proto
from tests.harness import OpenPolicy, bad_fields, running


class World:
    """A running consent service with one purpose, its notice, and a clock that tests move."""

    def __init__(self, harness, store, waits):
        self.harness, self.store, self.waits = harness, store, waits
        self.stub = harness.stub(consent_pb2_grpc.ConsentServiceStub)

    def call(self, method, request, stub=None):
        return getattr(stub or self.stub, method)(request, timeout=5)

    def refusal(self, method, request, stub=None):
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, request, stub)
        info = error_details_pb2.ErrorInfo()
        for detail in rpc_status.from_call(caught.value).details:
            detail.Unpack(info)
        return caught.value.code(), info.reason

    def decide(self, profile_id, **extra):
        found = self.call(
            "Decide", pb.DecideRequest(profile_id=profile_id, purpose_id="offers", channel="email", **extra)
        )
        return found.reason


def a_time(when):
    from google.protobuf.timestamp_pb2 import Timestamp

    stamp = Timestamp()
    stamp.FromDatetime(when)
    return stamp


NOW = datetime.now(UTC)
SHOWN = a_time(NOW - timedelta(minutes=2))


def a_notice_version(effective=NOW - timedelta(days=30), material=False, body="我们用您的邮箱发送优惠。"):
    texts = [pb.NoticeText(language="zh-CN", body=body)]
    return pb.NoticeVersion(effective_time=a_time(effective), material=material, texts=texts)


def a_purpose(**changes):
    fields = {
        "display_name": "会员优惠邮件",
        "legal_basis": pb.LEGAL_BASIS_CONSENT,
        "data_categories": ["contact"],
        "channels": ["email", "sms"],
        "retention_days": 365,
        "notice_id": "member",
    }
    return pb.Purpose(**(fields | changes))


def a_grant(profile_id, request_id="", **changes):
    fields = {
        "purpose_id": "offers",
        "channel": "email",
        "state": pb.CONSENT_STATE_GRANTED,
        "notice_version": 1,
        "language": "zh-CN",
        "shown_time": SHOWN,
        "collected_via": pb.COLLECTED_VIA_WEB,
        "masked_address": "203.0.113.77",
    }
    consent = pb.ConsentRecord(**(fields | changes))
    return pb.RecordConsentRequest(profile_id=profile_id, consent=consent, request_id=request_id)


@pytest.fixture
def policy():
    return OpenPolicy()


@pytest.fixture
def world(policy):
    store, waits = MemoryConsentStore(), []
    servicer = ConsentServicer(store, settle=waits.append)
    serving = Serving("consent", [(consent_pb2_grpc.add_ConsentServiceServicer_to_server, servicer)])
    with running(serving, policy) as harness:
        found = World(harness, store, waits)
        notice = pb.Notice(display_name="会员隐私告知", versions=[a_notice_version()])
        found.call("CreateNotice", pb.CreateNoticeRequest(notice_id="member", notice=notice))
        found.call("CreatePurpose", pb.CreatePurposeRequest(purpose_id="offers", purpose=a_purpose()))
        yield found


def revoke(profile_id, **extra):
    return pb.RevokeConsentRequest(
        profile_id=profile_id, purpose_id="offers", channel="email", collected_via=pb.COLLECTED_VIA_WEB, **extra
    )


def test_nobody_asked_means_no(world):
    assert world.decide("p1") == "NO_RECORD"


def test_a_grant_allows_and_names_its_record(world):
    kept = world.call("RecordConsent", a_grant("p1"))

    decision = world.call("Decide", pb.DecideRequest(profile_id="p1", purpose_id="offers", channel="email"))
    assert (decision.allowed, decision.reason) == (True, "GRANTED")
    assert [kept.name] == [f"profiles/p1/consents/{record_id}" for record_id in decision.record_ids]


def test_a_grant_is_kept_with_its_evidence_and_a_masked_address(world):
    kept = world.call("RecordConsent", a_grant("p1", agent="user:alice"))

    assert (kept.notice_id, kept.notice_version, kept.masked_address) == ("member", 1, "203.0.113.*")
    assert (len(kept.wording_hash), kept.agent) == (64, "user:alice")


def test_the_decision_after_a_withdrawal_refuses(world):
    world.call("RecordConsent", a_grant("p1"))

    world.call("RevokeConsent", revoke("p1"))

    assert world.decide("p1") == "REVOKED"


def test_a_withdrawal_is_acknowledged_only_when_older_allowances_may_no_longer_be_used(world):
    world.call("RecordConsent", a_grant("p1"))
    assert world.waits == []

    world.call("RevokeConsent", revoke("p1"))

    assert world.waits == [USE_WITHIN_SECONDS]
    batch = pb.BatchDecideRequest(profile_ids=["p1"], purpose_id="offers", channel="email")
    assert world.call("BatchDecide", batch).use_within_ms == USE_WITHIN_SECONDS * 1000


def test_a_refusal_by_somebody_who_never_agreed_waits_for_nothing(world):
    world.call("RecordConsent", a_grant("p1", state=pb.CONSENT_STATE_DENIED))

    assert world.waits == []


def test_a_refusal_of_what_the_law_allows_waits_too(world):
    lawful = a_purpose(legal_basis=pb.LEGAL_BASIS_CONTRACT, notice_id="")
    world.call("CreatePurpose", pb.CreatePurposeRequest(purpose_id="delivery", purpose=lawful))
    asked = pb.DecideRequest(profile_id="p1", purpose_id="delivery", channel="email", accept_legal_basis=True)
    assert world.call("Decide", asked).allowed

    request = revoke("p1")
    request.purpose_id = "delivery"
    world.call("RevokeConsent", request)

    assert world.waits == [USE_WITHIN_SECONDS]
    assert not world.call("Decide", asked).allowed


@pytest.mark.parametrize("channel", ["email", ""])
def test_a_withdrawal_counts_though_the_clock_that_stamped_the_grant_was_ahead(world, channel):
    world.call("RecordConsent", a_grant("p1"))
    held = world.store.consents(["p1"])["p1"]
    ahead = replace(held.records[0], answer_time=datetime.now(UTC) + timedelta(seconds=30))
    world.store.save_consents([(replace(held, records=(ahead,)), [])])
    assert world.decide("p1") == "GRANTED"

    request = revoke("p1")
    request.channel = channel
    world.call("RevokeConsent", request)

    assert world.decide("p1") == "REVOKED"


def test_a_grant_of_now_is_taken_from_a_clock_that_is_as_fast_as_an_answers_may_be(world):
    ahead = [a_time(datetime.now(UTC) + timedelta(minutes=minutes)) for minutes in (4, 6)]

    world.call("RecordConsent", a_grant("p1", shown_time=ahead[0]))

    assert world.decide("p1") == "GRANTED"
    assert world.refusal("RecordConsent", a_grant("p2", shown_time=ahead[1]))[1] == "EVIDENCE_INVALID"


@pytest.mark.parametrize("state", [pb.CONSENT_STATE_DENIED, pb.CONSENT_STATE_REVOKED])
def test_a_refusal_recorded_without_a_time_counts_though_the_clock_that_stamped_the_grant_was_ahead(world, state):
    world.call("RecordConsent", a_grant("p1"))
    held = world.store.consents(["p1"])["p1"]
    ahead = replace(held.records[0], answer_time=datetime.now(UTC) + timedelta(seconds=30))
    world.store.save_consents([(replace(held, records=(ahead,)), [])])

    world.call("RecordConsent", a_grant("p1", state=state))

    assert world.decide("p1") == pb.ConsentState.Name(state).removeprefix("CONSENT_STATE_")


def test_a_request_id_stands_for_one_answer_of_one_caller(world):
    other = world.harness.stub(consent_pb2_grpc.ConsentServiceStub, caller="app:other@sales")
    world.call("CreatePurpose", pb.CreatePurposeRequest(purpose_id="gifts", purpose=a_purpose()))
    for stub in (world.stub, other):
        world.call("RecordConsent", a_grant("p1", "1"), stub)
    world.call("RecordConsent", a_grant("p1", "1", purpose_id="gifts"))

    withdrawn = world.call("RevokeConsent", revoke("p1", request_id="1"))

    assert withdrawn.state == pb.CONSENT_STATE_REVOKED
    assert world.decide("p1") == "REVOKED"
    assert len(world.call("ListConsents", pb.ListConsentsRequest(profile_id="p1")).consents) == 4


def test_a_repeated_request_appends_once_and_returns_the_first(world):
    first = world.call("RecordConsent", a_grant("p1", request_id="r-1"))
    second = world.call("RecordConsent", a_grant("p1", request_id="r-1"))

    assert first == second
    assert len(world.call("ListConsents", pb.ListConsentsRequest(profile_id="p1")).consents) == 1


def test_a_batch_takes_what_is_sound_and_says_what_is_not(world):
    requests = [
        a_grant("p1"),
        a_grant("p2", notice_version=7),
        a_grant("p3", under_fourteen=True),
        a_grant("p4", purpose_id="unheard-of"),
        a_grant("p1", state=pb.CONSENT_STATE_DENIED, channel="sms"),
    ]

    found = world.call("BatchRecordConsents", pb.BatchRecordConsentsRequest(requests=requests))

    reasons = [result.reason for result in found.results]
    assert reasons == ["", "EVIDENCE_INVALID", "GUARDIAN_REQUIRED", "PURPOSE_NOT_FOUND", ""]
    assert len(world.call("ListConsents", pb.ListConsentsRequest(profile_id="p1")).consents) == 2


def test_a_batch_that_answers_twice_tells_others_once_what_stands_in_the_end(world):
    yes, no = pb.CONSENT_STATE_GRANTED, pb.CONSENT_STATE_REVOKED
    answers = (yes, "email"), (yes, "sms"), (no, "email")
    requests = [a_grant("p1", state=state, channel=channel) for state, channel in answers]

    world.call("BatchRecordConsents", pb.BatchRecordConsentsRequest(requests=requests))

    told = [fact.message for fact in world.store.facts]
    assert [(fact.channel, fact.state, fact.version) for fact in told] == [("email", no, 1), ("sms", yes, 1)]
    assert len(world.call("ListConsents", pb.ListConsentsRequest(profile_id="p1")).consents) == 3


def test_five_hundred_decisions_come_in_the_order_asked_and_one_more_is_refused(world):
    ids = [f"p{number}" for number in range(500)]
    world.call("BatchRecordConsents", pb.BatchRecordConsentsRequest(requests=[a_grant(i) for i in ids[::2]]))

    request = pb.BatchDecideRequest(profile_ids=ids, purpose_id="offers", channel="email")
    found = world.call("BatchDecide", request).decisions

    assert [decision.profile_id for decision in found] == ids
    assert [decision.allowed for decision in found] == [True, False] * 250
    request.profile_ids.append("one-more")
    assert world.refusal("BatchDecide", request)[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_purpose_refuses_instead_of_failing(world):
    found = world.call("Decide", pb.DecideRequest(profile_id="p1", purpose_id="unheard-of", channel="email"))

    assert (found.allowed, found.reason) == (False, "UNKNOWN_PURPOSE")


def test_a_material_version_asks_again(world):
    world.call("RecordConsent", a_grant("p1"))

    version = a_notice_version(effective=NOW - timedelta(minutes=1), material=True, body="新：我们也发送短信。")
    world.call("PublishNotice", pb.PublishNoticeRequest(notice_id="member", version=version))

    assert world.decide("p1") == "NOTICE_OUTDATED"


def test_a_repeated_publication_makes_one_version(world):
    request = pb.PublishNoticeRequest(notice_id="member", version=a_notice_version(effective=NOW), request_id="r-1")

    world.call("PublishNotice", request)

    assert len(world.call("PublishNotice", request).versions) == 2


def test_a_publication_with_the_request_id_of_the_creation_or_of_another_caller_is_one_of_its_own(world):
    notice = pb.Notice(display_name="门店隐私告知", versions=[a_notice_version()])
    world.call("CreateNotice", pb.CreateNoticeRequest(notice_id="store", notice=notice, request_id="1"))
    request = pb.PublishNoticeRequest(notice_id="store", version=a_notice_version(effective=NOW), request_id="1")
    other = world.harness.stub(consent_pb2_grpc.ConsentServiceStub, caller="app:other@sales")

    world.call("PublishNotice", request)

    assert len(world.call("PublishNotice", request, other).versions) == 3


def test_looking_back_shows_the_decision_of_that_time(world):
    world.call("RecordConsent", a_grant("p1"))
    before = a_time(datetime.now(UTC) + timedelta(milliseconds=1))
    threading.Event().wait(0.01)
    world.call("RevokeConsent", revoke("p1"))

    assert world.decide("p1", at=before) == "GRANTED"
    assert world.decide("p1") == "REVOKED"


def test_records_are_listed_newest_first_and_paged(world):
    for minute in (5, 3, 4):
        when = a_time(NOW - timedelta(minutes=minute))
        world.call("RecordConsent", a_grant("p1", state=pb.CONSENT_STATE_DENIED, answer_time=when))

    first = world.call("ListConsents", pb.ListConsentsRequest(profile_id="p1", page_size=2))
    rest = pb.ListConsentsRequest(profile_id="p1", page_size=2, page_token=first.next_page_token)
    second = world.call("ListConsents", rest)

    times = [record.answer_time.seconds for record in (*first.consents, *second.consents)]
    assert times == sorted(times, reverse=True)
    assert (len(first.consents), len(second.consents), second.next_page_token) == (2, 1, "")


def test_a_purpose_is_created_once(world):
    again = pb.CreatePurposeRequest(purpose_id="offers", purpose=a_purpose())

    assert world.refusal("CreatePurpose", again) == (grpc.StatusCode.ALREADY_EXISTS, "PURPOSE_EXISTS")


def test_a_repeated_creation_with_its_request_id_returns_the_first(world):
    request = pb.CreatePurposeRequest(purpose_id="sms", purpose=a_purpose(channels=["sms"]), request_id="r-1")

    assert world.call("CreatePurpose", request) == world.call("CreatePurpose", request)


def test_a_purpose_needs_a_notice_that_exists(world):
    request = pb.CreatePurposeRequest(purpose_id="other", purpose=a_purpose(notice_id="missing"))

    assert world.refusal("CreatePurpose", request) == (grpc.StatusCode.NOT_FOUND, "NOTICE_NOT_FOUND")


def test_a_retired_purpose_refuses_at_once(world):
    world.call("RecordConsent", a_grant("p1"))
    known = world.call("GetPurpose", pb.GetPurposeRequest(purpose_id="offers"))

    change = pb.Purpose(state=pb.PURPOSE_STATE_RETIRED, etag=known.etag)
    retired = world.call("UpdatePurpose", pb.UpdatePurposeRequest(purpose_id="offers", purpose=change))

    assert (retired.display_name, world.decide("p1")) == ("会员优惠邮件", "PURPOSE_RETIRED")
    stale = pb.UpdatePurposeRequest(purpose_id="offers", purpose=pb.Purpose(display_name="x", etag=known.etag))
    assert world.refusal("UpdatePurpose", stale) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


def test_a_purpose_is_not_given_a_basis_that_there_is_not(world):
    request = pb.UpdatePurposeRequest(purpose_id="offers", purpose=pb.Purpose(legal_basis=99))

    assert bad_fields(lambda: world.call("UpdatePurpose", request)) == ["legal_basis"]


def test_an_update_of_a_field_that_is_not_changeable_is_refused(world):
    request = pb.UpdatePurposeRequest(purpose_id="offers", purpose=a_purpose())
    request.update_mask.paths.append("create_time")

    assert world.refusal("UpdatePurpose", request) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_NOT_CHANGEABLE")


def test_lists_page_by_id(world):
    for name in ("aa", "bb"):
        world.call("CreatePurpose", pb.CreatePurposeRequest(purpose_id=name, purpose=a_purpose()))

    first = world.call("ListPurposes", pb.ListPurposesRequest(page_size=2))
    second = world.call("ListPurposes", pb.ListPurposesRequest(page_size=2, page_token=first.next_page_token))

    assert [p.name for p in (*first.purposes, *second.purposes)] == ["purposes/aa", "purposes/bb", "purposes/offers"]
    assert [n.name for n in world.call("ListNotices", pb.ListNoticesRequest()).notices] == ["notices/member"]


def test_marketing_may_decide_and_revoke_as_itself_but_not_record(world):
    marketing = world.harness.stub(consent_pb2_grpc.ConsentServiceStub, caller="", purpose="", peer="marketing")
    search = world.harness.stub(consent_pb2_grpc.ConsentServiceStub, caller="", purpose="", peer="search")
    world.call("RecordConsent", a_grant("p1"))

    unsubscribe = revoke("p1", request_id="d1")
    assert world.call("RevokeConsent", unsubscribe, marketing).state == pb.CONSENT_STATE_REVOKED
    denied = grpc.StatusCode.PERMISSION_DENIED
    assert world.refusal("RecordConsent", a_grant("p1"), marketing)[0] == denied
    batch = pb.BatchDecideRequest(profile_ids=["p1"], purpose_id="offers", channel="email")
    assert not world.call("BatchDecide", batch, marketing).decisions[0].allowed
    assert world.refusal("BatchDecide", batch, search)[0] == denied


def test_personal_parts_of_a_record_are_hidden_without_a_grant_for_them(world, policy):
    world.call("RecordConsent", a_grant("p1"))
    policy.obligations = Obligations()

    (record,) = world.call("ListConsents", pb.ListConsentsRequest(profile_id="p1")).consents

    assert (record.purpose_id, record.notice_version) == ("offers", 1)
    assert (record.state, record.masked_address, record.HasField("answer_time")) == (0, "", False)
    policy.obligations = ALL_SHOWN


def test_a_row_filter_that_cannot_be_applied_refuses(world, policy):
    policy.obligations = Obligations(row_filter=(Condition("owner_department", ("sales",)),))

    found = world.refusal("ListConsents", pb.ListConsentsRequest(profile_id="p1"))

    assert found[0] == grpc.StatusCode.PERMISSION_DENIED


def test_recording_needs_a_purpose_of_access(world):
    stub = world.harness.stub(consent_pb2_grpc.ConsentServiceStub, purpose="")

    assert world.refusal("RecordConsent", a_grant("p1"), stub) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "PURPOSE_REQUIRED",
    )


def test_answers_given_at_once_from_many_sides_are_all_kept(world):
    def grant(number):
        world.call("RecordConsent", a_grant("p1", state=pb.CONSENT_STATE_DENIED, request_id=f"r-{number}"))

    threads = [threading.Thread(target=grant, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(world.call("ListConsents", pb.ListConsentsRequest(profile_id="p1")).consents) == 6


@pytest.mark.parametrize(
    "when",
    [
        datetime(2026, 11, 1, 8, 30, 15, 250_000, UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 1, UTC),
        datetime(2026, 11, 1, 8, 30, tzinfo=timezone(timedelta(hours=8))),
    ],
)
def test_times_of_a_record_are_told_as_they_are(when):
    expected = Timestamp()
    expected.FromDatetime(when)

    told = record_to_proto("p1", ConsentRecord("r1", "offers", "sms", ConsentState.GRANTED, when, when))

    assert (told.answer_time, told.create_time) == (expected, expected)
    assert not told.HasField("expire_time") and told.state == pb.CONSENT_STATE_GRANTED
