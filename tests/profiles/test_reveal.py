"""One value is revealed by a right of its own, for a reason, counted by the day, and noted before it leaves."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from kehu.options.v1 import options_pb2 as options
from kehu.profiles.v1 import profiles_pb2
from kehu.profiles.v1 import reveal_pb2 as pb

from services.chassis.access import Condition, Obligations
from services.profiles.errors import RevealsUsedUp
from services.profiles.revealing import count_reveal
from services.profiles.store import MemoryStore
from tests.profiles.conftest import Desk
from tests.profiles.people import person

GROUPS = frozenset({"personal/name", "personal/contact", "personal/address", "sensitive/document"})
MASKED = Obligations(masked=GROUPS)
AGENT = Obligations(masked=GROUPS, revealable=frozenset({"personal/contact"}))
BY_AGENT = {"caller": "user:agent@service", "purpose": "service"}


def reveal(desk: Desk, name: str, field: str = "phone", **caller: str) -> pb.RevealFieldResponse:
    request = pb.RevealFieldRequest(name=name, field=field, reason_code="REASON_CODE_IDENTITY_CHECK", reason="T-17")
    return desk.call("RevealField", request, **{**BY_AGENT, **caller})


def refused(action: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        action()
    return caught.value.code()


@pytest.fixture
def name(desk: Desk) -> str:
    found = desk.upsert("till", "1", person(1))
    desk.harness.policy.obligations = AGENT
    return found


def test_who_may_reveal_a_group_sees_the_value_once_and_masked_again_after(desk: Desk, name: str) -> None:
    before = desk.call("GetProfile", profiles_pb2.GetProfileRequest(name=name), **BY_AGENT)
    revealed = reveal(desk, name)
    after = desk.call("GetProfile", profiles_pb2.GetProfileRequest(name=name), **BY_AGENT)

    assert [item.phone for item in revealed.values] == ["+86" + person(1)["phone"]]
    assert (revealed.name, revealed.field, revealed.left_today) == (name, "phone", 19)
    assert before == after and "****" in after.phones[0]


def test_what_the_policy_lets_nobody_reveal_stays_masked_however_it_is_shown(desk: Desk, name: str) -> None:
    assert refused(lambda: reveal(desk, name, "name")) == grpc.StatusCode.PERMISSION_DENIED
    desk.harness.policy.obligations = MASKED
    assert refused(lambda: reveal(desk, name)) == grpc.StatusCode.PERMISSION_DENIED
    desk.harness.policy.obligations = Obligations(shown=GROUPS)
    assert refused(lambda: reveal(desk, name)) == grpc.StatusCode.PERMISSION_DENIED, "to see is not to reveal"
    assert desk.service.store.reveals.page({}, "", 9) == [], "a refusal is not counted"


def test_the_dictionary_says_for_which_purposes_a_field_is_revealed(desk: Desk, name: str) -> None:
    assert refused(lambda: reveal(desk, name, purpose="analysis")) == grpc.StatusCode.PERMISSION_DENIED
    assert refused(lambda: reveal(desk, name, purpose="")) == grpc.StatusCode.PERMISSION_DENIED


def test_a_profile_out_of_reach_is_neither_revealed_nor_counted(desk: Desk, name: str) -> None:
    elsewhere = (Condition("owner_department", ("service",)),)
    desk.harness.policy.obligations = dataclasses.replace(AGENT, row_filter=elsewhere)

    assert refused(lambda: reveal(desk, name)) == grpc.StatusCode.NOT_FOUND
    assert desk.service.store.reveals.page({}, "", 9) == []


def test_each_reveal_is_audited_with_the_profile_field_and_reason_before_it_leaves(desk: Desk, name: str) -> None:
    notes = []
    record = desk.harness.trail.record
    desk.harness.trail.record = lambda call, plan, resource, code, reason, *rest: (
        notes.append((call.caller.subject, plan.path.rpartition("/")[2], resource, code, reason, *rest)),
        record(call, plan, resource, code, reason, *rest),
    )[1]
    reveal(desk, name)

    ((subject, method, target, code, reason, seen),) = notes
    assert (subject, method, target, code) == ("user:agent", "RevealField", name, "OK")
    assert reason == "phone IDENTITY_CHECK T-17"
    assert (seen.shown, seen.masked) == (("personal/contact",), ())
    desk.harness.trail.record = lambda *_: (_ for _ in ()).throw(OSError("the disk is full"))
    assert refused(lambda: reveal(desk, name)) == grpc.StatusCode.INTERNAL, "no entry, no value"


def test_revealing_asks_for_a_second_factor_a_purpose_and_a_reason_without_words_about_persons(desk: Desk) -> None:
    method = profiles_pb2.DESCRIPTOR.services_by_name["ProfilesService"].methods_by_name["RevealField"].GetOptions()
    assert method.Extensions[options.step_up] and method.Extensions[options.access].purpose_required
    assert method.Extensions[options.audit] == options.AUDIT_LEVEL_DATA
    for wrong in ({"reason": ""}, {"reason": "张伟打电话来"}, {"reason_code": 0}, {"field": "tier"}, {"field": ""}):
        fields = {"name": "profiles/1", "field": "phone", "reason_code": 1, "reason": "T-17", **wrong}
        asked = pb.RevealFieldRequest(**fields)
        assert refused(lambda asked=asked: desk.call("RevealField", asked)) == grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> object:
    if request.param == "memory":
        return MemoryStore()
    return request.getfixturevalue("database").store


def test_the_days_limit_holds_for_one_person_under_a_race_and_ends_with_the_day_in_china(store: object) -> None:
    evening = datetime(2026, 11, 21, 15, 59, tzinfo=UTC)  # 23:59 in Beijing
    got: list[int] = []
    used_up: list[str] = []

    def take() -> None:
        for _ in range(5):
            try:
                got.append(count_reveal(store, "user:ann", evening, 12))
            except RevealsUsedUp as error:
                used_up.append(error.metadata["limit"])

    threads = [threading.Thread(target=take) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

    assert sorted(got) == list(range(12)) and used_up == ["12"] * 8
    assert count_reveal(store, "user:bob", evening, 12) == 11
    assert count_reveal(store, "user:ann", evening + timedelta(minutes=1), 12) == 11
    with pytest.raises(RevealsUsedUp):
        count_reveal(store, "user:ann", evening, 0)
