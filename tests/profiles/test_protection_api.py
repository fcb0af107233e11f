"""Erasure and keys through the API: whose right it is, and what is shown."""

from __future__ import annotations

from google.longrunning import operations_pb2
from kehu.profiles.v1 import profiles_pb2, protection_pb2

from services.access.defaults import default_content
from services.chassis.jobs import Worker
from services.profiles.protection.erasing import Eraser
from services.profiles.protection.rotating import KeyRotator
from tests.profiles.conftest import Desk
from tests.profiles.people import person

ADMINISTRATOR = {"caller": "user:root@administration", "purpose": "administration"}


def work(desk: Desk) -> None:
    service = desk.service
    rotator = KeyRotator(service.store, service.vault, others_know_after=0, read_seconds=0)
    eraser = Eraser(service.store, service.vault, others_know_after=0)
    worker = Worker("profiles", {**rotator.handlers(), **eraser.handlers()}, service.operations)
    while worker.run_one():
        pass


def ended(desk: Desk, operation: operations_pb2.Operation, department: str) -> operations_pb2.Operation:
    work(desk)
    return desk.service.jobs.get(operation.name, department)


def test_a_steward_erases_a_person_and_gets_a_receipt(desk: Desk) -> None:
    name = desk.upsert("till", "0", person(0))
    request = protection_pb2.EraseProfileRequest(name=name, reason="DSR-2026-17", request_id="once")
    operation = desk.call("EraseProfile", request)
    assert desk.call("EraseProfile", request).name == operation.name
    receipt = protection_pb2.Erasure()
    assert ended(desk, operation, "data-office").response.Unpack(receipt)

    assert (receipt.profile, receipt.reason, receipt.records) == (name, "DSR-2026-17", 1)
    for method, gone in (
        ("GetProfile", profiles_pb2.GetProfileRequest(name=name)),
        ("GetProfileHistory", profiles_pb2.GetProfileHistoryRequest(name=name)),
        ("GetProfileLineage", profiles_pb2.GetProfileLineageRequest(name=name)),
        ("EraseProfile", request.__class__(name=name, reason="DSR-3")),
    ):
        assert desk.refused(method, gone) == "PROFILE_NOT_FOUND"
    assert not desk.call("ListProfiles", profiles_pb2.ListProfilesRequest()).profiles
    by_phone = profiles_pb2.LookupProfilesRequest(phone=person(0)["phone"])
    assert not desk.call("LookupProfiles", by_phone).profiles


def test_an_erasure_needs_a_reason_without_words(desk: Desk) -> None:
    name = desk.upsert("till", "0", person(0))

    for reason in ("张三 asked for it", "", "she asked"):
        request = protection_pb2.EraseProfileRequest(name=name, reason=reason)
        assert desk.refused("EraseProfile", request) == "INVALID_REQUEST"


def test_the_first_policy_gives_erasure_to_the_data_office_and_keys_to_the_administrator_alone() -> None:
    def allowed(resource: str, action: str) -> set[str]:
        return {row[0] for row in default_content().rules if row[2] == resource and row[3] in ("*", action)}

    assert allowed("profiles", "erase") == {"role:steward"}
    assert allowed("masterKeys", "rotate") == allowed("masterKeys", "retire") == {"role:administrator"}


def test_the_administrator_changes_keys_and_sees_which_wrap(desk: Desk) -> None:
    desk.upsert("till", "0", person(0))
    [old] = desk.call("ListMasterKeys", protection_pb2.ListMasterKeysRequest(), **ADMINISTRATOR).keys
    rotate = protection_pb2.RotateMasterKeyRequest(create_key=True)
    ended(desk, desk.call("RotateMasterKey", rotate, **ADMINISTRATOR), "administration")
    found = desk.call("ListMasterKeys", protection_pb2.ListMasterKeysRequest(), **ADMINISTRATOR)
    assert found.keys == [old, found.newest]
    retire = protection_pb2.RetireMasterKeyRequest(key=old)
    operation = ended(desk, desk.call("RetireMasterKey", retire, **ADMINISTRATOR), "administration")
    assert operation.HasField("response")
    rotate_data = protection_pb2.RotateDataKeysRequest()
    operation = ended(desk, desk.call("RotateDataKeys", rotate_data, **ADMINISTRATOR), "administration")
    progress = protection_pb2.KeyRotation()
    assert operation.response.Unpack(progress)
    assert (progress.changed, progress.destroyed) == (1, 1)
