"""The marketing service over gRPC, with the real consent service beside it and a job worker behind it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from kehu.analytics.v1 import audience_pb2 as aud
from kehu.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from kehu.consent.v1 import consent_pb2
from kehu.consent.v1.consent_pb2_grpc import ConsentServiceStub, add_ConsentServiceServicer_to_server
from kehu.marketing.v1 import marketing_pb2_grpc
from kehu.marketing.v1 import messages_pb2 as pb
from kehu.marketing.v1 import resources_pb2 as res
from kehu.profiles.v1.profiles_pb2_grpc import ProfilesServiceStub

from services.analytics.domain.errors import StalePageToken
from services.chassis.access import ALL_SHOWN, Obligations
from services.chassis.access.values import Condition
from services.chassis.errors import Conflict, Unavailable
from services.chassis.jobs import MemoryOperations, Worker
from services.chassis.server import Serving
from services.consent.api import ConsentServicer
from services.consent.store import MemoryConsentStore
from services.marketing.api import MarketingServicer
from services.marketing.domain.campaigns import CampaignState
from services.marketing.domain.links import delivery_of, unsubscribe_token
from services.marketing.gate import SUPPRESSION_USE_SECONDS, Gate
from services.marketing.jobs import REVOKE, RUN, START_GRACE, CampaignRunner, ConsentRevoker
from services.marketing.operations import CampaignOperations
from services.marketing.optouts import Surroundings
from services.marketing.ports import MailStale
from services.marketing.remotes import RemoteAudiences, RemoteConsents, RemoteContacts
from services.marketing.sending import Clocks, Sender
from services.marketing.store_memory import MemoryMarketingStore
from tests.fakes.analytics_fake import AnalyticsFake, analytics_serving
from tests.fakes.profiles_fake import ProfilesFake, profiles_serving
from tests.harness import OpenPolicy, bad_fields, running

KEY = b"k" * 32
RULE = aud.AudienceRule(trait=aud.TraitCondition(trait="tier", operator=aud.OPERATOR_EQ, values=["gold"]))
NEVER_QUIET = res.QuietHours(start="00:00", end="00:00")


class Outbox:
    """A mailer that keeps what it was given."""

    def __init__(self):
        self.mails = []

    def send(self, mail, may_send):
        if not may_send():
            raise MailStale
        self.mails.append(mail)


class World:
    """A running marketing service, the services it calls, and its worker."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.policy = OpenPolicy()
        self.analytics, self.profiles = AnalyticsFake(), ProfilesFake()
        self.consent_waits: list[float] = []
        consent = ConsentServicer(MemoryConsentStore(), settle=self.consent_waits.append)
        others = {
            "analytics": stack.enter_context(running(analytics_serving(self.analytics))),
            "profiles": stack.enter_context(running(profiles_serving(self.profiles))),
            "consent": stack.enter_context(
                running(Serving("consent", [(add_ConsentServiceServicer_to_server, consent)]))
            ),
        }
        self.store, self.outbox, self.waits = MemoryMarketingStore(), Outbox(), []
        self.operations = MemoryOperations()
        jobs = CampaignOperations(self.store, self.operations)
        forwarded = others["analytics"].stub(AnalyticsServiceStub, peer="marketing", forward=True)
        self.late = timedelta()
        now = lambda: datetime.now(UTC) + self.late  # noqa: E731
        around = Surroundings(lambda token: delivery_of((KEY,), token), now, self.waits.append)
        servicer = MarketingServicer(self.store, jobs, forwarded, around)
        add = marketing_pb2_grpc.add_MarketingServiceServicer_to_server
        harness = stack.enter_context(running(Serving("marketing", [(add, servicer)], jobs), self.policy))
        self.harness = harness
        self.stub = harness.stub(
            marketing_pb2_grpc.MarketingServiceStub, caller="user:mia@marketing", purpose="marketing"
        )
        self.long_running = harness.stub(operations_pb2_grpc.OperationsStub, caller="user:mia@marketing")
        self.consent = others["consent"].stub(ConsentServiceStub)
        self.worker = self._worker(others)

    def _worker(self, others):
        def own(name, stub):
            return others[name].stub(stub, caller="", purpose="", peer="marketing")

        consents = RemoteConsents(own("consent", ConsentServiceStub))
        contacts = RemoteContacts(own("profiles", ProfilesServiceStub))
        gate = Gate(self.store, consents, contacts, lambda address: f"token-{address}")
        clocks = Clocks(lambda: datetime.now(UTC), time.monotonic)
        link = lambda one: f"https://kehu.example/v1/unsubscribe/{unsubscribe_token(KEY, one)}"  # noqa: E731
        sender = Sender(self.store, gate, self.outbox, link, clocks)
        audiences = RemoteAudiences(own("analytics", AnalyticsServiceStub))
        runner = CampaignRunner(self.store, audiences, gate, sender, clocks, self.operations)
        handlers = {RUN: runner, REVOKE: ConsentRevoker(self.store, consents)}
        return Worker("marketing", handlers, self.operations)

    def call(self, method, request, stub=None):
        return getattr(stub or self.stub, method)(request, timeout=10)

    def refusal(self, method, request, stub=None):
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, request, stub)
        info = error_details_pb2.ErrorInfo()
        for detail in rpc_status.from_call(caught.value).details:
            detail.Unpack(info)
        return caught.value.code(), info.reason

    def work(self):
        """Run every job that can go on."""
        for _ in range(20):
            for document in self.operations._documents.values():
                document["wake_at"] = datetime.now(UTC)
            if not self.worker.run_one():
                return

    def turns(self, count):
        """Let the worker take so many turns, the job that waits longest first."""
        for _ in range(count):
            waiting = sorted(self.operations._documents.items(), key=lambda item: item[1]["wake_at"])
            self.operations._documents = dict(waiting)
            self.worker.run_one()

    def segment(self, **changes):
        segment = res.Segment(display_name="金卡会员", rule=RULE, **changes)
        return self.call("CreateSegment", pb.CreateSegmentRequest(segment=segment)).name.partition("/")[2]

    def campaign(self, request_id="", **changes):
        fields = {
            "display_name": "五月优惠", "segment_id": changes.pop("segment_id", "") or self.segment(),
            "purpose_id": "offers", "channel": "email", "quiet_hours": NEVER_QUIET,
            "template": res.Template(subject="您好 {{display_name}}", text="您好 {{display_name}}，五月优惠。"),
        }  # fmt: skip
        request = pb.CreateCampaignRequest(campaign=res.Campaign(**(fields | changes)), request_id=request_id)
        return self.call("CreateCampaign", request).name.partition("/")[2]

    def people(self, count, prefix="p"):
        """Let people p0, p1, … be the audience; all are reachable and consented."""
        ids = [f"{prefix}{number}" for number in range(count)]
        self.analytics.audience = ids
        self.profiles.contacts = {one: (f"顾客{one}", f"{one}@example.cn") for one in ids}
        requests = [consent_pb2.RecordConsentRequest(profile_id=one, consent=a_grant()) for one in ids]
        found = self.consent.BatchRecordConsents(consent_pb2.BatchRecordConsentsRequest(requests=requests), timeout=10)
        assert [result.reason for result in found.results] == [""] * count

    def run(self, campaign_id, request_id=""):
        request = pb.RunCampaignRequest(campaign_id=campaign_id, request_id=request_id)
        return self.call("RunCampaign", request)

    def report(self, campaign_id):
        report = self.call("GetCampaignReport", pb.GetCampaignReportRequest(campaign_id=campaign_id))
        parts = report.sent + report.skipped + report.failed + report.unknown + report.pending
        assert parts == report.audience
        return report


def a_grant():
    now = datetime.now(UTC)
    grant = consent_pb2.ConsentRecord(
        purpose_id="offers", channel="email", state=consent_pb2.CONSENT_STATE_GRANTED, notice_version=1,
        language="zh-CN", collected_via=consent_pb2.COLLECTED_VIA_WEB,
    )  # fmt: skip
    grant.shown_time.FromDatetime(now - timedelta(minutes=1))
    return grant


@pytest.fixture
def world():
    with contextlib.ExitStack() as stack:
        found = World(stack)
        version = consent_pb2.NoticeVersion(texts=[consent_pb2.NoticeText(language="zh-CN", body="告知")])
        version.effective_time.FromSeconds(1_700_000_000)
        notice = consent_pb2.Notice(display_name="告知", versions=[version])
        found.consent.CreateNotice(consent_pb2.CreateNoticeRequest(notice_id="member", notice=notice), timeout=5)
        purpose = consent_pb2.Purpose(
            display_name="优惠", legal_basis=consent_pb2.LEGAL_BASIS_CONSENT, data_categories=["contact"],
            channels=["email"], retention_days=365, notice_id="member",
        )  # fmt: skip
        request = consent_pb2.CreatePurposeRequest(purpose_id="offers", purpose=purpose)
        found.consent.CreatePurpose(request, timeout=5)
        yield found


def test_a_preview_counts_with_the_callers_own_rights_and_shows_at_most_ten(world):
    world.people(12)

    found = world.call("PreviewSegment", pb.PreviewSegmentRequest(segment_id=world.segment()))

    assert (found.total, len(found.sample_profile_ids)) == (12, 10)
    assert world.analytics.askers == ["user:mia"]
    tried = world.call("PreviewSegment", pb.PreviewSegmentRequest(rule=RULE))
    assert tried.total == 12


def test_a_segment_with_a_rule_that_cannot_be_evaluated_is_refused(world):
    bad = aud.AudienceRule(trait=aud.TraitCondition(trait="tier", operator=aud.OPERATOR_LT, values=["gold"]))
    request = pb.CreateSegmentRequest(segment=res.Segment(display_name="x", rule=bad))

    assert world.refusal("CreateSegment", request) == (grpc.StatusCode.INVALID_ARGUMENT, "RULE_INVALID")


def test_a_segment_is_changed_by_mask_and_etag(world):
    segment_id = world.segment()
    known = world.call("GetSegment", pb.GetSegmentRequest(segment_id=segment_id))

    change = pb.UpdateSegmentRequest(segment_id=segment_id, segment=res.Segment(display_name="银卡", etag=known.etag))
    changed = world.call("UpdateSegment", change)

    assert (changed.display_name, changed.rule, changed.owner_department) == ("银卡", RULE, "marketing")
    assert world.refusal("UpdateSegment", change) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


def test_the_mask_of_an_update_names_only_what_can_be_changed(world):
    segment = pb.UpdateSegmentRequest(segment_id=world.segment(), segment=res.Segment(owner_department="sales"))
    segment.update_mask.paths.append("owner_department")
    campaign = pb.UpdateCampaignRequest(campaign_id=world.campaign(), campaign=res.Campaign(run_id="mine"))
    campaign.update_mask.paths.append("run_id")

    refused = (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_NOT_CHANGEABLE")
    assert [world.refusal("UpdateSegment", segment), world.refusal("UpdateCampaign", campaign)] == [refused, refused]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"quiet_hours": res.QuietHours(start="99:99", end="08:00")}, "quiet_hours"),
        ({"template": res.Template(subject="s", text="x" * 100_001)}, "template"),
        ({"currency": "yuan"}, "currency"),
    ],
)
def test_what_a_campaign_may_not_be_created_with_it_is_not_changed_to(world, changes, field):
    campaign_id = world.campaign()
    request = pb.UpdateCampaignRequest(campaign_id=campaign_id, campaign=res.Campaign(**changes))
    request.update_mask.paths.append(field)

    (bad,) = bad_fields(lambda: world.call("UpdateCampaign", request))
    assert bad.partition(".")[0] == field


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_a_segment_keeps_a_name_of_reasonable_length(world, name):
    request = pb.UpdateSegmentRequest(segment_id=world.segment(), segment=res.Segment(display_name=name))
    request.update_mask.paths.append("display_name")

    assert bad_fields(lambda: world.call("UpdateSegment", request)) == ["display_name"]


def test_a_campaign_without_purpose_is_refused(world):
    campaign = res.Campaign(
        display_name="x", segment_id=world.segment(), channel="email", template=res.Template(subject="s", text="t")
    )

    found = world.refusal("CreateCampaign", pb.CreateCampaignRequest(campaign=campaign))

    assert found == (grpc.StatusCode.INVALID_ARGUMENT, "SEND_WITHOUT_PURPOSE")


def test_a_campaign_for_a_segment_that_is_not_there_is_refused(world):
    campaign_fields = {"segment_id": "0" * 32}

    with pytest.raises(grpc.RpcError) as caught:
        world.campaign(**campaign_fields)

    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_same_request_creates_one_campaign_and_one_run(world):
    segment_id = world.segment()
    first = world.campaign("r-1", segment_id=segment_id)
    second = world.campaign("r-1", segment_id=segment_id)

    runs = [world.run(first, "run-1").name for _ in range(2)]

    assert first == second
    assert runs[0] == runs[1]


def begun_badly(world, monkeypatch, trouble):
    """Let a run's start end in trouble at the campaign's own write, and return the campaign."""
    campaign_id, save = world.campaign(), world.store.save_campaign
    with monkeypatch.context() as patched:
        patched.setattr(world.store, "save_campaign", lambda campaign, facts=(): trouble(save, campaign, facts))
        with pytest.raises(grpc.RpcError):
            world.run(campaign_id, "run-1")
    return campaign_id


def changed_meanwhile(save, campaign, facts):
    raise Conflict("changed")


def killed(save, campaign, facts):
    raise RuntimeError("killed")


@pytest.mark.parametrize("trouble", [changed_meanwhile, killed])
def test_a_start_that_was_cut_short_is_refused_when_repeated_and_a_new_request_runs(world, monkeypatch, trouble):
    world.people(2)
    campaign_id = begun_badly(world, monkeypatch, trouble)
    for run_id, run in world.store._runs.items():
        world.store._runs[run_id] = replace(run, start_time=run.start_time - START_GRACE)
    world.work()

    again = pb.RunCampaignRequest(campaign_id=campaign_id, request_id="run-1")
    assert world.refusal("RunCampaign", again) == (grpc.StatusCode.FAILED_PRECONDITION, "CAMPAIGN_STATE")
    assert world.store.campaign(campaign_id).state is CampaignState.DRAFT
    world.run(campaign_id, "run-2")
    world.work()
    assert world.report(campaign_id).sent == 2


def test_the_same_request_twice_at_the_same_moment_starts_one_run_and_ends_none(world, monkeypatch):
    world.people(2)
    campaign_id, save = world.campaign(), world.store.save_campaign

    def beaten(campaign, facts=()):
        save(campaign, facts)
        raise Conflict("the other request was quicker")

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "save_campaign", beaten)
        name = world.run(campaign_id, "run-1").name

    assert world.run(campaign_id, "run-1").name == name
    world.work()
    assert (world.store.campaign(campaign_id).state, world.report(campaign_id).sent) == (CampaignState.DONE, 2)


def test_a_request_repeated_after_a_later_run_returns_its_own_run_and_starts_none(world):
    world.people(2)
    campaign_id = world.campaign()
    names = []
    for request_id in ("run-1", "run-2", "run-1"):
        names.append(world.run(campaign_id, request_id).name)
        world.work()

    assert names[2] == names[0] != names[1]
    assert (world.store.campaign(campaign_id).state, len(world.outbox.mails)) == (CampaignState.DONE, 4)


def test_a_preview_shows_the_message_as_it_arrives(world):
    found = world.call("PreviewCampaign", pb.PreviewCampaignRequest(campaign_id=world.campaign()))

    assert found.subject == "您好 李小明"
    assert "example.invalid" in found.text


def test_a_run_writes_to_who_consented_and_says_why_not_to_the_others(world):
    world.people(6)
    world.analytics.audience.append("stranger")
    world.analytics.page_limit = 3
    del world.profiles.contacts["p5"]
    campaign_id = world.campaign()

    operation = world.run(campaign_id)
    world.work()

    report = world.report(campaign_id)
    assert operation.name.startswith("operations/marketing-")
    assert (report.audience, report.sent, report.state) == (7, 5, res.RUN_STATE_DONE)
    skips = {(skip.reason, skip.detail): skip.count for skip in report.skips}
    assert skips == {(res.SKIP_REASON_CONSENT, "NO_RECORD"): 1, (res.SKIP_REASON_NO_ADDRESS, ""): 1}
    assert world.outbox.mails[0].subject == "您好 顾客p0"
    assert report.HasField("data_cutoff") and report.HasField("end_time")


def test_one_unsubscribed_by_their_link_is_skipped_in_the_next_run_and_their_consent_withdrawn(world):
    world.people(3)
    campaign_id = world.campaign()
    world.run(campaign_id)
    world.work()
    anonymous = world.harness.stub(marketing_pb2_grpc.MarketingServiceStub, caller="", purpose="")
    mail = next(mail for mail in world.outbox.mails if mail.address == "p1@example.cn")
    token = mail.unsubscribe_url.rpartition("/")[2]

    for _ in range(2):
        world.call("Unsubscribe", pb.UnsubscribeRequest(token=token), anonymous)
    world.work()
    world.run(campaign_id)
    world.work()

    report = world.report(campaign_id)
    assert [(s.reason, s.count) for s in report.skips] == [(res.SKIP_REASON_SUPPRESSED, 1)]
    assert (report.sent, len(world.outbox.mails)) == (2, 5)
    asked = consent_pb2.DecideRequest(profile_id="p1", purpose_id="offers", channel="email")
    assert world.consent.Decide(asked, timeout=5).reason == "REVOKED"
    assert world.waits == [SUPPRESSION_USE_SECONDS] * 2, (
        "the acknowledgement waits until nothing checked before may still be sent"
    )
    listed = world.consent.ListConsents(consent_pb2.ListConsentsRequest(profile_id="p1"), timeout=5)
    assert len(listed.consents) == 2


def test_who_consents_again_and_clicks_the_old_link_again_has_withdrawn_again(world):
    world.people(1)
    world.run(world.campaign())
    world.work()
    link = pb.UnsubscribeRequest(token=world.outbox.mails[0].unsubscribe_url.rpartition("/")[2])
    world.call("Unsubscribe", link)
    world.work()
    world.consent.RecordConsent(consent_pb2.RecordConsentRequest(profile_id="p0", consent=a_grant()), timeout=5)
    asked = consent_pb2.DecideRequest(profile_id="p0", purpose_id="offers", channel="email")
    assert world.consent.Decide(asked, timeout=5).reason == "GRANTED"
    world.late = timedelta(hours=1)

    world.call("Unsubscribe", link)
    world.work()

    assert world.consent.Decide(asked, timeout=5).reason == "REVOKED"


def test_a_link_suppresses_the_address_of_who_was_suppressed_by_hand_before(world):
    world.people(1)
    world.run(world.campaign())
    world.work()
    (mail,) = world.outbox.mails
    by_hand = res.Suppression(profile_id="p0", channel="email", purpose_id="offers", reason="complaint")
    world.call("CreateSuppression", pb.CreateSuppressionRequest(suppression=by_hand))
    world.call("Unsubscribe", pb.UnsubscribeRequest(token=mail.unsubscribe_url.rpartition("/")[2]))

    assert world.store.suppressions_of([], [f"token-{mail.address}"])


def test_a_withdrawal_does_not_wait_behind_a_long_campaign(world):
    world.people(8)
    first = world.campaign()
    world.run(first)
    world.work()
    world.analytics.page_limit = 2
    world.run(world.campaign())
    token = world.outbox.mails[0].unsubscribe_url.rpartition("/")[2]
    anonymous = world.harness.stub(marketing_pb2_grpc.MarketingServiceStub, caller="", purpose="")
    world.call("Unsubscribe", pb.UnsubscribeRequest(token=token), anonymous)

    world.turns(2)

    asked = consent_pb2.DecideRequest(profile_id="p0", purpose_id="offers", channel="email")
    assert world.consent.Decide(asked, timeout=5).reason == "REVOKED"
    assert len(world.outbox.mails) < 8 + 7


def test_opening_the_link_changes_nothing(world):
    world.people(1)
    campaign_id = world.campaign()
    world.run(campaign_id)
    world.work()
    token = world.outbox.mails[0].unsubscribe_url.rpartition("/")[2]
    anonymous = world.harness.stub(marketing_pb2_grpc.MarketingServiceStub, caller="", purpose="")

    page = world.call("GetUnsubscribe", pb.GetUnsubscribeRequest(token=token), anonymous)

    assert b'method="post"' in page.data and page.content_type.startswith("text/html")
    assert world.store.suppressions_of(["p0"], []) == []


@pytest.mark.parametrize(
    "token", ["A" * 43, unsubscribe_token(b"x" * 32, "ab" * 16), unsubscribe_token(KEY, "ab" * 16)]
)
def test_a_link_nobody_sent_is_refused(world, token):
    found = world.refusal("Unsubscribe", pb.UnsubscribeRequest(token=token))

    assert found == (grpc.StatusCode.NOT_FOUND, "LINK_INVALID")


def test_a_link_carries_no_personal_data(world):
    world.people(1, prefix="somebody")
    campaign_id = world.campaign()
    world.run(campaign_id)
    world.work()

    url = world.outbox.mails[0].unsubscribe_url

    assert "somebody" not in url and "example.cn" not in url
    assert len(url.rpartition("/")[2]) == 43


def test_no_name_and_no_address_is_kept(world):
    world.people(2)
    campaign_id = world.campaign()
    world.run(campaign_id)
    world.work()

    kept = repr([vars(world.store), world.operations._documents])
    for value in ("顾客p0", "顾客p1"):
        assert value not in kept
    assert "p0@example.cn" not in kept.replace("token-p0@example.cn", "")


def test_deliveries_are_listed_by_campaign_and_by_person_over_all(world):
    world.people(3)
    campaign_id = world.campaign()
    world.run(campaign_id)
    world.work()
    world.store.identities.lead("p1", "p9", 2)

    first = world.call("ListDeliveries", pb.ListDeliveriesRequest(campaign_id=campaign_id, page_size=2))
    rest = pb.ListDeliveriesRequest(campaign_id=campaign_id, page_size=2, page_token=first.next_page_token)
    second = world.call("ListDeliveries", rest)
    person = world.call("ListDeliveries", pb.ListDeliveriesRequest(campaign_id="-", profile_id="p9"))

    listed = [delivery.profile_id for delivery in (*first.deliveries, *second.deliveries)]
    assert sorted(listed) == ["p0", "p1", "p2"]
    assert [delivery.profile_id for delivery in person.deliveries] == ["p1"]
    assert person.deliveries[0].consent_record_ids
    unnamed = world.refusal("ListDeliveries", pb.ListDeliveriesRequest(campaign_id="-"))
    assert unnamed == (grpc.StatusCode.INVALID_ARGUMENT, "PROFILE_NEEDED")


def test_states_are_kept_by_the_verbs(world):
    campaign_id = world.campaign()
    pause = pb.PauseCampaignRequest(campaign_id=campaign_id)
    assert world.refusal("PauseCampaign", pause) == (grpc.StatusCode.FAILED_PRECONDITION, "CAMPAIGN_STATE")

    world.run(campaign_id)
    assert world.call("PauseCampaign", pause).state == res.CAMPAIGN_STATE_PAUSED
    assert world.refusal("RunCampaign", pb.RunCampaignRequest(campaign_id=campaign_id))[1] == "CAMPAIGN_STATE"
    resumed = world.call("ResumeCampaign", pb.ResumeCampaignRequest(campaign_id=campaign_id))
    assert resumed.state == res.CAMPAIGN_STATE_RUNNING
    change = pb.UpdateCampaignRequest(campaign_id=campaign_id, campaign=res.Campaign(display_name="x"))
    assert world.refusal("UpdateCampaign", change)[1] == "CAMPAIGN_STATE"
    cancelled = world.call("CancelCampaign", pb.CancelCampaignRequest(campaign_id=campaign_id))
    assert cancelled.state == res.CAMPAIGN_STATE_CANCELLED


def test_a_verb_repeated_later_with_its_request_id_changes_nothing_and_another_one_does(world):
    campaign_id = world.campaign()
    world.run(campaign_id)
    pause = pb.PauseCampaignRequest(campaign_id=campaign_id, request_id="a")
    resume = pb.ResumeCampaignRequest(campaign_id=campaign_id, request_id="a")
    world.call("PauseCampaign", pause)
    assert world.call("PauseCampaign", pause).state == res.CAMPAIGN_STATE_PAUSED
    world.call("ResumeCampaign", resume)
    world.call("PauseCampaign", pb.PauseCampaignRequest(campaign_id=campaign_id))

    assert world.call("ResumeCampaign", resume).state == res.CAMPAIGN_STATE_PAUSED
    cancel = pb.CancelCampaignRequest(campaign_id=campaign_id, request_id="a")
    cancelled = [world.call("CancelCampaign", cancel).state for _ in range(2)]
    assert cancelled == [res.CAMPAIGN_STATE_CANCELLED] * 2


def test_a_request_id_of_another_caller_is_another_request(world):
    campaign_id = world.campaign()
    world.run(campaign_id)
    other = world.harness.stub(marketing_pb2_grpc.MarketingServiceStub, caller="app:crm@marketing", purpose="marketing")
    pause = pb.PauseCampaignRequest(campaign_id=campaign_id, request_id="1")
    world.call("PauseCampaign", pause)
    world.call("ResumeCampaign", pb.ResumeCampaignRequest(campaign_id=campaign_id))

    assert world.call("PauseCampaign", pause, other).state == res.CAMPAIGN_STATE_PAUSED


def test_a_run_asked_for_by_another_caller_with_the_same_request_id_is_a_run_of_its_own(world):
    world.people(1)
    campaign_id = world.campaign()
    other = world.harness.stub(marketing_pb2_grpc.MarketingServiceStub, caller="app:crm@marketing", purpose="marketing")
    request = pb.RunCampaignRequest(campaign_id=campaign_id, request_id="1")
    first = world.call("RunCampaign", request)
    refused = world.refusal("RunCampaign", request, other)
    world.work()

    second = world.call("RunCampaign", request, other)

    assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "CAMPAIGN_STATE")
    assert {first.name, second.name} == set(world.operations._documents)
    assert second.name != first.name and not second.done


def test_a_pause_or_a_cancel_holds_when_acknowledged(world):
    campaign_id = world.campaign()
    world.run(campaign_id)

    world.call("PauseCampaign", pb.PauseCampaignRequest(campaign_id=campaign_id))
    world.call("ResumeCampaign", pb.ResumeCampaignRequest(campaign_id=campaign_id))
    world.call("CancelCampaign", pb.CancelCampaignRequest(campaign_id=campaign_id))

    assert world.waits == [SUPPRESSION_USE_SECONDS] * 2, "nothing checked before may still be sent"


def test_cancelling_the_operation_of_a_run_cancels_the_campaign_and_skips_the_rest(world):
    world.people(6)
    world.analytics.page_limit = 2
    campaign_id = world.campaign()
    name = world.run(campaign_id).name
    world.turns(1)
    cancel = operations_pb2.CancelOperationRequest(name=name)
    world.call("CancelOperation", cancel, world.long_running)

    cancelled = world.call("GetCampaign", pb.GetCampaignRequest(campaign_id=campaign_id))
    assert cancelled.state == res.CAMPAIGN_STATE_CANCELLED
    again = pb.RunCampaignRequest(campaign_id=campaign_id)
    assert world.refusal("RunCampaign", again) == (grpc.StatusCode.FAILED_PRECONDITION, "CAMPAIGN_STATE")
    world.work()
    operation = world.call("GetOperation", operations_pb2.GetOperationRequest(name=name), world.long_running)
    report = res.CampaignReport()
    assert operation.response.Unpack(report)
    assert (report.state, report.audience, report.sent, report.pending) == (res.RUN_STATE_CANCELLED, 6, 2, 0)
    assert [(skip.reason, skip.count) for skip in report.skips] == [(res.SKIP_REASON_CANCELLED, 4)]
    assert len(world.outbox.mails) == 2
    assert world.refusal("CancelOperation", cancel, world.long_running)[0] == grpc.StatusCode.FAILED_PRECONDITION


def test_a_run_that_is_given_up_is_shown_as_failed_and_may_be_run_again(world):
    world.people(9)
    campaign_id = world.campaign()
    name, send = world.run(campaign_id).name, world.outbox.send
    world.outbox.send = lambda *_: 1 / 0
    world.work()

    operation = world.call("GetOperation", operations_pb2.GetOperationRequest(name=name), world.long_running)
    failed = world.call("GetCampaign", pb.GetCampaignRequest(campaign_id=campaign_id))
    report = world.call("GetCampaignReport", pb.GetCampaignReportRequest(campaign_id=campaign_id))
    assert operation.done and operation.error.code == grpc.StatusCode.INTERNAL.value[0]
    assert (failed.state, report.state) == (res.CAMPAIGN_STATE_FAILED, res.RUN_STATE_FAILED)
    assert (report.failure_reason, report.audience, report.pending) == ("JOB_FAILED", 9, 0)

    world.outbox.send = send
    world.run(campaign_id)
    world.work()
    again = world.call("GetCampaignReport", pb.GetCampaignReportRequest(campaign_id=campaign_id))
    assert (again.state, again.sent) == (res.RUN_STATE_DONE, 9)


def test_a_run_whose_audience_is_gone_ends_and_says_why(world):
    world.people(3)
    world.analytics.page_limit = 2
    campaign_id = world.campaign()
    world.run(campaign_id)
    world.turns(1)
    world.analytics.refusal = StalePageToken("start from the first page")
    world.turns(1)

    report = world.report(campaign_id)
    assert (report.state, report.failure_reason) == (res.RUN_STATE_FAILED, "AUDIENCE_REFUSED")
    assert (report.sent, report.skipped, world.store.campaign(campaign_id).state) == (2, 1, CampaignState.FAILED)


def test_a_run_whose_audience_is_away_waits_for_it(world):
    world.people(3)
    campaign_id = world.campaign()
    world.run(campaign_id)
    world.analytics.refusal = Unavailable("the lake does not answer")
    world.turns(1)

    assert world.report(campaign_id).pause_reason == "AUDIENCE_UNAVAILABLE"
    world.analytics.refusal = None
    world.work()
    assert world.report(campaign_id).sent == 3


def test_a_draft_is_changed_by_mask(world):
    campaign_id = world.campaign(budget_cents=100, message_cost_cents=5)
    request = pb.UpdateCampaignRequest(campaign_id=campaign_id, campaign=res.Campaign(display_name="六月"))
    request.update_mask.paths.extend(["display_name", "budget_cents"])

    changed = world.call("UpdateCampaign", request)

    assert (changed.display_name, changed.budget_cents, changed.message_cost_cents) == ("六月", 0, 5)


def test_a_campaign_that_never_ran_has_no_report(world):
    request = pb.GetCampaignReportRequest(campaign_id=world.campaign())

    assert world.refusal("GetCampaignReport", request) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")


def test_a_run_goes_by_the_rule_its_starter_may_ask_by_and_asks_as_the_starter(world):
    narrowed = aud.AudienceRule(
        trait=aud.TraitCondition(trait="owner_department", operator=aud.OPERATOR_EQ, values=["sales"])
    )
    world.people(2)
    world.analytics.narrowed = narrowed
    campaign_id = world.campaign()
    world.run(campaign_id)
    world.work()

    run_id = world.call("GetCampaign", pb.GetCampaignRequest(campaign_id=campaign_id)).run_id
    assert world.store.run(run_id).rule == narrowed.SerializeToString(deterministic=True)
    assert world.analytics.checkers == ["user:mia"]
    assert set(world.analytics.askers) == {"svc:marketing"}


def test_a_row_filter_narrows_to_the_departments_in_reach(world):
    segment_id = world.segment()
    campaign_id = world.campaign(segment_id=segment_id)
    world.policy.obligations = Obligations(row_filter=(Condition("owner_department", ("sales",)),))

    hidden = world.refusal("GetCampaign", pb.GetCampaignRequest(campaign_id=campaign_id))

    assert hidden == (grpc.StatusCode.NOT_FOUND, "CAMPAIGN_NOT_FOUND")
    assert list(world.call("ListSegments", pb.ListSegmentsRequest()).segments) == []
    assert list(world.call("ListCampaigns", pb.ListCampaignsRequest()).campaigns) == []
    world.policy.obligations = Obligations(row_filter=(Condition("owner_department", ("marketing",)),))
    assert len(world.call("ListCampaigns", pb.ListCampaignsRequest()).campaigns) == 1
    world.policy.obligations = Obligations(row_filter=(Condition("city_code", ("330100",)),))
    assert world.refusal("ListCampaigns", pb.ListCampaignsRequest())[0] == grpc.StatusCode.PERMISSION_DENIED
    world.policy.obligations = ALL_SHOWN


def test_lists_page(world):
    for _ in range(3):
        world.segment()

    first = world.call("ListSegments", pb.ListSegmentsRequest(page_size=2))
    second = world.call("ListSegments", pb.ListSegmentsRequest(page_size=2, page_token=first.next_page_token))

    names = [segment.name for segment in (*first.segments, *second.segments)]
    assert names == sorted(names) and len(set(names)) == 3


def test_a_suppression_by_hand_holds_and_is_listed(world):
    world.people(2)
    suppression = res.Suppression(profile_id="p0", channel="email", reason="complaint")
    world.call("CreateSuppression", pb.CreateSuppressionRequest(suppression=suppression))
    campaign_id = world.campaign()
    world.run(campaign_id)
    world.work()

    assert world.report(campaign_id).sent == 1
    listed = world.call("ListSuppressions", pb.ListSuppressionsRequest(profile_id="p0")).suppressions
    assert [one.reason for one in listed] == ["complaint"]
