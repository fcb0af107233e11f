"""SCIM's bulk through the gateway: every operation is judged, counted and written down as a request of its own."""

from __future__ import annotations

import json

import httpx
import pytest

from gateway.routes.bulk import OPERATIONS
from services.access.domain.scim import PATCH
from tests.access.test_scim import ALICE, Directory, directory, problem  # noqa: F401 - a fixture

BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"


def bulk(directory: Directory, *operations: object, **more: object) -> httpx.Response:  # noqa: F811
    return directory.http.post("/scim/v2/Bulk", json={"schemas": [BULK], "Operations": operations, **more})


def join(name: str, bulk_id: str, **more: object) -> dict:
    data = {**ALICE, "userName": name, "externalId": name, "roles": [], **more}
    return {"method": "POST", "path": "/Users", "bulkId": bulk_id, "data": data}


def enter(bulk_id: str) -> dict:
    value = [{"value": f"bulkId:{bulk_id}"}]
    data = {"schemas": [PATCH], "Operations": [{"op": "add", "path": "members", "value": value}]}
    return {"method": "PATCH", "path": "/Groups/seller", "data": data}


def statuses(reply: httpx.Response) -> list[str]:
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/scim+json"), reply.text
    return [operation["status"] for operation in reply.json()["Operations"]]


def test_references_are_followed_whatever_the_order(directory: Directory) -> None:  # noqa: F811
    leaver = {"method": "DELETE", "path": "/Users/bulkId:b"}
    reply = bulk(directory, enter("a"), leaver, join("alice", "a"), join("bob", "b"))

    assert statuses(reply) == ["200", "204", "201", "201"]
    made = reply.json()["Operations"][2]
    assert (made["bulkId"], made["location"]) == ("a", "/scim/v2/Users/user-alice")
    assert ("user:alice", "role:seller", "sales") in directory.world.context.directory.links()
    assert [user["id"] for user in directory.users()["Resources"]] == ["user-alice"]


def test_what_fails_is_told_in_its_place_and_what_needs_it_is_not_done(directory: Directory) -> None:  # noqa: F811
    reply = bulk(directory, join("爱丽丝", "a"), enter("a"), join("bob", "b"))

    assert statuses(reply) == ["400", "409", "201"]
    first, second, _ = reply.json()["Operations"]
    assert first["response"]["scimType"] == "invalidValue" and "location" not in first
    assert "bulkId a" in second["response"]["detail"]
    assert directory.http.get("/scim/v2/Groups/seller").json()["members"] == []


def test_as_many_may_fail_as_the_directory_says(directory: Directory) -> None:  # noqa: F811
    wrong = {"method": "DELETE", "path": "/Users/user-nobody"}

    assert statuses(bulk(directory, wrong, wrong, join("bob", "b"), failOnErrors=2)) == ["404", "404"]
    assert directory.users()["totalResults"] == 0
    assert statuses(bulk(directory, wrong, wrong, join("bob", "b"), failOnErrors=3)) == ["404", "404", "201"]


@pytest.mark.parametrize(
    "path", ["/Bulk", "/Users/../../v1/principals", "/../../v1/principals", "/Users?x=1", "/Nothing", "//Users"]
)
def test_an_operation_reaches_no_route_that_is_not_scims(directory: Directory, path: str) -> None:  # noqa: F811
    operation = {"method": "POST", "path": path, "bulkId": "a", "data": ALICE}

    assert statuses(bulk(directory, operation)) in (["400"], ["404"])


def test_every_operation_is_judged_for_who_calls(directory: Directory) -> None:  # noqa: F811
    stranger = {"Authorization": "Bearer app:office-app@data-office"}
    body = {"schemas": [BULK], "Operations": [join("alice", "a")]}

    reply = directory.http.post("/scim/v2/Bulk", json=body, headers=stranger)
    assert statuses(reply) == ["403"]
    assert directory.http.post("/scim/v2/Bulk", json=body, headers={"Authorization": ""}).status_code == 401
    assert directory.users()["totalResults"] == 0


BAD = {
    "no operations": {"Operations": []},
    "no list": {"Operations": {"method": "POST"}},
    "no objects": {"Operations": [1]},
    "a read": {"Operations": [{"method": "GET", "path": "/Users"}]},
    "nothing to refer to it by": {"Operations": [{**join("alice", "a"), "bulkId": ""}]},
    "two of one name": {"Operations": [join("alice", "a"), join("bob", "a")]},
    "none may fail": {"Operations": [join("alice", "a")], "failOnErrors": 0},
    "a text may fail": {"Operations": [join("alice", "a")], "failOnErrors": "2"},
}


@pytest.mark.parametrize("name", BAD)
def test_of_a_bulk_that_cannot_be_read_nothing_is_done(directory: Directory, name: str) -> None:  # noqa: F811
    reply = directory.http.post("/scim/v2/Bulk", json=BAD[name])

    assert problem(reply) == (400, "invalidSyntax")
    assert directory.users()["totalResults"] == 0


UNWRITABLE = {
    "text that is no Unicode": {"data": {**ALICE, "userName": "\ud800"}},
    "a name that is no Unicode": {"data": {**ALICE, "\udfff": 1}},
    "a path that is no Unicode": {"path": "/Users/\ud800"},
    "a method that is no Unicode": {"method": "\ud800"},
    "a bulkId that is no Unicode": {"bulkId": "\ud800"},
    "an integer of 65 bits": {"data": {**ALICE, "age": 2**64}},
    "an integer far below": {"data": {**ALICE, "age": -(2**63) - 1}},
}


def raw(*operations: object, **more: object) -> str:
    return json.dumps({"schemas": [BULK], "Operations": operations, **more})


@pytest.mark.parametrize("name", UNWRITABLE)
def test_nothing_is_done_when_a_later_operation_cannot_be_written(directory: Directory, name: str) -> None:  # noqa: F811
    body = raw(join("alice", "a"), {**join("bob", "b"), **UNWRITABLE[name]})
    reply = directory.http.post("/scim/v2/Bulk", content=body)

    assert problem(reply) == (400, "invalidSyntax")
    assert directory.users()["totalResults"] == 0


@pytest.mark.parametrize("member", ["method", "更", "\\ud800"])
def test_a_member_given_twice_is_named_and_nothing_is_done(directory: Directory, member: str) -> None:  # noqa: F811
    body = f'{{"Operations": [{raw(join("alice", "a"))}, {{"{member}": 1, "{member}": 2}}]}}'
    reply = directory.http.post("/scim/v2/Bulk", content=body)

    assert problem(reply) == (400, "invalidSyntax") and "/Operations/1/" in reply.json()["detail"]
    assert directory.users()["totalResults"] == 0


def test_any_number_of_failures_may_be_allowed(directory: Directory) -> None:  # noqa: F811
    wrong = {"method": "DELETE", "path": "/Users/user-nobody"}
    for many in ("1" + "0" * 400, "1e400", "100"):
        body = raw(wrong, wrong, failOnErrors=7).replace("7", many)
        assert statuses(directory.http.post("/scim/v2/Bulk", content=body)) == ["404", "404"]
    assert statuses(bulk(directory, wrong, wrong, failOnErrors=1.5)) == ["404", "404"]


@pytest.mark.parametrize(
    ("header", "reason"), [("Idempotency-Key", "IDEMPOTENCY_KEY_REFUSED"), ("If-Match", "IF_MATCH_REFUSED")]
)
def test_a_promise_that_a_bulk_cannot_keep_is_not_made(
    directory: Directory,  # noqa: F811
    header: str,
    reason: str,
) -> None:
    body = {"schemas": [BULK], "Operations": [join("alice", "a")]}
    reply = directory.http.post("/scim/v2/Bulk", json=body, headers={header: '"1"'})

    assert reply.status_code == 400 and reply.json()["detail"].startswith(reason)
    assert directory.users()["totalResults"] == 0


def test_a_bulk_is_as_large_as_the_configuration_says(directory: Directory) -> None:  # noqa: F811
    told = directory.http.get("/scim/v2/ServiceProviderConfig").json()["bulk"]
    leaver = {"method": "DELETE", "path": "/Users/user-nobody"}

    assert told == {"supported": True, "maxOperations": OPERATIONS, "maxPayloadSize": 1024 * 1024}
    assert bulk(directory, *[leaver] * OPERATIONS).status_code == 200
    assert problem(bulk(directory, *[leaver] * (OPERATIONS + 1)))[0] == 413
    assert problem(bulk(directory, {**leaver, "data": "x" * told["maxPayloadSize"]}))[0] == 413
