"""Any sequence of merges and splits, the facts told late, shuffled and twice: all services end in agreement.

People say things under all names they ever had, and of all their records. What must be true in the end is worked out
beside the services: an id means what profiles says, things go with their record or their id, a refusal stands for
whoever was one person with the one who refused.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kehu.analytics.v1 import analytics_pb2
from kehu.consent.v1 import consent_pb2
from kehu.marketing.v1 import messages_pb2, resources_pb2
from kehu.profiles.v1 import profiles_pb2
from kehu.search.v1 import search_pb2
from kehu.tickets.v1 import tickets_pb2

from services.analytics.reading import Reader
from services.consent.store import consents_for
from services.profiles.aliases import resolve_one
from tests.consent.test_api import a_grant
from tests.following.company import Company, company, stamp
from tests.profiles.people import person

SEQUENCES = settings(  # not shrunk: each example costs about a second, and names its steps
    max_examples=20, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
PURPOSES = ("offers", "stewardship")


@pytest.fixture(scope="module")
def firm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with company(Path(tmp_path_factory.mktemp("company"))) as found:
        found.compute_scores()
        yield found


@dataclass
class Group:
    """Records that are one person now, what each of them refused, and whether they must not be written to."""

    records: set[str]
    refused: set[str] = field(default_factory=set)
    suppressed: bool = False


@dataclass
class Town:
    """Some people of a company, and what is true of them."""

    firm: Company
    chance: random.Random
    groups: list[Group] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    phones: dict[str, str] = field(default_factory=dict)
    tickets: dict[str, tuple[str, str]] = field(default_factory=dict)  # name → opened for, source record
    rows: dict[str, tuple[str, str]] = field(default_factory=dict)  # message id → profile, source record
    granted: list[set[str]] = field(default_factory=list)  # records of those who consented, all of them at once

    def settle(self, sizes: Sequence[int]) -> None:
        """Found people with so many records each; everybody consented to everything."""
        for size in sizes:
            name, keys = self.firm.somebody(size)
            self.names.append(name)
            self.groups.append(Group(set(keys)))
            self.granted.append(set(keys))
            self.phones[name] = person(int(keys[0].partition("/R")[2]))["phone"]
            for purpose in PURPOSES:
                grant = a_grant(name, purpose_id=purpose, answer_time=stamp(timedelta(minutes=1)))
                self.firm.call("consent", "RecordConsent", grant)
        self.firm.hand_on()

    def living(self, group: Group) -> str:
        """Return the profile that has a group's records."""
        (found,) = self.firm.profiles.by_record_keys([min(group.records)])
        assert set(found.record_keys) == group.records
        return str(found.profile_id)

    def means(self, name: str) -> str:
        """Return whom a name means."""
        return str(resolve_one(self.firm.profiles, name).profile_id)

    def a_name(self, group: Group) -> str:
        """Return one of the names of a group, current or former."""
        now = self.living(group)
        return self.chance.choice([name for name in self.names if self.means(name) == now])

    def merge(self, one: Group, other: Group) -> None:
        """Make two groups one."""
        self.firm.merge(self.living(one), self.living(other))
        one.records |= other.records
        one.refused |= other.refused
        one.suppressed |= other.suppressed
        self.groups.remove(other)

    def split(self, group: Group, leaving: set[str]) -> None:
        """Split a group in two."""
        left, went = self.firm.unmerge(self.living(group), sorted(leaving))
        self.names += [name for name in (left, went) if name not in self.names]
        group.records -= leaving
        self.groups.append(Group(set(leaving), set(group.refused), group.suppressed))

    def say(self, what: str, group: Group) -> None:
        """Let a person say or do something under one of their names, perhaps of one of their records."""
        name, record = self.a_name(group), self.chance.choice(["", *sorted(group.records)])
        if what == "refuse":
            purpose = self.chance.choice(PURPOSES)
            request = consent_pb2.RevokeConsentRequest(
                profile_id=name, purpose_id=purpose, channel="email", collected_via=consent_pb2.COLLECTED_VIA_WEB
            )
            self.firm.call("consent", "RevokeConsent", request)
            group.refused.add(purpose)
        elif what == "suppress":
            suppressed = resources_pb2.Suppression(channel="email", reason="complaint", profile_id=name)
            request = messages_pb2.CreateSuppressionRequest(suppression=suppressed)
            self.firm.call("marketing", "CreateSuppression", request)
            group.suppressed = True
        elif what == "ticket":
            ticket = tickets_pb2.Ticket(kind=1, subject="包装破损", profile=f"profiles/{name}")
            _about(ticket, record)
            made = self.firm.call("tickets", "CreateTicket", tickets_pb2.CreateTicketRequest(ticket=ticket))
            self.tickets[made.name] = name, record
        else:
            bought = analytics_pb2.Interaction(
                profile=f"profiles/{name}", message_id=f"m{self.firm.number()}", event_type="order_completed",
                amount_cents=100, quantity=1, event_time=stamp(timedelta(minutes=1)),
            )  # fmt: skip
            _about(bought, record)
            request = analytics_pb2.BatchCreateInteractionsRequest(interactions=[bought])
            self.firm.call("analytics", "BatchCreateInteractions", request)
            self.rows[bought.message_id] = name, record

    def owner(self, name: str, record: str) -> str:
        """Return whose a thing is: the record's where one was named, else the name's."""
        if record:
            return str(self.firm.profiles.by_record_keys([record])[0].profile_id)
        return self.means(name)

    # --- what the services say

    def refused(self, name: str) -> set[str]:
        """Return the purposes for which consent says no."""
        asked = [consent_pb2.DecideRequest(profile_id=name, purpose_id=item, channel="email") for item in PURPOSES]
        return {item.purpose_id for item in asked if not self.firm.call("consent", "Decide", item).allowed}

    def is_suppressed(self, name: str) -> bool:
        """Say whether marketing must not write to them."""
        request = messages_pb2.ListSuppressionsRequest(profile_id=name)
        return bool(self.firm.call("marketing", "ListSuppressions", request).suppressions)

    def rows_of(self, name: str) -> list[str]:
        """Return the interactions that the lake gives for a name."""
        request = analytics_pb2.ListInteractionsRequest(parent=f"profiles/{name}", page_size=200)
        return sorted(item.message_id for item in self.firm.call("analytics", "ListInteractions", request).interactions)

    def found(self, phone: str) -> list[str]:
        """Return the profiles that the index has under a phone."""
        request = search_pb2.SearchRequest(q=phone, types=["profiles"])
        return [hit.name.removeprefix("profiles/") for hit in self.firm.call("search", "Search", request).hits]

    def assert_agreed(self, *, is_exact: bool) -> None:
        """Every service says what is true; `is_exact` unless facts may have come after what was said."""
        for name in self.names:
            end = self.means(name)
            assert consents_for(self.firm.consent, [name])[name].profile_id == end
            for held in (self.firm.tickets.identities, self.firm.marketing.identities):
                assert held.living([name]).get(name, name) == end
            assert Reader(self.firm.warehouse).survivor(name, self.firm.warehouse.pin([])) == end
        for ticket, (name, record) in self.tickets.items():
            found = self.firm.call("tickets", "GetTicket", tickets_pb2.GetTicketRequest(name=ticket))
            assert found.profile == f"profiles/{self.owner(name, record)}"
        for group in self.groups:
            living = self.living(group)
            assert self.rows_of(living) == sorted(
                item for item, (name, record) in self.rows.items() if self.owner(name, record) == living
            )
            no_grant = not any(records <= group.records for records in self.granted)
            refused, expected = self.refused(living), set(PURPOSES) if no_grant else group.refused
            assert refused >= expected, "more is refused where it cannot be told whose a grant was"
            assert self.is_suppressed(living) == group.suppressed or (not is_exact and not group.suppressed)
        for name, phone in self.phones.items():
            holders = self.firm.profiles.by_record_keys([key for group in self.groups for key in group.records])
            expected = {item.profile_id for item in holders if self._has(item.profile_id, phone)}
            assert set(self.found(phone)) == expected, name

    def _has(self, profile_id: str, phone: str) -> bool:
        request = profiles_pb2.GetProfileRequest(name=f"profiles/{profile_id}")
        return any(item.endswith(phone) for item in self.firm.call("profiles", "GetProfile", request).phones)


def _about(message: tickets_pb2.Ticket | analytics_pb2.Interaction, record: str) -> None:
    if record:
        source, _, record_id = record.partition("/")
        message.source_record.source, message.source_record.source_record_id = f"sources/{source}", record_id


STEP = st.tuples(
    st.sampled_from(("merge", "merge", "split", "refuse", "suppress", "ticket", "buy")), st.integers(0, 999),
    st.integers(0, 999),
)  # fmt: skip


def act(town: Town, kind: str, one: int, other: int) -> None:
    """Do one step of a sequence, if it can be done now."""
    group = town.groups[one % len(town.groups)]
    if kind == "merge":
        if len(town.groups) > 1:
            rest = [item for item in town.groups if item is not group]
            town.merge(group, rest[other % len(rest)])
    elif kind == "split":
        if len(group.records) > 1:
            town.split(group, set(sorted(group.records)[: 1 + other % (len(group.records) - 1)]))
    else:
        town.say(kind, group)


@SEQUENCES
@given(
    sizes=st.lists(st.integers(1, 3), min_size=2, max_size=4), steps=st.lists(STEP, max_size=12),
    seed=st.integers(0, 10**6), is_prompt=st.booleans(),
)  # fmt: skip
def test_any_sequence_ends_with_all_services_agreeing(firm: Company, sizes, steps, seed, is_prompt) -> None:
    town = Town(firm, random.Random(seed))
    town.settle(sizes)
    for step in steps:
        act(town, *step)
        firm.hand_on(town.chance, times=2, share=1.0 if is_prompt else town.chance.choice((0.0, 0.3, 0.7, 1.0)))
    firm.post(town.chance, times=2)

    town.assert_agreed(is_exact=is_prompt)


@SEQUENCES
@given(
    sizes=st.lists(st.integers(1, 2), min_size=2, max_size=3),
    said=st.lists(st.sampled_from(("refuse", "suppress", "ticket", "buy")), max_size=4),
    steps=st.lists(st.tuples(st.sampled_from(("merge", "split", "split")), st.integers(0, 99), st.integers(0, 99)),
                   min_size=1, max_size=6),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_merge_unmerge_merge_returns_to_the_same_state_in_all_services(firm: Company, sizes, said, steps, seed) -> None:
    town = Town(firm, random.Random(seed))
    town.settle(sizes)
    for _ in sizes[1:]:
        town.merge(town.groups[0], town.groups[1])
    firm.hand_on(town.chance, times=2)
    for what in said:
        town.say(what, town.groups[0])
    firm.post(town.chance, times=2)
    before = whole_state(town)

    for step in steps:
        act(town, *step)
        firm.hand_on(town.chance, times=2, share=town.chance.choice((0.0, 0.5, 1.0)))
    while len(town.groups) > 1:
        town.merge(town.groups[0], town.groups[1])
    firm.post(town.chance, times=2)

    assert whole_state(town) == before


def whole_state(town: Town) -> dict[str, object]:
    """Return all that the services say of people who are one, without times and versions."""
    (group,) = town.groups
    living, firm = town.living(group), town.firm
    consents = consents_for(firm.consent, [living])[living]
    profile = resolve_one(firm.profiles, living)
    listed = messages_pb2.ListSuppressionsRequest(profile_id=living)
    suppressed = firm.call("marketing", "ListSuppressions", listed).suppressions
    scores = Reader(firm.warehouse).scores(living)
    return {
        "profile": (living, sorted(profile.record_keys), sorted(profile.tokens)),
        "believed": firm.vault.open_golden(profile, firm.vault.ciphers(firm.profiles, [profile])).golden,
        "refused": town.refused(living),
        "evidence": sorted(item.record_id for item in consents.records if not item.derived_from),
        "suppressed": sorted({(item.channel, item.purpose_id, item.reason) for item in suppressed}),
        "tickets": [firm.tickets.get(name.removeprefix("tickets/")).profile_id for name in town.tickets],
        "rows": town.rows_of(living),
        "scores": scores[5:8] if scores else None,
        "index": {phone: town.found(phone) for phone in town.phones.values()},
    }
