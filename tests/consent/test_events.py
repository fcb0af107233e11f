"""Consents follow merges of profiles, whatever the order and however often the event comes."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from kehu.profiles.v1.events_pb2 import FormerName, ProfileErased, ProfilesMerged, ProfilesUnmerged, SourceLink

from services.chassis.consuming import Event
from services.chassis.errors import Unavailable
from services.consent.domain.decision import Terms, decide
from services.consent.domain.records import ProfileConsents
from services.consent.events import ConsentConsumer
from services.consent.recording import Recorder, Wish
from services.consent.store import MemoryConsentStore, consents_for
from tests.consent.registry import OFFERS, day, member_notice, record

NOW = day("2026-05-01")


def merged(survivor: str, other: str, version: int = 2) -> Event[ProfilesMerged]:
    message = ProfilesMerged(profile_id=survivor, merged_profile_id=other, version=2, merged_profile_version=version)
    return Event("e1", f"profiles/{survivor}", NOW, 2, message)


def a_store(**profiles) -> MemoryConsentStore:
    store = MemoryConsentStore()
    store.save_consents([(ProfileConsents(key, (kept,)), []) for key, kept in profiles.items()])
    return store


def is_allowed(store, profile_id: str) -> bool:
    consents = consents_for(store, [profile_id])[profile_id]
    return decide(consents.counting, Terms(OFFERS, member_notice(), "email", NOW)).allowed


def test_an_opt_out_of_the_merged_profile_survives():
    store = a_store(winner=record("a", "GRANTED", answered="2026-04-02"), loser=record("b", "REVOKED"))

    ConsentConsumer(store).on_profiles_merged(merged("winner", "loser"))

    assert not is_allowed(store, "winner")
    assert not is_allowed(store, "loser")
    assert {"a", "b"} <= {kept.record_id for kept in store.consents(["winner"])["winner"].records}


def test_the_same_event_twice_changes_nothing():
    store = a_store(winner=record("a", "GRANTED"), loser=record("b", "DENIED"))
    consumer = ConsentConsumer(store)
    consumer.on_profiles_merged(merged("winner", "loser"))
    before, facts = store.consents(["winner", "loser"]), len(store.facts)

    consumer.on_profiles_merged(merged("winner", "loser"))

    assert store.consents(["winner", "loser"]) == before
    assert len(store.facts) == facts


def test_a_merge_of_profiles_without_records_still_makes_the_alias():
    store = MemoryConsentStore()

    ConsentConsumer(store).on_profiles_merged(merged("winner", "loser"))

    assert consents_for(store, ["loser"])["loser"].profile_id == "winner"


def test_merges_of_merges_arrive_in_any_order():
    first, second = merged("b", "a"), merged("c", "b")
    for order in ((first, second), (second, first)):
        store = a_store(a=record("ra", "DENIED"), b=record("rb", "GRANTED"), c=record("rc", "GRANTED"))
        for event in order:
            ConsentConsumer(store).on_profiles_merged(event)

        assert [is_allowed(store, profile_id) for profile_id in "abc"] == [False, False, False]


def test_a_merge_stopped_half_way_is_finished_by_its_redelivery():
    store = a_store(winner=record("a", "GRANTED"), loser=record("b", "DENIED"))

    class StopsAfterTheFirstWrite(MemoryConsentStore):
        def save_consents(self, changes):
            if any(consents.merged_into for consents, _ in changes):
                raise ConnectionError
            return store.save_consents(changes)

        consents = store.consents

    try:
        ConsentConsumer(StopsAfterTheFirstWrite()).on_profiles_merged(merged("winner", "loser"))
    except ConnectionError:
        ConsentConsumer(store).on_profiles_merged(merged("winner", "loser"))

    assert not is_allowed(store, "loser")
    assert [kept.record_id for kept in store.consents(["winner"])["winner"].records] == ["a", "b"]


@pytest.mark.parametrize("comes_again", [False, True])
def test_a_withdrawal_under_the_merged_id_while_it_is_being_merged_is_kept(comes_again):
    store = a_store(winner=record("a", "GRANTED"), loser=record("b", "GRANTED"))
    revoked = record("late", "REVOKED", answered="2026-04-20")

    class WhileTheAliasIsWritten(MemoryConsentStore):
        consents = store.consents

        def save_consents(self, changes):
            (consents, _), *_ = changes
            if consents.merged_into and not store.consents(["loser"])["loser"].merged_into:
                held = store.consents(["loser"])["loser"]
                if revoked not in held.records:
                    store.save_consents([(replace(held, records=(*held.records, revoked)), [])])
                    if comes_again:
                        raise ConnectionError
            return store.save_consents(changes)

    try:
        ConsentConsumer(WhileTheAliasIsWritten()).on_profiles_merged(merged("winner", "loser"))
    except ConnectionError:
        ConsentConsumer(store).on_profiles_merged(merged("winner", "loser"))

    assert not is_allowed(store, "winner") and not is_allowed(store, "loser")
    assert [kept.record_id for kept in store.consents(["winner"])["winner"].records] == ["a", "b", "late"]


def test_a_merge_that_comes_again_takes_back_nothing_that_was_granted_since():
    store = a_store(winner=record("a", "GRANTED", answered="2026-04-02"), loser=record("b", "REVOKED"))
    ConsentConsumer(store).on_profiles_merged(merged("winner", "loser"))
    answer(store, "winner", "since", "GRANTED", "2026-04-25")
    alias = store.consents(["loser"])["loser"]
    store.save_consents([(replace(alias, merged_into="", link_version=-1), [])])  # as if cut before it

    ConsentConsumer(store).on_profiles_merged(merged("winner", "loser"))

    assert is_allowed(store, "winner")


MERGED_AT, SPLIT_AT = day("2026-04-10"), day("2026-04-20")


def unmerged(old: str, out: str, version: int, *records: str, aliases: tuple[str, ...] = ()) -> Event[ProfilesUnmerged]:
    message = ProfilesUnmerged(
        profile_id=old, unmerged_profile_id=out, version=version, aliases=aliases,
        links=[SourceLink(source_id="shop", source_record_id=item) for item in records],
    )  # fmt: skip
    message.event_time.FromDatetime(SPLIT_AT)
    message.together_since.FromDatetime(MERGED_AT)
    return Event("e2", f"profiles/{out}", SPLIT_AT, version, message)


def tell(store: MemoryConsentStore, *events: Event) -> None:
    consumer = ConsentConsumer(store)
    for event in events:
        is_merge = isinstance(event.message, ProfilesMerged)
        (consumer.on_profiles_merged if is_merge else consumer.on_profiles_unmerged)(event)


def answer(store: MemoryConsentStore, profile_id: str, record_id: str, state: str, when: str, shop_record: str = ""):
    """Let a person answer under an id, by the way of RecordConsent."""
    store.save_purpose(OFFERS) if store.purpose(OFFERS.purpose_id) is None else None
    store.save_notice(member_notice()) if store.notice("member") is None else None
    made = replace(
        record(record_id, state, answered=when), create_time=day(when),
        source_record=f"shop/{shop_record}" if shop_record else "",
    )  # fmt: skip
    Recorder(store, lambda _: None).record(Wish(profile_id, made), NOW)


def evidence(store: MemoryConsentStore, profile_id: str) -> set[str]:
    return {kept.record_id for kept in consents_for(store, [profile_id])[profile_id].records}


@pytest.mark.parametrize("state", ["DENIED", "REVOKED"])
@pytest.mark.parametrize("under", ["a", "b"])
@pytest.mark.parametrize("when", ["2026-04-05", "2026-04-15"])
def test_a_refusal_before_or_while_they_were_one_stands_on_both_sides(under, when, state):
    store = a_store(a=record("ga", "GRANTED"), b=record("gb", "GRANTED"))
    events = merged("a", "b", 2), unmerged("a", "b", 4)
    if when < "2026-04-10":
        answer(store, under, "no", state, when)
    tell(store, events[0])
    if when > "2026-04-10":
        answer(store, under, "no", state, when)
    tell(store, events[1], events[1], events[0])

    assert [is_allowed(store, each) for each in "ab"] == [False, False]
    assert {"ga", "gb", "no"} <= evidence(store, "a") & evidence(store, "b")


@pytest.mark.parametrize(
    ("under", "shop_record", "allowed"),
    [("b", "", [False, True]), ("a", "7", [False, True]), ("a", "8", [True, False]), ("a", "", [False, False])],
)
def test_a_grant_while_they_were_one_goes_where_it_was_given_else_to_neither(under, shop_record, allowed):
    store = MemoryConsentStore()
    tell(store, merged("a", "b", 2))
    answer(store, under, "yes", "GRANTED", "2026-04-15", shop_record)
    assert [is_allowed(store, each) for each in "ab"] == [True, True]

    tell(store, unmerged("a", "b", 4, "7"))
    assert [is_allowed(store, each) for each in "ab"] == allowed
    assert "yes" in evidence(store, "a") & evidence(store, "b")

    tell(store, merged("a", "b", 5))
    assert [is_allowed(store, each) for each in "ab"] == [True, True], "one again, it is as it was"


def test_grants_of_before_the_merge_are_each_ones_own_again():
    for granted in "ab":
        store = a_store(**{granted: record("yes", "GRANTED", answered="2026-04-02")})
        tell(store, merged("a", "b", 2), unmerged("a", "b", 4))

        assert [is_allowed(store, each) for each in "ab"] == [granted == "a", granted == "b"]


def test_a_part_that_never_was_a_profile_gets_the_refusals_and_no_grant_of_before_it_came():
    store = a_store(a=record("yes", "GRANTED", answered="2026-04-02"))
    answer(store, "a", "no", "DENIED", "2026-04-01")
    tell(store, unmerged("a", "new", 1, "7"))

    assert [is_allowed(store, each) for each in ("a", "new")] == [True, False]
    assert "no" in evidence(store, "new")


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_facts_in_any_order_lose_no_refusal_and_end_with_the_same_answers(order):
    store = a_store(a=record("ga", "GRANTED"), b=record("rb", "REVOKED"), c=record("gc", "GRANTED"))
    events = merged("b", "c", 2), merged("a", "b", 3), unmerged("a", "b", 5, aliases=("c",))
    waiting = [events[index] for index in (*order, *order)]
    for _ in range(10):
        waiting, again = [], waiting
        for event in again:
            try:
                tell(store, event)
            except Unavailable:
                waiting.append(event)

    assert [consents_for(store, [each])[each].profile_id for each in "abc"] == ["a", "b", "b"]
    assert [is_allowed(store, each) for each in "abc"] == [False, False, False]
    assert not waiting


def test_an_answer_under_an_id_that_is_split_off_at_this_moment_is_the_parts():
    store = MemoryConsentStore()
    tell(store, merged("a", "b", 2))

    class SplitsBetween(MemoryConsentStore):
        """A store in which the split is written between the reading of the alias and the writing of the answer."""

        def __init__(self) -> None:
            self.__dict__ = store.__dict__
            self.reads = 0

        def consents(self, profile_ids):
            found = super().consents(profile_ids)
            self.reads += 1
            if self.reads == 1:
                tell(store, unmerged("a", "b", 4))
            return found

    answer(store, "x", "first", "DENIED", "2026-04-01")  # the purpose and its notice are there
    answer(SplitsBetween(), "b", "no", "DENIED", "2026-04-19")

    assert "no" in evidence(store, "b")


def test_of_an_erased_person_the_proof_of_consent_is_kept_and_nothing_that_names_them():
    given = record("a", "GRANTED", answered="2026-04-02")
    named = replace(
        given, source_record="till/1", evidence=replace(given.evidence, masked_address="138****8000", agent="iPhone")
    )
    store = a_store(winner=named, other=named)
    event = Event("e", "profiles/winner", NOW, 9, ProfileErased(profile_id="winner", names=["winner", "unknown"]))
    for _ in range(2):
        ConsentConsumer(store).on_profile_erased(event)

    [kept] = store.consents(["winner"])["winner"].records
    assert (kept.source_record, kept.evidence.masked_address, kept.evidence.agent) == ("", "", "")
    assert replace(kept, evidence=given.evidence) == given
    assert store.consents(["other"])["other"].records == (named,)
    assert "unknown" not in store.consents(["unknown"])


def split_of(whole: str, out: str, version: int, *former: FormerName, went: bool = False) -> Event[ProfilesUnmerged]:
    event = unmerged(whole, out, version)
    event.message.former_names.extend(former)
    event.message.went = went
    return event


def test_a_merge_that_was_not_heard_of_is_learnt_from_the_split() -> None:
    store = a_store(a=record("ga", "GRANTED"), b=record("gb", "GRANTED"), c=record("rc", "REVOKED"))
    tell(store, split_of("a", "b", 4, FormerName(profile_id="c", merged_into="a", version=3)), merged("a", "c", 3))

    assert [is_allowed(store, each) for each in "abc"] == [False, False, False]
    assert consents_for(store, ["c"])["c"].profile_id == "a"


def test_a_split_that_is_heard_after_the_next_merge_tells_who_has_the_part_by_now() -> None:
    store = a_store(a=record("ra", "REVOKED"), b=record("gb", "GRANTED"), x=record("gx", "GRANTED"))
    tell(store, merged("a", "b", 2), merged("x", "b", 5), unmerged("a", "b", 4), unmerged("a", "b", 4))

    assert [is_allowed(store, each) for each in "abx"] == [False, False, False]
    assert [consents_for(store, [each])[each].profile_id for each in "abx"] == ["a", "x", "x"]
    assert "ra" in evidence(store, "x")


def test_a_grant_under_an_id_whose_records_are_on_both_sides_now_counts_for_neither() -> None:
    store = a_store(b=record("yes", "GRANTED", answered="2026-04-02"))
    name = FormerName(profile_id="b", merged_into="a", version=2)
    name.divided_since.FromDatetime(day("2026-01-01"))
    tell(store, merged("a", "b", 2), split_of("a", "new", 1, name))

    assert [is_allowed(store, each) for each in ("a", "new")] == [False, False]
    tell(store, merged("a", "new", 2))
    assert is_allowed(store, "new"), "one again, it is as it was"


def test_a_grant_goes_with_the_records_that_the_id_meant_though_the_id_stays() -> None:
    store = a_store(a=record("yes", "GRANTED", answered="2026-04-02"))
    tell(store, merged("a", "b", 2), split_of("a", "new", 1, went=True))

    assert [is_allowed(store, each) for each in ("a", "new")] == [False, True]
