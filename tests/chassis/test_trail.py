"""Every decision on personal data is one entry, written before the data leaves, without personal data in it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2
from google.protobuf import descriptor_pool
from kehu.profiles.v1 import profiles_pb2 as pb
from kehu.profiles.v1 import profiles_pb2_grpc, resources_pb2

from services.chassis.access import Obligations
from services.chassis.audit import AuditEntry, AuditSpool, Shipper
from services.chassis.server import Guard, MethodPlan, Serving, build_server, plans_by_path
from services.chassis.server.guard import target_of
from services.chassis.server.seen import NAME_FIELDS, PROFILE_FIELD, Seen, seen_in, steps
from services.chassis.server.trail import SpoolTrail
from tests.chassis.audited_server import OneProfile
from tests.following.fields import profile_fields
from tests.harness import MemoryTrail, OpenPolicy, StatedTokens, refused, running, stated_peer

REQUESTS, ROUNDS, THREADS = 10_000, 5, 4
RIGHTS = Obligations(shown=frozenset({"personal/name"}), masked=frozenset({"personal/contact"}))
PLANS = plans_by_path(["kehu.profiles.v1.ProfilesService"])
NOT_LOOKED_AT = {
    "kehu.profiles.v1.NetworkEdge.first": "both ends of an edge are among the nodes",
    "kehu.profiles.v1.NetworkEdge.second": "both ends of an edge are among the nodes",
    "kehu.profiles.v1.Profile.aliases": "former names of the profile beside them",
    "kehu.profiles.v1.ProveRetentionRequest.item": "names data that is gone",
    "kehu.consent.v1.ConsentRecord.given_for": "former names of the profile asked for",
    "kehu.profiles.v1.ResolveSourceRecordsResponse.profile_ids": "ids for a service, no personal data",
}


def plan(method: str) -> MethodPlan:
    return PLANS[f"/kehu.profiles.v1.ProfilesService/{method}"]


def ask(folder: Path, first: int, until: int) -> list[str]:
    """Start the server, kill it once it answered `until - first` requests, return the ids of those answered."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chassis.audited_server", str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address = f"127.0.0.1:{int(process.stdout.readline())}"
    answered: list[str] = []
    done = threading.Event()

    def loop(number: int) -> None:
        with grpc.insecure_channel(address) as channel:
            read = profiles_pb2_grpc.ProfilesServiceStub(channel).GetProfile
            turn = 0
            while not done.is_set():
                request_id = f"{first}-{number}-{turn}"
                metadata = [("authorization", "Bearer user:ann@service"), ("x-purpose", "service"),
                            ("x-request-id", request_id)]  # fmt: skip
                try:
                    read(pb.GetProfileRequest(name="profiles/p1"), timeout=5, metadata=metadata)
                except grpc.RpcError:
                    return
                answered.append(request_id)
                turn += 1
                if len(answered) >= until - first:
                    process.kill()
                    done.set()

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process.wait()
    return answered


def test_of_ten_thousand_answers_and_five_kills_no_entry_is_missing(tmp_path: Path) -> None:
    answered: list[str] = []
    for round_ in range(ROUNDS):
        answered += ask(tmp_path, round_ * REQUESTS // ROUNDS, (round_ + 1) * REQUESTS // ROUNDS)
    shipped: list[AuditEntry] = []

    Shipper(AuditSpool(tmp_path), lambda batch: shipped.extend(batch.entries)).ship_once()

    written = Counter(entry.request_id for entry in shipped)
    assert len(answered) >= REQUESTS
    assert [request_id for request_id in answered if written[request_id] != 1] == []
    assert len(shipped) - len(answered) <= ROUNDS * THREADS, "an entry without its answer is only one under way"


def test_an_entry_says_whose_data_was_told_and_which_groups_of_it_had_a_value() -> None:
    add = profiles_pb2_grpc.add_ProfilesServiceServicer_to_server
    with running(Serving("profiles", [(add, OneProfile())]), OpenPolicy(RIGHTS)) as harness:
        harness.stub(profiles_pb2_grpc.ProfilesServiceStub).GetProfile(
            pb.GetProfileRequest(name="profiles/p1"), timeout=5
        )
        assert harness.trail.seen == [Seen(("p1",), ("personal/name",), ("personal/contact",))]


def test_a_list_names_everybody_in_it_and_no_group_that_is_empty_or_hidden() -> None:
    reply = pb.ListProfilesResponse(
        profiles=[resources_pb2.Profile(name=f"profiles/p{n}", resident_id="x", emails=[]) for n in range(3)]
    )

    assert seen_in(pb.ListProfilesRequest(), reply, RIGHTS) == Seen(("p0", "p1", "p2"))


def test_what_was_asked_for_is_named_even_when_the_reply_is_empty() -> None:
    asked = pb.BatchGetContactsRequest(profile_ids=["a", "b"])

    assert seen_in(asked, pb.BatchGetContactsResponse(), RIGHTS) == Seen(("a", "b"))


def test_a_number_of_an_identity_card_in_a_request_is_no_target() -> None:
    request = pb.LookupProfilesRequest(resident_id="11010119900101123X")

    assert target_of(plan("LookupProfiles"), request) == ""
    assert seen_in(request, pb.LookupProfilesResponse(), RIGHTS) == Seen()


def test_what_stands_in_the_url_is_the_target() -> None:
    assert target_of(plan("GetProfile"), pb.GetProfileRequest(name="profiles/p1")) == "profiles/p1"


@pytest.mark.parametrize("field", profile_fields(), ids=lambda field: field.full_name)
def test_every_field_that_can_tell_whose_data_it_is_is_looked_at(field) -> None:
    is_event = field.containing_type.file.name.endswith("events.proto")
    looked_at = bool(PROFILE_FIELD.search(field.name)) or field.name in NAME_FIELDS
    looked_at = looked_at and field.message_type is None

    assert is_event or looked_at != (field.full_name in NOT_LOOKED_AT)


def test_no_operation_carries_personal_data_past_the_trail() -> None:
    """Operations are polled and leave no entry per look: what they carry must not need one."""
    pool = descriptor_pool.Default()
    for path in PLANS:
        service, _, name = path[1:].partition("/")
        info = pool.FindMethodByName(f"{service}.{name}").GetOptions().Extensions[operations_pb2.operation_info]
        for kind in filter(None, (info.response_type, info.metadata_type)):
            message = pool.FindMessageTypeByName(kind if "." in kind else f"kehu.profiles.v1.{kind}")
            assert not personal(message), kind


def personal(descriptor: object) -> bool:
    everything = Obligations(everything=True)
    return bool(steps(descriptor, everything).groups)


def test_a_call_whose_entry_cannot_be_written_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError("no space left on device")

    add = profiles_pb2_grpc.add_ProfilesServiceServicer_to_server
    with running(Serving("profiles", [(add, OneProfile())])) as harness:
        monkeypatch.setattr(harness.trail, "record", full)
        with pytest.raises(grpc.RpcError) as refused_:
            harness.stub(profiles_pb2_grpc.ProfilesServiceStub).GetProfile(
                pb.GetProfileRequest(name="profiles/p1"), timeout=5
            )
    assert refused_.value.code() == grpc.StatusCode.INTERNAL


def test_a_refusal_tells_its_decision_id_and_the_entry_carries_it(tmp_path: Path) -> None:
    add = profiles_pb2_grpc.add_ProfilesServiceServicer_to_server
    policy = OpenPolicy(denied={("profiles", "read")})
    spool = AuditSpool(tmp_path)
    with running(Serving("profiles", [(add, OneProfile())]), policy) as harness:
        harness.trail.record = SpoolTrail("profiles", spool).record  # type: ignore[method-assign]
        stub = harness.stub(profiles_pb2_grpc.ProfilesServiceStub)
        told = refused(lambda: stub.GetProfile(pb.GetProfileRequest(name="profiles/p1"), timeout=5))
    shipped: list[AuditEntry] = []
    Shipper(spool, lambda batch: shipped.extend(batch.entries)).ship_once()

    assert [(entry.entry_id, entry.outcome) for entry in shipped] == [(told.metadata["decision_id"], "denied")]


def test_a_call_without_the_purpose_it_needs_is_in_the_trail_too() -> None:
    plan_ = replace(plan("GetProfile"), purpose_required=True)
    trail = MemoryTrail()
    guard = Guard("profiles", {plan_.path: plan_}, OpenPolicy(), StatedTokens(), trail, stated_peer)
    add = profiles_pb2_grpc.add_ProfilesServiceServicer_to_server
    server = build_server(Serving("profiles", [(add, OneProfile())]), guard, threads=2)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        read = profiles_pb2_grpc.ProfilesServiceStub(channel).GetProfile
        metadata = [("authorization", "Bearer user:ann@service")]
        told = refused(lambda: read(pb.GetProfileRequest(name="profiles/p1"), timeout=5, metadata=metadata))
    server.stop(0)

    assert (told.reason, told.metadata["decision_id"]) == ("PURPOSE_REQUIRED", "decision-1")
    assert trail.entries == [("user:ann", plan_.path, "", "PERMISSION_DENIED")]
