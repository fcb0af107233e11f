"""The steward's queue: what hangs most on first, one steward a pair, reasons kept, a second person where it matters."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.chassis.access import Condition, Obligations
from services.profiles.domain.match import DIFFERENT_NAME, LOOSE_NAME
from services.profiles.domain.review import needs_second_person, priority_of
from services.profiles.errors import CandidateDecided
from services.profiles.reviewing import Reviews
from services.profiles.store import Store
from services.profiles.values import Pair, place_of
from tests.profiles.conftest import Desk
from tests.profiles.people import person
from tests.profiles.test_store import mongo_store, store  # noqa: F401

State = resources_pb2.MatchCandidate
LI, WANG = "user:li@data-office", "user:wang@data-office"


def doubtful(number: int) -> dict[str, str]:
    """A record that may be the same person: surname and phone only."""
    return {"name": person(number)["name"][0] + "先生", "phone": person(number)["phone"]}


def ask(desk: Desk, number: int, **more: str) -> tuple[str, str]:
    """Make a question for a steward; return the names of its profiles."""
    return (
        desk.upsert("till", str(number), {**person(number), **more}),
        desk.upsert("shop", f"d{number}", doubtful(number)),
    )


def listed(desk: Desk, state: int = State.STATE_OPEN, **caller: str) -> list[resources_pb2.MatchCandidate]:
    request = profiles_pb2.ListMatchCandidatesRequest(state=state)
    return list(desk.call("ListMatchCandidates", request, **caller).match_candidates)


def claim(name: str) -> profiles_pb2.ClaimMatchCandidateRequest:
    return profiles_pb2.ClaimMatchCandidateRequest(name=name)


def confirm(name: str, **more: str) -> profiles_pb2.ConfirmMatchCandidateRequest:
    return profiles_pb2.ConfirmMatchCandidateRequest(**{"name": name, "reason": "looked at both", **more})


def reject(name: str, **more: str) -> profiles_pb2.RejectMatchCandidateRequest:
    return profiles_pb2.RejectMatchCandidateRequest(**{"name": name, "reason": "looked at both", **more})


def take_next(desk: Desk, caller: str) -> str:
    request = profiles_pb2.ClaimNextMatchCandidateRequest()
    return desk.call("ClaimNextMatchCandidate", request, caller=caller).match_candidate.name


def test_a_customer_of_a_tier_comes_before_many_records_and_those_before_probability() -> None:
    assert priority_of(2, True, 0.0) > priority_of(39, False, 1.0) > priority_of(2, False, 1.0)
    assert priority_of(2, False, 0.9) > priority_of(2, False, 0.1) >= 0
    assert priority_of(10_000, True, 1.0) <= 999


@pytest.mark.parametrize(
    ("records", "has_tier", "vetoes", "needed"),
    [(2, False, (), False), (2, False, (LOOSE_NAME,), False), (2, True, (), True), (10, False, (), True),
     (2, False, (DIFFERENT_NAME,), True)],
)  # fmt: skip
def test_a_second_person_is_needed_where_value_or_risk_is_high(records, has_tier, vetoes, needed) -> None:
    assert needs_second_person(records, has_tier, vetoes) is needed


def test_the_queue_starts_with_what_hangs_most_on(desk: Desk) -> None:
    ask(desk, 1)
    valued, _ = ask(desk, 2, tier="gold")
    ask(desk, 3)

    found = listed(desk)
    assert found[0].profile == valued or found[0].other_profile == valued
    assert [item.priority for item in found] == sorted((item.priority for item in found), reverse=True)
    assert [item.needs_second_person for item in found] == [True, False, False]


def test_pages_of_the_queue_hold_each_pair_once(desk: Desk) -> None:
    for number in range(1, 6):
        ask(desk, number)
    seen, token = [], ""
    while not seen or token:
        request = profiles_pb2.ListMatchCandidatesRequest(page_size=2, page_token=token)
        reply = desk.call("ListMatchCandidates", request)
        seen += [item.name for item in reply.match_candidates]
        token = reply.next_page_token

    assert seen == [item.name for item in listed(desk)]
    assert len(seen) == 5


def test_nobody_else_answers_a_claimed_pair_until_it_is_given_back(desk: Desk) -> None:
    ask(desk, 1)
    (pair,) = listed(desk)
    claimed = desk.call("ClaimMatchCandidate", claim(pair.name), caller=LI)
    assert (claimed.claimed_by, len(claimed.profiles)) == ("user:li", 2)

    for method, request in (
        ("ClaimMatchCandidate", claim(pair.name)), ("ConfirmMatchCandidate", confirm(pair.name)),
        ("RejectMatchCandidate", reject(pair.name)),
    ):  # fmt: skip
        assert desk.refused(method, request, caller=WANG) == "CANDIDATE_CLAIMED"
    release = profiles_pb2.ReleaseMatchCandidateRequest(name=pair.name)
    assert desk.call("ReleaseMatchCandidate", release, caller=WANG).claimed_by == "user:li"
    assert desk.call("ReleaseMatchCandidate", release, caller=LI).claimed_by == ""
    assert desk.call("ClaimMatchCandidate", claim(pair.name), caller=WANG).claimed_by == "user:wang"


def test_a_claim_ends_by_itself(desk: Desk) -> None:
    ask(desk, 1)
    (pair,) = listed(desk)
    desk.call("ClaimMatchCandidate", claim(pair.name), caller=LI)
    shelf = desk.service.store.pairs
    stored = shelf.get(pair.name.split("/")[1])
    shelf.replace(replace(stored, claim_until=datetime.now(UTC) - timedelta(seconds=1)))

    assert desk.call("RejectMatchCandidate", reject(pair.name), caller=WANG).decided_by == "user:wang"


def test_stewards_who_ask_for_the_next_pair_never_get_the_same(desk: Desk) -> None:
    for number in (1, 2, 3):
        ask(desk, number)
    taken = [take_next(desk, caller) for caller in (LI, WANG)]

    assert taken == [item.name for item in listed(desk)[:2]]
    assert take_next(desk, "user:zhao@data-office") == listed(desk)[2].name
    assert take_next(desk, "user:qian@data-office") == ""


def test_of_many_claims_at_the_same_moment_one_wins(store: Store) -> None:  # noqa: F811
    store.pairs.insert(Pair("p1", "one", "other", 1.0, 0.5, place=place_of(5, "p1")))
    found = store.pairs.get("p1")

    def try_claim(steward: str) -> str:
        from services.profiles.errors import CandidateClaimed

        try:
            return Reviews(store, None, steward, lambda _: True).claim(found).claimed_by
        except CandidateClaimed:
            return ""

    with ThreadPoolExecutor(8) as pool:
        winners = [name for name in pool.map(try_claim, [f"user:{n}" for n in range(16)]) if name]
    assert winners == [store.pairs.get("p1").claimed_by]


def test_a_shelf_pages_by_another_unique_field(store: Store) -> None:  # noqa: F811
    for number, priority in enumerate((5, 900, 30)):
        store.pairs.insert(
            Pair(f"p{number}", "a", "b", 0.0, 0.5, priority=priority, place=place_of(priority, str(number)))
        )
    store.pairs.insert(Pair("p9", "a", "b", 0.0, 0.5, state="rejected", place=place_of(999, "9")))

    first = store.pairs.page({"state": "open"}, "", 2, by="place")
    assert [item.priority for item in first] == [900, 30]
    assert [item.priority for item in store.pairs.page({"state": "open"}, first[-1].place, 2, by="place")] == [5]


def test_a_verdict_keeps_its_reason(desk: Desk) -> None:
    ask(desk, 1)
    (pair,) = listed(desk)
    decided = desk.call("RejectMatchCandidate", reject(pair.name, reason="father and son, one phone"), caller=LI)

    assert (decided.reason, decided.decided_by, decided.claimed_by) == ("father and son, one phone", "user:li", "")
    (kept,) = listed(desk, State.STATE_REJECTED)
    assert kept.reason == "father and son, one phone"


@pytest.mark.parametrize("verdict", ["Confirm", "Reject"])
def test_a_pair_of_high_value_is_settled_only_when_two_persons_agree(desk: Desk, verdict: str) -> None:
    one, other = ask(desk, 2, tier="gold")
    (pair,) = listed(desk)
    method = f"{verdict}MatchCandidate"
    request = getattr(profiles_pb2, f"{method}Request")(name=pair.name)
    assert desk.refused(method, request, caller=LI) == "REASON_NEEDED"
    request.reason = "seen both at the counter"

    first = desk.call(method, request, caller=LI)
    assert (first.state, first.first_decided_by, first.decided_by) == (State.STATE_AWAITING_SECOND, "user:li", "")
    assert desk.profile(other).name == other, "nothing has happened yet"
    assert desk.refused(method, request, caller=LI) == "SECOND_PERSON_NEEDED"
    assert take_next(desk, LI) == ""
    assert take_next(desk, WANG) == pair.name

    second = desk.call(method, request, caller=WANG)
    expected = State.STATE_CONFIRMED if verdict == "Confirm" else State.STATE_REJECTED
    assert (second.state, second.first_decided_by, second.decided_by) == (expected, "user:li", "user:wang")
    assert (desk.profile(other).name == one) is (verdict == "Confirm")


@pytest.mark.parametrize("how", ["a tier", "many records"])
def test_a_pair_that_came_to_need_two_persons_since_it_was_asked_about_has_them(desk: Desk, how: str) -> None:
    one, other = ask(desk, 2)
    (pair,) = listed(desk)
    assert not pair.needs_second_person
    for number in range(1 if how == "a tier" else 8):
        desk.upsert("till", f"more{number}", {**person(2), **({"tier": "gold"} if how == "a tier" else {})})

    (now,) = listed(desk)
    assert now.needs_second_person
    assert desk.refused("ConfirmMatchCandidate", confirm(pair.name, reason=""), caller=LI) == "REASON_NEEDED"
    first = desk.call("ConfirmMatchCandidate", confirm(pair.name), caller=LI)
    assert (first.state, desk.profile(other).name) == (State.STATE_AWAITING_SECOND, other)
    assert desk.call("ConfirmMatchCandidate", confirm(pair.name), caller=WANG).state == State.STATE_CONFIRMED
    assert desk.profile(other).name == one


def test_of_two_stewards_who_close_a_merged_pair_by_looking_neither_is_refused(desk: Desk) -> None:
    one, other = ask(desk, 1)
    (pair,) = listed(desk)
    stored = desk.service.store.pairs.get(pair.name.split("/")[1])
    desk.service.taker.merger.merge([item.split("/")[1] for item in (one, other)])

    for steward in (LI, WANG):
        assert Reviews(desk.service.store, None, steward, lambda _: True).still_open([stored]) == []
    assert desk.service.store.pairs.get(stored.id).state == "obsolete"


@pytest.mark.parametrize("erased", [1, 2])
def test_a_verdict_on_somebody_erased_meanwhile_is_refused_and_no_label(desk: Desk, erased: int) -> None:
    names = ask(desk, 1)
    (pair,) = listed(desk)
    shelf = desk.service.store.pairs
    stored = shelf.get(pair.name.split("/")[1])
    gone = desk.service.store.profiles([name.split("/")[1] for name in names[:erased]]).values()
    desk.service.store.write_profiles([(replace(item, key_id="", golden=b"", records=[]), []) for item in gone])

    with pytest.raises(CandidateDecided):
        Reviews(desk.service.store, desk.service.taker.merger, LI, lambda _: True).decide(stored, "confirmed", "")
    assert (shelf.get(stored.id).state, shelf.get(stored.id).month) == ("obsolete", "")


def test_a_second_person_who_says_otherwise_becomes_the_first(desk: Desk) -> None:
    _, other = ask(desk, 2, tier="gold")
    (pair,) = listed(desk)
    desk.call("ConfirmMatchCandidate", confirm(pair.name), caller=LI)
    doubted = desk.call("RejectMatchCandidate", reject(pair.name), caller=WANG)

    assert (doubted.state, doubted.first_verdict) == (State.STATE_AWAITING_SECOND, State.STATE_REJECTED)
    assert desk.profile(other).name == other
    assert desk.call("RejectMatchCandidate", reject(pair.name), caller=LI).state == State.STATE_REJECTED


def test_a_steward_sees_only_pairs_in_reach_and_only_what_the_rights_show(desk: Desk) -> None:
    ask(desk, 1)
    (pair,) = listed(desk)
    desk.harness.policy.obligations = Obligations(masked=frozenset(("personal/name", "personal/contact")))
    both = desk.call("GetMatchCandidate", profiles_pb2.GetMatchCandidateRequest(name=pair.name))
    assert {item.phones[0] for item in both.profiles} == {"139****0959"} and {
        i.address.text for i in both.profiles
    } == {""}

    elsewhere = Condition("owner_department", ("service",))
    desk.harness.policy.obligations = replace(desk.harness.policy.obligations, row_filter=(elsewhere,))
    assert listed(desk) == [] and take_next(desk, LI) == ""
    for method, request in (
        ("GetMatchCandidate", profiles_pb2.GetMatchCandidateRequest(name=pair.name)),
        ("ClaimMatchCandidate", claim(pair.name)), ("ConfirmMatchCandidate", confirm(pair.name)),
    ):  # fmt: skip
        assert desk.refused(method, request) == "CANDIDATE_NOT_FOUND"


def test_a_verdict_that_died_after_the_merge_is_kept_by_repeating_it(desk: Desk) -> None:
    ask(desk, 1)
    (pair,) = listed(desk)
    service = desk.service

    class Dying:
        """A merger whose process ends right after the merge."""

        def merge(self, ids: list[str], by: str) -> None:
            service.taker.merger.merge(ids, by)
            raise KeyboardInterrupt

    stored = service.store.pairs.get(pair.name.split("/")[1])
    with pytest.raises(KeyboardInterrupt):
        Reviews(service.store, Dying(), "user:li", lambda _: True).decide(stored, "confirmed", "")
    assert listed(desk, caller=WANG) == [] and take_next(desk, WANG) == ""

    decided = desk.call("ConfirmMatchCandidate", confirm(pair.name, reason="once more"), caller=LI)
    assert (decided.state, decided.reason) == (State.STATE_CONFIRMED, "once more")


def test_history_names_who_merged_and_who_split_and_nobody_for_the_match_model(desk: Desk) -> None:
    one, other = ask(desk, 1)
    (pair,) = listed(desk)
    desk.call("ConfirmMatchCandidate", confirm(pair.name), caller=LI)
    request = profiles_pb2.UnmergeProfileRequest(name=one, reason="two persons")
    request.source_records.add(source="sources/shop", source_record_id="d1")
    born = desk.call("UnmergeProfile", request, caller=WANG).new_profile.name

    kind = resources_pb2.ProfileRevision
    found = [(item.kind, item.changed_by, item.other_profile) for item in desk.history(one)]
    assert found == [
        (kind.KIND_UNMERGED, "user:wang", born), (kind.KIND_MERGED, "user:li", other), (kind.KIND_CREATED, "", ""),
    ]  # fmt: skip
    assert born == other, "it is again who it was"
    assert [item.changed_by for item in desk.history(born)] == ["user:wang", "user:li", ""]
    assert desk.history(one)[0].reason == desk.history(born)[0].reason == "two persons"
