"""Verdicts by rule with a count first, verdicts as labels, the precision of each band, automatic merges sampled."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.profiles.domain.review import CHECKED_ONE_IN, is_sampled, precision_by_band
from services.profiles.domain.values import RawRecord
from services.profiles.store import Store
from services.profiles.values import Pair, place_of
from tests.profiles.conftest import Desk
from tests.profiles.people import person
from tests.profiles.test_review import LI, WANG, ask, claim, confirm, listed, reject, take_next
from tests.profiles.test_store import mongo_store, store  # noqa: F401

State = resources_pb2.MatchCandidate
MONTH = f"{datetime.now(UTC):%Y-%m}"


def bulk(verdict: int, expected: int = 0, **rule: object) -> profiles_pb2.BulkDecideMatchCandidatesRequest:
    return profiles_pb2.BulkDecideMatchCandidatesRequest(
        rule=profiles_pb2.MatchRule(**rule), verdict=verdict, reason="same rule for all", expected_count=expected
    )


def sampled_id(desk: Desk, fields: dict[str, str]) -> str:
    """Return an id under which this record of the shop is put before a steward when it merges."""
    raw = [RawRecord("shop", f"s{n}", datetime.now(UTC), fields) for n in range(CHECKED_ONE_IN * 20)]
    return next(item.source_record_id for item in raw if is_sampled(desk.service.vault.content_hash(item)))


def sampled_merge(desk: Desk, number: int = 1) -> tuple[str, str]:
    """Merge a record automatically that is put before a steward; return the profile and the record's id."""
    name = desk.upsert("till", str(number), person(number))
    fields = {**person(number), "email": f"second{number}@example.cn"}
    record_id = sampled_id(desk, fields)
    assert desk.upsert("shop", record_id, fields) == name
    return name, record_id


def labels(desk: Desk, month: str = MONTH) -> list[resources_pb2.MatchLabel]:
    return list(desk.call("ListMatchLabels", profiles_pb2.ListMatchLabelsRequest(month=month)).match_labels)


def report(desk: Desk, month: str = MONTH) -> list[resources_pb2.MatchBand]:
    request = profiles_pb2.GetMatchReportRequest(name=f"matchReports/{month}")
    return list(desk.call("GetMatchReport", request).bands)


def test_a_rule_is_counted_first_and_decides_only_with_that_count(desk: Desk) -> None:
    for number in (1, 3, 4):
        ask(desk, number)
    ask(desk, 2, tier="gold")

    counted = desk.call("BulkDecideMatchCandidates", bulk(State.STATE_REJECTED))
    assert (counted.fitting_count, counted.second_person_count, counted.decided_count) == (3, 1, 0)
    assert len(listed(desk)) == 4
    assert desk.refused("BulkDecideMatchCandidates", bulk(State.STATE_REJECTED, 2)) == "BULK_CHANGED"
    assert len(listed(desk)) == 4

    done = desk.call("BulkDecideMatchCandidates", bulk(State.STATE_REJECTED, 3), caller=LI)
    assert done.decided_count == 3
    assert [item.needs_second_person for item in listed(desk)] == [True]
    rejected = listed(desk, State.STATE_REJECTED)
    assert {(item.decided_by, item.reason) for item in rejected} == {("user:li", "same rule for all")}


def test_a_rule_leaves_out_what_came_to_need_two_persons_since_it_was_asked_about(desk: Desk) -> None:
    ask(desk, 1)
    ask(desk, 3)
    desk.upsert("till", "more", {**person(3), "tier": "gold"})

    counted = desk.call("BulkDecideMatchCandidates", bulk(State.STATE_CONFIRMED))
    assert (counted.fitting_count, counted.second_person_count) == (1, 1)


def test_a_rule_merges_no_more_into_one_customer_than_one_person_may(desk: Desk) -> None:
    home = desk.upsert("till", "1", person(1)).split("/")[1]
    for number in range(7):
        desk.upsert("till", f"more{number}", person(1))
    for number in (2, 3):
        other = desk.upsert("till", f"other{number}", person(number)).split("/")[1]
        desk.service.store.pairs.insert(Pair(f"p{number}", home, other, 1.0, 0.5, place=place_of(5, f"p{number}")))

    done = desk.call("BulkDecideMatchCandidates", bulk(State.STATE_CONFIRMED, 2))
    assert (done.fitting_count, done.decided_count, done.second_person_count) == (2, 1, 1)
    assert desk.profile(f"profiles/{home}").source_count == 9


def test_a_rule_leaves_out_what_another_another_steward_has_and_what_does_not_fit(desk: Desk) -> None:
    one, _ = ask(desk, 1)
    ask(desk, 3)
    pair = next(item for item in listed(desk) if one in (item.profile, item.other_profile))
    level = {step.comparison: step.level for step in pair.steps}["phone"]

    for rule, count in (
        ({"levels": {"phone": level}}, 2), ({"levels": {"phone": "no such"}}, 0), ({"min_probability": 1.0}, 0),
        ({"max_probability": pair.probability}, 2), ({"vetoes": list(pair.vetoes)}, 2), ({"vetoes": ["NONE"]}, 0),
        ({"without_vetoes": True}, 0 if pair.vetoes else 2),
    ):  # fmt: skip
        assert desk.call("BulkDecideMatchCandidates", bulk(State.STATE_CONFIRMED, **rule)).fitting_count == count, rule
    taken = take_next(desk, WANG)
    found = desk.call("BulkDecideMatchCandidates", bulk(State.STATE_CONFIRMED), caller=LI)
    assert found.fitting_count == 1 and taken not in found.samples


def test_verdicts_are_labels_for_ever_and_hold_nothing_of_the_persons(desk: Desk) -> None:
    for number in (1, 3):
        ask(desk, number)
    first, second = listed(desk)
    desk.call("ConfirmMatchCandidate", confirm(first.name))
    desk.call("RejectMatchCandidate", reject(second.name))

    found = {item.match_candidate: item for item in labels(desk)}
    assert {name: item.same_person for name, item in found.items()} == {first.name: True, second.name: False}
    assert all(item.steps and not item.automatic and item.persons == 1 for item in found.values())
    assert labels(desk, "2020-01") == []
    assert not any(text in str(found) for number in (1, 3) for text in person(number).values())


def test_one_in_some_automatic_merges_is_put_before_a_steward_side_by_side(desk: Desk) -> None:
    name, record_id = sampled_merge(desk)
    assert listed(desk) == [], "it is no question of who is whom"

    (check,) = listed(desk, State.STATE_CHECK)
    assert check.checked_record == f"sources/shop/records/{record_id}"
    both = desk.call("GetMatchCandidate", profiles_pb2.GetMatchCandidateRequest(name=check.name)).profiles
    assert [list(item.emails) for item in both] == [[person(1)["email"]], ["second1@example.cn"]]
    assert take_next(desk, LI) == check.name
    assert desk.profile(name).source_count == 2


@pytest.mark.parametrize("right", [True, False])
def test_a_check_that_finds_a_wrong_merge_splits_it_and_both_count_in_the_report(desk: Desk, right: bool) -> None:
    name, record_id = sampled_merge(desk)
    (check,) = listed(desk, State.STATE_CHECK)
    method, request = ("ConfirmMatchCandidate", confirm) if right else ("RejectMatchCandidate", reject)
    desk.call(method, request(check.name))

    assert desk.profile(name).source_count == (2 if right else 1)
    (label,) = labels(desk)
    assert (label.automatic, label.same_person) == (True, right)
    (band,) = report(desk)
    assert (band.band, band.answered, band.same_person) == ("merge", 1, int(right))
    again = desk.upsert("shop", record_id, {**person(1), "email": "third@example.cn"})
    assert (again == name) is right, "what was split stays apart"


def test_a_check_that_died_after_the_split_is_answered_by_repeating_it(desk: Desk) -> None:
    name, record_id = sampled_merge(desk)
    (check,) = listed(desk, State.STATE_CHECK)
    desk.call("ClaimMatchCandidate", claim(check.name), caller=LI)
    desk.service.taker.merger.split(name.split("/")[1], [f"shop/{record_id}"], "0" * 32, "user:li")

    assert desk.call("RejectMatchCandidate", reject(check.name), caller=LI).state == State.STATE_REJECTED
    assert [item.same_person for item in labels(desk)] == [False]


def test_a_check_of_what_was_split_meanwhile_leaves_the_queue(desk: Desk) -> None:
    name, record_id = sampled_merge(desk)
    request = profiles_pb2.UnmergeProfileRequest(name=name, reason="two persons")
    request.source_records.add(source="sources/shop", source_record_id=record_id)
    desk.call("UnmergeProfile", request)

    assert listed(desk, State.STATE_CHECK) == []
    assert take_next(desk, LI) == ""


def test_the_report_tells_each_tenth_of_probability_with_its_interval() -> None:
    verdicts = (
        [("review", 0.62, True)] * 8 + [("review", 0.68, False)] * 2 + [("review", 1.0, True), ("merge", 0.3, True)]
    )
    found = {(item.band, item.low): item for item in precision_by_band(verdicts)}

    assert sorted(found) == [("merge", 0.0), ("review", 0.6), ("review", 0.9)]
    band = found[("review", 0.6)]
    assert (band.answered, band.same_person, band.precision) == (10, 8, 0.8)
    assert (round(band.at_least, 3), round(band.at_most, 3)) == (0.490, 0.943)
    assert found[("merge", 0.0)].at_least < 0.25, "one verdict proves little"


def test_one_in_five_hundred_merges_is_sampled() -> None:
    share = sum(is_sampled(f"token {n}") for n in range(100_000)) / 100_000

    assert 0.7 < share * CHECKED_ONE_IN < 1.3


def test_verdicts_of_a_month_are_found_by_it(store: Store) -> None:  # noqa: F811
    for number, month in enumerate(("2026-04", "2026-05", "2026-05", "")):
        store.pairs.insert(Pair(f"p{number}", "a", "b", 0.0, 0.5, state="confirmed", place=str(number), month=month))

    assert [item.id for item in store.pairs.page({"month": "2026-05"}, "", 9)] == ["p1", "p2"]
