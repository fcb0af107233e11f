"""Another department's profile is answered like none at all, by every method that takes a profile's name."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.message import Message
from grpc_status import rpc_status
from kehu.options.v1 import options_pb2 as options
from kehu.profiles.v1 import profiles_pb2 as pb
from kehu.profiles.v1 import protection_pb2, relations_pb2, retention_pb2, reveal_pb2, shares_pb2

from services.chassis.access import Condition, Obligations
from tests.architecture.test_contracts import methods
from tests.profiles.conftest import Desk
from tests.profiles.people import person, source_request

SALES = Obligations(
    everything=True,
    row_filter=(Condition("owner_department", ("sales",)),),
    revealable=frozenset({"personal/contact"}),
)
NOBODY = "profiles/" + "0" * 32
Ask = Callable[[str], Message]


def _later() -> Message:
    request = pb.CreateOverrideRequest()
    request.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    return request.expire_time


# method → its request about a profile
BY_NAME: dict[str, Ask] = {
    "GetProfile": lambda name: pb.GetProfileRequest(name=name),
    "GetProfileLineage": lambda name: pb.GetProfileLineageRequest(name=name),
    "GetProfileHistory": lambda name: pb.GetProfileHistoryRequest(name=name),
    "CreateOverride": lambda name: pb.CreateOverrideRequest(
        parent=name, field="name", value="王五", reason="asked", expire_time=_later()
    ),
    "ListOverrides": lambda name: pb.ListOverridesRequest(parent=name),
    "DeleteOverride": lambda name: pb.DeleteOverrideRequest(name=f"{name}/overrides/{NOBODY[9:]}"),
    "UnmergeProfile": lambda name: pb.UnmergeProfileRequest(
        name=name, source_records=[{"source": "sources/desk", "source_record_id": "1"}], reason="asked"
    ),
    "EraseProfile": lambda name: protection_pb2.EraseProfileRequest(name=name, reason="asked"),
    "RevealField": lambda name: reveal_pb2.RevealFieldRequest(
        name=name, field="phone", reason_code="REASON_CODE_IDENTITY_CHECK", reason="T-17"
    ),
    "ListRelationships": lambda name: relations_pb2.ListRelationshipsRequest(parent=name),
    "GetNetwork": lambda name: relations_pb2.GetNetworkRequest(name=name, depth=1, channel="email"),
    "CreateRelationship": lambda name: relations_pb2.CreateRelationshipRequest(
        relationship={"type": "relationTypes/spouse", "profile": name, "other_profile": NOBODY}
    ),
    "ShareProfile": lambda name: shares_pb2.ShareProfileRequest(
        name=name, terms={"borrower": "user:bo", "purpose": "sales", "reason": "asked", "end_time": _later()}
    ),
    "CreateLegalHold": lambda name: retention_pb2.CreateLegalHoldRequest(
        legal_hold={"profile": name, "reason": "a court asked"}
    ),
}


@pytest.fixture
def foreign(desk: Desk) -> str:
    desk.call("CreateSource", source_request("desk", owner_department="service"))
    name = desk.upsert("desk", "1", person(2))
    desk.harness.policy.obligations = SALES
    return name


def answer(desk: Desk, method: str, request: Message, name: str) -> tuple[grpc.StatusCode, str]:
    """Return code and whole status of a refusal, the name asked for left out."""
    with pytest.raises(grpc.RpcError) as caught:
        desk.call(method, request)
    text = re.sub(r"decision_id.{0,80}", "", str(rpc_status.from_call(caught.value)), flags=re.S)
    return caught.value.code(), text.replace(name, "NAME").replace(name.partition("/")[2], "ID")


@pytest.mark.parametrize("method", BY_NAME)
def test_a_profile_out_of_reach_is_refused_like_one_that_does_not_exist(desk: Desk, foreign: str, method: str) -> None:
    out_of_reach = answer(desk, method, BY_NAME[method](foreign), foreign)
    nobody = answer(desk, method, BY_NAME[method](NOBODY), NOBODY)

    assert out_of_reach == nobody
    assert nobody[0] == grpc.StatusCode.NOT_FOUND


def test_every_method_that_takes_a_profiles_name_is_tried() -> None:
    """Those of relationships, candidates and changes have names of their own; their tests are beside them."""
    others = {"ConfirmRelationship", "EndRelationship", "DeleteRelationship"}
    found = {
        method.name for method in methods()
        if method.full_name.startswith("kehu.profiles")
        and (rule := method.GetOptions().Extensions[options.access]).resource == "profiles"
        and rule.audience == options.AUDIENCE_PRINCIPAL
        and {"name", "parent", "relationship"} & set(method.input_type.fields_by_name)
    }  # fmt: skip

    assert found - others - {"CreateLegalHold"} == set(BY_NAME) - {"CreateLegalHold"}


def test_a_split_repeated_by_its_request_id_tells_nothing_of_another_profile(desk: Desk) -> None:
    """With a request id an earlier split is answered again: of this profile only, never of whose records are named."""
    desk.call("CreateSource", source_request("desk", owner_department="service", is_unique=False))
    mine = desk.upsert("till", "1", person(1))
    theirs = desk.upsert("desk", "1", person(2))
    assert desk.upsert("desk", "2", person(2)) == theirs
    split = {"source_records": [{"source": "sources/desk", "source_record_id": "2"}], "reason": "asked"}
    request_id = "00000000-0000-4000-8000-000000000001"
    made = desk.call("UnmergeProfile", pb.UnmergeProfileRequest(name=theirs, request_id=request_id, **split))
    again = desk.call("UnmergeProfile", pb.UnmergeProfileRequest(name=theirs, request_id=request_id, **split))
    desk.harness.policy.obligations = SALES

    with pytest.raises(grpc.RpcError) as caught:
        desk.call("UnmergeProfile", pb.UnmergeProfileRequest(name=mine, request_id=request_id, **split))

    assert {again.profile.name, again.new_profile.name} == {made.profile.name, made.new_profile.name}
    assert person(2)["name"] not in str(rpc_status.from_call(caught.value))
    assert caught.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
