"""Every field of every proto that holds a profile's id follows a merge and an unmerge, or is listed with its reason.

A person `b` is merged into `a` and split out again. In each of the three states the same looks are taken, all asking
by the id `b`: apart and after the split every reply must name `b`, and while they are one `a`, never the other.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kehu.analytics.v1 import analytics_pb2, audience_pb2
from kehu.consent.v1 import consent_pb2
from kehu.marketing.v1 import messages_pb2, resources_pb2
from kehu.profiles.v1 import profiles_pb2, quality_pb2, relations_pb2, reveal_pb2
from kehu.search.v1 import search_pb2
from kehu.tickets.v1 import tickets_pb2

from services.chassis.records import new_id
from services.marketing.domain.deliveries import Delivery, DeliveryState
from services.profiles.quality.measuring import Measurer
from services.profiles.quality.rules import plain_of
from services.profiles.quality.values import StoredQualityRule
from services.profiles.values import Pair, place_of
from tests.consent.test_api import a_grant
from tests.following.company import Company, Seen, company, stamp
from tests.following.fields import STAYS, profile_fields
from tests.profiles.people import person

FIELDS = [field.full_name for field in profile_fields()]
HEX = re.compile(r"[0-9a-f]{32}")
ONLY_B = audience_pb2.AudienceRule(
    event=audience_pb2.EventCondition(
        event_type="order_completed",
        measure=audience_pb2.MEASURE_COUNT,
        operator=audience_pb2.OPERATOR_GE,
        value=1,
        category="only-b",
    )  # fmt: skip
)


class Story:
    """Two people and a third, in the three states; what was seen in each."""

    def __init__(self, firm: Company) -> None:
        self.firm = firm
        self.a, self.a_keys = firm.somebody(2)
        self.b, self.b_keys = firm.somebody(1)
        self.c, self.c_keys = firm.somebody(1)
        self.record_id = self.b_keys[0].partition("/")[2]
        self.fields = {**person(2), "email": ""}
        self.seen: dict[str, list[Seen]] = {}
        self.is_one = False
        self._begin()

    def call(self, service: str, method: str, request: object) -> object:
        return self.firm.call(service, method, request)  # type: ignore[arg-type]

    def _begin(self) -> None:
        """Let others be in touch with b: what is there before the merge."""
        self.firm.take("till", self.record_id, self.fields)
        for one, other in ((self.b, self.c), (self.c, self.b)):
            number = str(self.firm.number())
            pair = Pair(new_id(number), one, other, 1.0, 0.5, place=place_of(50, number))
            self.firm.profiles.pairs.insert(pair)
            relation = relations_pb2.Relationship(
                type="relationTypes/referral", profile=f"profiles/{one}", other_profile=f"profiles/{other}"
            )
            self.call("profiles", "CreateRelationship", relations_pb2.CreateRelationshipRequest(relationship=relation))
        self.ticket = self.new_ticket()
        for who in (self.b, self.c):
            self.call("consent", "RecordConsent", a_grant(who, purpose_id="stewardship"))
        sent = Delivery("d" * 32, "c1", "r1", 0, self.b, "email", "offers", DeliveryState.SENT, datetime.now(UTC))
        self.firm.marketing.save_deliveries([sent])
        rule = quality_pb2.QualityRule(
            dimension=quality_pb2.QUALITY_DIMENSION_COMPLETENESS, field="email", threshold=0.999
        )
        self.firm.profiles.quality_rules.insert(StoredQualityRule("mails", plain_of(rule), 1))
        self.firm.post()

    def new_ticket(self) -> tickets_pb2.Ticket:
        """Open a ticket under b's id."""
        ticket = tickets_pb2.Ticket(
            kind=tickets_pb2.TICKET_KIND_COMPLAINT, subject="包装破损", profile=f"profiles/{self.b}"
        )
        return self.call("tickets", "CreateTicket", tickets_pb2.CreateTicketRequest(ticket=ticket))  # type: ignore[return-value]

    def look(self, state: str) -> None:
        """Take all looks and keep what was seen."""
        self.firm.post()
        self.firm.seen.clear()
        self.is_one = state == "one"
        for take in LOOKS:
            take(self)
        self.firm.post()
        self.seen[state] = list(self.firm.seen)


def look_at_the_profile(story: Story) -> None:
    name = f"profiles/{story.b}"
    story.call("profiles", "GetProfile", profiles_pb2.GetProfileRequest(name=name))
    story.call("profiles", "GetProfileLineage", profiles_pb2.GetProfileLineageRequest(name=name))
    story.call("profiles", "GetProfileHistory", profiles_pb2.GetProfileHistoryRequest(name=name))
    why = {"reason_code": reveal_pb2.RevealFieldRequest.REASON_CODE_IDENTITY_CHECK, "reason": "T20261122-000017"}
    story.call("profiles", "RevealField", reveal_pb2.RevealFieldRequest(name=name, field="phone", **why))
    made = profiles_pb2.CreateOverrideRequest(parent=name, field="phone", value="13600001111", reason="said so")
    made.expire_time.CopyFrom(stamp(-timedelta(days=9)))
    override = story.call("profiles", "CreateOverride", made)
    story.call("profiles", "ListOverrides", profiles_pb2.ListOverridesRequest(parent=name))
    asked = f"{name}/overrides/{override.name.rpartition('/')[2]}"
    story.call("profiles", "DeleteOverride", profiles_pb2.DeleteOverrideRequest(name=asked))


def look_at_its_record(story: Story) -> None:
    fields = {**story.fields, "address": f"浙江省杭州市西湖区文三路{story.firm.number() + 900}号"}
    story.firm.take("till", story.record_id, fields)
    request = profiles_pb2.ResolveSourceRecordsRequest(source_id="till", source_record_ids=[story.record_id])
    story.firm.call("profiles", "ResolveSourceRecords", request, peer="analytics")
    contacts = profiles_pb2.BatchGetContactsRequest(profile_ids=[story.b], channel="sms")
    story.firm.call("profiles", "BatchGetContacts", contacts, peer="marketing")


def look_at_relations(story: Story) -> None:
    name = f"profiles/{story.b}"
    story.call("profiles", "ListRelationships", relations_pb2.ListRelationshipsRequest(parent=name))
    story.call("profiles", "GetNetwork", relations_pb2.GetNetworkRequest(name=name, depth=1, channel="email"))


def look_at_pairs(story: Story) -> None:
    story.call("profiles", "ListMatchCandidates", profiles_pb2.ListMatchCandidatesRequest())


def look_at_quality(story: Story) -> None:
    firm = story.firm
    measurer = Measurer(firm.profiles, firm.vault, firm.dictionary, firm.tools.jobs, 10, save_seconds=0)
    story.call("profiles", "MeasureQuality", quality_pb2.MeasureQualityRequest(request_id=str(firm.number())))
    firm.work(measurer.handlers())
    found = story.call("profiles", "ListQualityIncidents", quality_pb2.ListQualityIncidentsRequest())
    for incident in found.quality_incidents:
        request = quality_pb2.GetQualityIncidentRequest(name=incident.name)
        story.call("profiles", "GetQualityIncident", request)


def look_at_consents(story: Story) -> None:
    story.call("consent", "RecordConsent", a_grant(story.b))
    wishes = consent_pb2.BatchRecordConsentsRequest(requests=[a_grant(story.b, channel="sms")])
    story.call("consent", "BatchRecordConsents", wishes)
    story.call("consent", "ListConsents", consent_pb2.ListConsentsRequest(profile_id=story.b))
    asked = {"purpose_id": "offers", "channel": "sms"}
    story.call("consent", "Decide", consent_pb2.DecideRequest(profile_id=story.b, **asked))
    story.call("consent", "BatchDecide", consent_pb2.BatchDecideRequest(profile_ids=[story.b], **asked))
    story.call(
        "consent", "RevokeConsent",
        consent_pb2.RevokeConsentRequest(profile_id=story.b, collected_via=consent_pb2.COLLECTED_VIA_WEB, **asked),
    )  # fmt: skip


def look_at_tickets(story: Story) -> None:
    story.call("tickets", "GetTicket", tickets_pb2.GetTicketRequest(name=story.ticket.name))
    story.new_ticket()
    story.call("tickets", "ListTickets", tickets_pb2.ListTicketsRequest(profile=f"profiles/{story.b}"))


def look_at_behaviour(story: Story) -> None:
    bought = analytics_pb2.Interaction(
        profile=f"profiles/{story.b}", message_id=f"m{story.firm.number()}", event_type="order_completed",
        amount_cents=100, quantity=1, category="only-b", event_time=stamp(timedelta(minutes=1)),
    )  # fmt: skip
    bought.source_record.source, bought.source_record.source_record_id = "sources/till", story.record_id
    request = analytics_pb2.BatchCreateInteractionsRequest(interactions=[bought])
    story.call("analytics", "BatchCreateInteractions", request)
    story.firm.post()
    listed = analytics_pb2.ListInteractionsRequest(parent=f"profiles/{story.b}")
    story.call("analytics", "ListInteractions", listed)
    story.firm.compute_scores()
    story.call("analytics", "GetScores", analytics_pb2.GetScoresRequest(name=f"profiles/{story.b}/scores"))
    batch = analytics_pb2.BatchGetScoresRequest(profile_ids=[story.a, story.b] if story.is_one else [story.b])
    story.firm.call("analytics", "BatchGetScores", batch, peer="profiles")
    story.call("analytics", "EvaluateAudience", analytics_pb2.EvaluateAudienceRequest(rule=ONLY_B))


def look_at_marketing(story: Story) -> None:
    asked = {"profile_id": story.b}
    story.call("marketing", "PreviewSegment", messages_pb2.PreviewSegmentRequest(rule=ONLY_B))
    story.call("marketing", "ListDeliveries", messages_pb2.ListDeliveriesRequest(campaign_id="-", **asked))
    suppressed = resources_pb2.Suppression(channel="email", reason="complaint", **asked)
    story.call("marketing", "CreateSuppression", messages_pb2.CreateSuppressionRequest(suppression=suppressed))
    story.call("marketing", "ListSuppressions", messages_pb2.ListSuppressionsRequest(**asked))


def look_at_the_index(story: Story) -> None:
    story.firm.post()
    phone = story.fields["phone"]
    story.call("search", "Search", search_pb2.SearchRequest(q=phone, types=["profiles"]))
    story.call("search", "Search", search_pb2.SearchRequest(q="包装破损", types=["tickets"]))


LOOKS: list[Callable[[Story], None]] = [
    look_at_the_profile, look_at_its_record, look_at_relations, look_at_pairs, look_at_quality, look_at_consents,
    look_at_tickets, look_at_behaviour, look_at_marketing, look_at_the_index,
]  # fmt: skip


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with company(Path(tmp_path_factory.mktemp("company"))) as firm:
        told = Story(firm)
        told.look("apart")
        assert firm.merge(told.a, told.b) == told.a
        told.look("one")
        firm.seen.clear()
        assert firm.unmerge(told.b, told.b_keys) == (told.a, told.b), "asked by a former id"
        told.seen["one"] += [item for item in firm.seen if item.way == "asked"]
        told.look("split")
        yield told


def values_by_message(story: Story, state: str) -> dict[str, set[str]]:
    """Return which of the two people the fields of a message named, those that stay left out."""
    found = defaultdict(set)
    for seen in story.seen[state]:
        if seen.way != "asked" and seen.field in FIELDS and seen.field not in STAYS:
            found[seen.field.rpartition(".")[0]] |= {item for item in (story.a, story.b) if item in seen.value}
    return found


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in STAYS])
def test_a_field_that_holds_a_profiles_id_follows_a_merge_and_an_unmerge(story: Story, field: str) -> None:
    message = field.rpartition(".")[0]
    answered = {state: [item for item in seen if item.field == field and item.way != "asked"]
                for state, seen in story.seen.items()}  # fmt: skip
    if any(answered.values()):
        assert all(answered.values()), f"seen in {[state for state, seen in answered.items() if seen]} only: add a look"
        expected = {"apart": {story.b}, "one": {story.a}, "split": {story.b}}
        assert {state: values_by_message(story, state)[message] for state in expected} == expected
    else:
        asked = [item for item in story.seen["one"] if item.field == field and story.b in item.value]
        assert asked, "no look asks by a former id: add one to LOOKS, or say in STAYS why it need not follow"


def test_no_field_holds_a_profiles_id_without_saying_so(story: Story) -> None:
    ids = {story.a, story.b, story.c}
    unsaid = {
        seen.field for found in story.seen.values() for seen in found
        if ids & set(HEX.findall(seen.value)) and seen.field not in FIELDS
    }  # fmt: skip
    assert not unsaid, f"name them …profile…, or say profiles/{{id}} in their comment: {sorted(unsaid)}"


def test_what_stays_is_there_and_says_why() -> None:
    assert set(STAYS) <= set(FIELDS)
    assert all(len(reason) > 20 for reason in STAYS.values())
