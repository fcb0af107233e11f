"""Any past time of a profile: what was believed then with its lineage, and the history back to the first change."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.chassis.access import Condition, Obligations
from services.profiles.values import HISTORY_AT_HAND, Revision
from tests.profiles.conftest import Desk
from tests.profiles.people import person
from tests.profiles.test_overrides import request_of

Kind = resources_pb2.ProfileRevision


def moment() -> Timestamp:
    """Return the time of now, apart from what comes before and after it."""
    time.sleep(0.002)
    found = Timestamp()
    found.FromDatetime(datetime.now(UTC))
    time.sleep(0.002)
    return found


def at(desk: Desk, name: str, when: Timestamp) -> resources_pb2.Profile:
    return desk.call("GetProfile", profiles_pb2.GetProfileRequest(name=name, as_of=when))


def lineage_at(desk: Desk, name: str, when: Timestamp) -> resources_pb2.ProfileLineage:
    return desk.call("GetProfileLineage", profiles_pb2.GetProfileLineageRequest(name=name, as_of=when))


def pages(desk: Desk, name: str, page_size: int) -> list[list[resources_pb2.ProfileRevision]]:
    found, token = [], ""
    while not found or token:
        request = profiles_pb2.GetProfileHistoryRequest(name=name, page_size=page_size, page_token=token)
        reply = desk.call("GetProfileHistory", request)
        found.append(list(reply.revisions))
        token = reply.next_page_token
    return found


def test_each_change_leaves_what_was_believed_before_it_to_be_read(desk: Desk) -> None:
    seen = []
    name = desk.upsert("till", "1", person(1))
    for change in (
        lambda: desk.upsert("till", "1", {**person(1), "email": "new@example.cn"}, "2027-01-01T00:00:00Z"),
        lambda: desk.upsert("shop", "a", {**person(1), "phone": "13600001111"}, "2027-02-01T00:00:00Z"),
        lambda: desk.call("CreateOverride", request_of(name, "address", "上海市徐汇区漕溪北路1号")),
        lambda: None,
    ):
        request = profiles_pb2.GetProfileLineageRequest(name=name)
        seen.append((moment(), desk.profile(name), desk.call("GetProfileLineage", request)))
        change()

    assert len({profile.SerializeToString() for _, profile, _ in seen}) == len(seen)
    for when, profile, lineage in seen:
        found = at(desk, name, when)
        profile.update_time.CopyFrom(found.update_time)  # the store stamps the write, history the change
        assert found == profile
        assert lineage_at(desk, name, when) == lineage


def test_before_a_merge_both_names_mean_who_they_were_and_after_it_the_one(desk: Desk) -> None:
    one, other = desk.upsert("till", "1", person(1)), desk.upsert("shop", "a", person(2))
    before = moment()
    desk.service.taker.merger.merge([one.split("/")[1], other.split("/")[1]])
    after = moment()
    desk.upsert("till", "1", {**person(1), "email": "new@example.cn"})

    assert [at(desk, name, before).display_name for name in (one, other)] == [person(1)["name"], person(2)["name"]]
    assert [at(desk, name, before).name for name in (one, other)] == [one, other]
    assert [at(desk, name, after).name for name in (one, other)] == [one, one]
    assert at(desk, other, after).source_count == 2
    assert "new@example.cn" not in at(desk, other, after).emails


def test_after_an_unmerge_the_time_between_still_shows_one_profile(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    desk.upsert("shop", "a", {**person(1), "email": "other@example.cn"})
    together = moment()
    request = profiles_pb2.UnmergeProfileRequest(name=name, reason="two persons")
    request.source_records.add(source="sources/shop", source_record_id="a")
    born = desk.call("UnmergeProfile", request).new_profile.name

    assert at(desk, name, together).source_count == 2
    assert at(desk, name, moment()).source_count == 1
    lookup = profiles_pb2.GetProfileRequest(name=born, as_of=together)
    assert desk.refused("GetProfile", lookup) == "PROFILE_NOT_FOUND"


def test_a_time_before_the_profile_came_to_be_or_before_history_was_kept_is_refused_and_says_which(desk: Desk) -> None:
    early = moment()
    name = desk.upsert("till", "1", person(1))
    assert desk.refused("GetProfile", profiles_pb2.GetProfileRequest(name=name, as_of=early)) == "PROFILE_NOT_FOUND"

    lost = moment()
    desk.upsert("till", "1", {**person(1), "email": "new@example.cn"})
    desk.service.store._past.clear()  # as if that change had come before history was kept
    assert desk.refused("GetProfile", profiles_pb2.GetProfileRequest(name=name, as_of=lost)) == "HISTORY_NOT_KEPT"


def test_a_changed_rule_does_not_change_the_past(desk: Desk) -> None:
    from tests.profiles.test_survivorship import set_rule, two_phones

    name, old, new = two_phones(desk)
    before = moment()
    set_rule(desk, "phone", "most_trusted")
    desk.work()

    assert desk.profile(name).phones[0] == old
    assert at(desk, name, before).phones[0] == new
    fields = {item.field: item for item in reversed(lineage_at(desk, name, before).fields)}
    assert (fields["phone"].rule, fields["phone"].rule_version) == ("most_recent", 0)


def test_the_past_is_shown_by_the_rights_and_the_reach_of_now(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    was_of_sales = moment()
    desk.call("CreateOverride", request_of(name, "owner_department", "service"))
    request = profiles_pb2.GetProfileRequest(name=name, as_of=was_of_sales)

    desk.harness.policy.obligations = Obligations(masked=frozenset(("personal/name",)))
    assert (desk.call("GetProfile", request).display_name, desk.call("GetProfile", request).phones) == ("钱**", [])
    for department in ("sales", "service"):
        condition = Condition("owner_department", (department,))
        desk.harness.policy.obligations = replace(desk.harness.policy.obligations, row_filter=(condition,))
        assert desk.refused("GetProfile", request) == "PROFILE_NOT_FOUND", department


def test_history_is_paged_back_to_the_first_change(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    for number in range(4):
        desk.upsert("till", "1", {**person(1), "email": f"n{number}@example.cn"}, f"2027-01-0{number + 1}T00:00:00Z")

    found = pages(desk, name, 2)
    assert [[item.version for item in page] for page in found] == [[5, 4], [3, 2], [1]]
    assert found[-1][0].kind == Kind.KIND_CREATED


def test_history_goes_on_behind_what_the_profile_itself_holds(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    store, profile_id = desk.service.store, name.split("/")[1]
    first = store.profiles([profile_id])[profile_id]
    store.keep_past([first.past()])
    revisions = [Revision(2 + n, first.since + timedelta(seconds=n), "updated") for n in range(HISTORY_AT_HAND)]
    store.write_profiles([(replace(first, revisions=revisions), [])])

    versions = [item.version for page in pages(desk, name, 150) for item in page]
    assert versions == list(range(HISTORY_AT_HAND + 1, 0, -1))


def test_a_destroyed_key_takes_the_past_along(desk: Desk) -> None:
    name = desk.upsert("till", "1", person(1))
    before = moment()
    desk.upsert("till", "1", {**person(1), "email": "new@example.cn"})
    stored = desk.service.store.profiles([name.split("/")[1]])[name.split("/")[1]]
    desk.service.store.destroy_data_key(stored.key_id)
    desk.service.vault.forget(stored.key_id)

    assert desk.refused("GetProfile", profiles_pb2.GetProfileRequest(name=name, as_of=before)) == "PROFILE_NOT_FOUND"
    past = desk.service.store.past_versions(stored.profile_id, 99, 9)
    assert past and not any(record.sealed for item in past for record in item.records)


@pytest.mark.parametrize("method", ["GetProfile", "GetProfileLineage"])
def test_a_time_to_come_is_now(desk: Desk, method: str) -> None:
    name = desk.upsert("till", "1", person(1))
    later = Timestamp(seconds=4_000_000_000)
    request = getattr(profiles_pb2, f"{method}Request")

    assert desk.call(method, request(name=name, as_of=later)) == desk.call(method, request(name=name))
