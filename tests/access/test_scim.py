"""SCIM through the gateway's own routes: joiners come, movers move, leavers are out at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import httpx
import pytest
from grpc import aio
from kehu.access.v1 import access_pb2 as access

from gateway.auth import Doorkeeper
from gateway.limits import Limits
from gateway.main import build_gateway
from gateway.routes.derived import Edge
from gateway.transcoding.catalog import methods_of
from gateway.transcoding.reading import Readers
from gateway.transcoding.writing import Writers
from gateway.upstreams import Upstreams
from infra.processes import free_port
from services.access.domain.issuers import Issuer
from services.access.domain.policies import Content
from services.access.domain.scim import ENTERPRISE, GROUP, LIST, PATCH, USER
from services.chassis.access.conditions import NamedCondition, Network
from services.chassis.errors import Unauthenticated
from tests.access.test_api import other_process, poll
from tests.access.world import START, World, running_world
from tests.gateway.conftest import serving_in_thread
from tests.harness import OpenPolicy, StatedTokens

HELPDESK = ("role:helpdesk", "administration")
SCIM = {"Content-Type": "application/scim+json"}
ALICE = {"schemas": [USER, ENTERPRISE], "userName": "alice@company.test", "externalId": "e-1", "active": True,
         "name": {"givenName": "Alice"}, "emails": [{"value": "alice@company.test", "primary": True}],
         "roles": [{"value": "role:seller"}], ENTERPRISE: {"department": "sales"}}  # fmt: skip


@dataclass
class Directory:
    """A company's directory: a client of the gateway, and access behind it."""

    world: World
    http: httpx.Client

    def users(self, **query: str | int) -> dict:
        reply = self.http.get("/scim/v2/Users", params=query)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def patch(self, where: str, *operations: dict) -> httpx.Response:
        return self.http.patch(f"/scim/v2/{where}", json={"schemas": [PATCH], "Operations": list(operations)})


@pytest.fixture
def directory() -> Iterator[Directory]:
    limits, port = Limits(rate=1000, burst=100_000), free_port()
    with running_world() as world:
        context = world.context
        context.issuers.insert(Issuer("acme", "https://acme.test", ("kehu",), scim_client="hr"))
        context.issuers.insert(Issuer("other", "https://other.test", ("kehu",), scim_client="hr2"))

        def make_app() -> object:
            methods = [m for m in methods_of([access.DESCRIPTOR]) if m.is_routed]
            upstreams = Upstreams(methods, lambda service, names: aio.insecure_channel(world.harness.address))
            doorkeeper = Doorkeeper(OpenPolicy(), StatedTokens(), world.harness.trail, limits)
            edge = Edge(doorkeeper, upstreams, limits, Readers(), Writers())
            return build_gateway(edge, methods, f"http://127.0.0.1:{port}", lambda: True, [], [upstreams.close])

        headers = {**SCIM, "Authorization": "Bearer app:hr@administration"}
        base = f"http://127.0.0.1:{port}"
        with (
            serving_in_thread(make_app, port),
            httpx.Client(base_url=base, headers=headers, timeout=15, trust_env=False) as http,
        ):
            yield Directory(world, http)


def problem(reply: httpx.Response) -> tuple[int, str]:
    document = reply.json()
    assert document["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
    assert document["status"] == str(reply.status_code)
    return reply.status_code, document.get("scimType", document["detail"].partition(":")[0])


def test_a_joiner_is_made_found_and_known_to_the_policy(directory: Directory) -> None:
    made = directory.http.post("/scim/v2/Users", json=ALICE)
    found = directory.users(filter='userName eq "alice@company.test"')

    assert (made.status_code, made.headers["content-type"]) == (201, "application/scim+json")
    assert made.headers["location"] == "/scim/v2/Users/user-alice"
    assert directory.http.get(made.headers["location"]).json() == made.json() == found["Resources"][0]
    assert (made.json()["userName"], made.json()["externalId"], made.json()["active"]) == ("alice", "e-1", True)
    assert (found["schemas"], found["totalResults"]) == ([LIST], 1)
    assert ("user:alice", "role:seller", "sales") in directory.world.context.directory.links()
    stored = directory.world.context.principals.get("user-alice")
    assert (stored.issuer, stored.external_id, stored.secret_hash) == ("acme", "", ""), "it signs in at its company"


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "active", "value": False},
        {"op": "Replace", "path": "active", "value": "False"},
        {"op": "replace", "value": {"active": False}},
        {"op": "add", "path": f"{USER}:active", "value": False},
    ],
)
def test_a_leavers_sessions_end_at_once_however_its_directory_says_it(directory: Directory, operation: dict) -> None:
    world = directory.world
    directory.http.post("/scim/v2/Users", json=ALICE)
    person = world.context.principals.get("user-alice")
    token = world.context.issuer.issue(person, "t1", world.clock.time)
    holder, verifier = other_process(world)
    assert verifier.verify(token)

    reply = directory.patch("Users/user-alice", operation)
    poll(world, holder)

    assert (reply.status_code, reply.json()["active"]) == (200, False)
    with pytest.raises(Unauthenticated):
        verifier.verify(token)
    assert "user:alice" not in {link[0] for link in world.context.directory.links()}


def test_what_changes_nothing_ends_no_session(directory: Directory) -> None:
    directory.http.post("/scim/v2/Users", json=ALICE)
    before = directory.world.context.principals.get("user-alice").version

    assert directory.http.put("/scim/v2/Users/user-alice", json=ALICE).status_code == 200
    assert directory.patch("Users/user-alice", {"op": "replace", "path": "title", "value": "x"}).status_code == 200
    assert directory.world.context.principals.get("user-alice").version == before


def test_a_removed_person_is_gone_kept_for_the_trail_and_may_come_back(directory: Directory) -> None:
    directory.http.post("/scim/v2/Users", json=ALICE)
    removed = directory.http.delete("/scim/v2/Users/user-alice")

    assert (removed.status_code, removed.content) == (204, b"")
    assert problem(directory.http.get("/scim/v2/Users/user-alice"))[0] == 404
    assert directory.users()["totalResults"] == 0
    kept = directory.world.context.principals.get("user-alice")
    assert (kept.enabled, kept.roles) == (False, ())
    assert directory.http.post("/scim/v2/Users", json=ALICE).json()["active"] is True


def test_groups_are_roles_and_their_members_have_them(directory: Directory) -> None:
    for name in ("alice", "bob"):
        body = {**ALICE, "userName": name, "externalId": name, "roles": []}
        assert directory.http.post("/scim/v2/Users", json=body).status_code == 201
    links = directory.world.context.directory.links

    added = directory.patch(
        "Groups/seller", {"op": "add", "path": "members", "value": [{"value": "user-alice"}, {"value": "user-bob"}]}
    )
    assert [member["value"] for member in added.json()["members"]] == ["user-alice", "user-bob"]
    assert added.json()["schemas"] == [GROUP]
    assert {("user:alice", "role:seller", "sales"), ("user:bob", "role:seller", "sales")} <= set(links())
    directory.patch("Groups/seller", {"op": "remove", "path": 'members[value eq "user-bob"]'})
    assert ("user:bob", "role:seller", "sales") not in links()
    directory.patch("Groups/seller", {"op": "replace", "path": "members", "value": []})
    assert ("user:alice", "role:seller", "sales") not in links()
    found = directory.http.get("/scim/v2/Groups", params={"filter": 'displayName eq "role:seller"'}).json()
    assert (found["totalResults"], found["Resources"][0]["id"]) == (1, "seller")


def test_nobody_gets_a_role_when_one_of_them_is_unknown(directory: Directory) -> None:
    directory.http.post("/scim/v2/Users", json={**ALICE, "roles": []})
    value = [{"value": "user-alice"}, {"value": "user-nobody"}]

    assert directory.patch("Groups/seller", {"op": "add", "path": "members", "value": value}).status_code == 404
    assert directory.world.context.principals.get("user-alice").roles == ()


def test_a_directory_makes_no_administrator(directory: Directory) -> None:
    body = {**ALICE, "roles": [{"value": "role:administrator"}], ENTERPRISE: {"department": "administration"}}
    assert problem(directory.http.post("/scim/v2/Users", json=body)) == (400, "invalidValue")
    body["roles"] = []
    assert directory.http.post("/scim/v2/Users", json=body).status_code == 201
    add = {"op": "add", "path": "members", "value": [{"value": "user-alice"}]}
    assert problem(directory.patch("Groups/administrator", add)) == (400, "invalidValue")
    assert directory.world.context.principals.get("user-alice").roles == ()


def change_policy(world: World, change: Callable[[Content], Content]) -> None:
    """Put a changed policy in force."""
    policies, current = world.context.policies, world.context.directory.policy
    changed = change(current.content)
    policies.insert(replace(current, id="next", number=current.number + 1, content=changed, version=0))
    world.context.directory.refresh(at_once=True)


def only_when(condition: NamedCondition, content: Content) -> Content:
    """Return a policy whose administrators are so under a condition only."""
    rules = tuple((*r, condition.name) if r[0] == "role:administrator" else r for r in content.rules)
    return replace(content, rules=rules, conditions=(condition,))


UNKNOWN = NamedCondition("office", Network(("10.1.0.0/16",)))
LATER = int(START.timestamp()) + 60
MAKERS = {
    "rules that hold at the office": ("administrator", lambda c: only_when(UNKNOWN, c)),
    "a role that begins in a minute": (
        "auditor",
        lambda c: replace(c, links=(("role:auditor", "role:administrator", "administration", f"{LATER}", "0"),)),
    ),
    "the right to give roles": (
        "helpdesk", lambda c: replace(c, rules=(*c.rules, (*HELPDESK, "principals", "update", "*", "allow"))),
    ),
    "the right to give roles for another purpose": (
        "helpdesk", lambda c: replace(c, rules=(*c.rules, (*HELPDESK, "principals", "*", "staff", "allow"))),
    ),
    "the right to trust an issuer": (
        "helpdesk", lambda c: replace(c, rules=(*c.rules, (*HELPDESK, "issuers", "create", "*", "allow"))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_a_directory_makes_nobody_who_will_be_an_administrator_or_can_make_one(directory: Directory, name: str) -> None:
    role, change = MAKERS[name]
    change_policy(directory.world, change)
    body = {**ALICE, "roles": [{"value": f"role:{role}"}], ENTERPRISE: {"department": "administration"}}

    assert problem(directory.http.post("/scim/v2/Users", json=body)) == (400, "invalidValue")
    assert directory.http.post("/scim/v2/Users", json={**body, "roles": []}).status_code == 201
    add = {"op": "add", "path": "members", "value": [{"value": "user-alice"}]}
    assert problem(directory.patch(f"Groups/{role}", add)) == (400, "invalidValue")
    assert directory.world.context.principals.get("user-alice").roles == ()


def test_a_directory_hides_nobody_who_may_sign_in_by_calling_them_removed(directory: Directory) -> None:
    hidden = {**ALICE, "externalId": "removed"}
    assert problem(directory.http.post("/scim/v2/Users", json=hidden)) == (400, "invalidValue")
    assert directory.http.post("/scim/v2/Users", json=ALICE).status_code == 201
    assert problem(directory.http.put("/scim/v2/Users/user-alice", json=hidden)) == (400, "invalidValue")
    assert [user["id"] for user in directory.users()["Resources"]] == ["user-alice"]


def test_a_directory_ends_also_whom_an_administrator_made_one(directory: Directory) -> None:
    body = {**ALICE, "roles": [], ENTERPRISE: {"department": "administration"}}
    directory.http.post("/scim/v2/Users", json=body)
    principals = directory.world.context.principals
    principals.save(replace(principals.get("user-alice"), roles=("role:administrator",)))
    directory.world.context.directory.refresh(at_once=True)

    assert directory.patch("Users/user-alice", {"op": "replace", "path": "active", "value": False}).status_code == 200
    again = directory.patch("Users/user-alice", {"op": "replace", "path": "active", "value": True})
    assert problem(again) == (400, "invalidValue")


def test_a_directory_sees_and_changes_its_own_people_only(directory: Directory) -> None:
    directory.http.post("/scim/v2/Users", json=ALICE)
    other = {"Authorization": "Bearer app:hr2@administration"}
    stranger = {"Authorization": "Bearer app:office-app@data-office"}

    for user in ("user-root", "app-marketing-app", "user-nobody"):
        assert directory.http.get(f"/scim/v2/Users/{user}").status_code == 404
        assert directory.http.delete(f"/scim/v2/Users/{user}").status_code == 404
    assert directory.http.get("/scim/v2/Users/user-alice", headers=other).status_code == 404
    assert directory.http.get("/scim/v2/Users", headers=other).json()["totalResults"] == 0
    assert problem(directory.http.post("/scim/v2/Users", json=ALICE, headers=other)) == (409, "uniqueness")
    assert problem(directory.http.post("/scim/v2/Users", json={**ALICE, "userName": "root"})) == (409, "uniqueness")
    assert problem(directory.http.get("/scim/v2/Users", headers=stranger)) == (403, "SCIM_CLIENT_UNKNOWN")
    assert directory.http.get("/scim/v2/Users", headers={"Authorization": ""}).status_code == 401


def test_people_are_listed_in_pages_counted_from_one(directory: Directory) -> None:
    for number in range(7):
        directory.http.post("/scim/v2/Users", json={**ALICE, "userName": f"p{number}", "externalId": f"x{number}"})
    pages = [directory.users(startIndex=start, count=3) for start in (1, 4, 7, 10)]

    assert [[user["userName"] for user in page["Resources"]] for page in pages] == [
        ["p0", "p1", "p2"], ["p3", "p4", "p5"], ["p6"], [],
    ]  # fmt: skip
    assert {page["totalResults"] for page in pages} == {7}
    assert directory.users(filter='externalId EQ "x3"')["Resources"][0]["userName"] == "p3"


BAD = {
    "filter": ("GET", "/scim/v2/Users", {"params": {"filter": 'userName co "a"'}}, "invalidFilter"),
    "filter of another attribute": ("GET", "/scim/v2/Users", {"params": {"filter": 'title eq "a"'}}, "invalidFilter"),
    "no name": ("POST", "/scim/v2/Users", {"json": {"schemas": [USER]}}, "invalidValue"),
    "a Chinese name": ("POST", "/scim/v2/Users", {"json": {**ALICE, "userName": "爱丽丝"}}, "invalidValue"),
    "active a number": ("POST", "/scim/v2/Users", {"json": {**ALICE, "active": 1}}, "invalidValue"),
    "an unknown role": ("POST", "/scim/v2/Users", {"json": {**ALICE, "roles": ["role:king"]}}, "PRINCIPAL_INVALID"),
    "no department": ("POST", "/scim/v2/Users", {"json": {**ALICE, ENTERPRISE: {}}}, "PRINCIPAL_INVALID"),
    "no operations": ("PATCH", "/scim/v2/Users/user-bob", {"json": {"schemas": [PATCH]}}, "invalidSyntax"),
    "a made-up op": ("PATCH", "/scim/v2/Users/user-bob", {"json": {"Operations": [{"op": "move"}]}}, "invalidSyntax"),
    "remove of nothing": ("PATCH", "/scim/v2/Users/user-bob", {"json": {"Operations": [{"op": "remove"}]}}, "noTarget"),
    "another name": (
        "PATCH", "/scim/v2/Users/user-bob",
        {"json": {"Operations": [{"op": "replace", "path": "userName", "value": "x"}]}}, "mutability",
    ),
    "a group's name": (
        "PATCH", "/scim/v2/Groups/seller", {"json": {"Operations": [{"op": "add", "path": "x", "value": 1}]}},
        "invalidPath",
    ),
    "no object": ("POST", "/scim/v2/Users", {"content": b"[]"}, "INVALID_FIELD"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_followed_is_said_in_scims_words_and_changes_nothing(directory: Directory, name: str) -> None:
    directory.http.post("/scim/v2/Users", json={**ALICE, "userName": "bob"})
    before = directory.world.context.principals.page("", 100, "")
    verb, path, how, expected = BAD[name]

    assert problem(directory.http.request(verb, path, **how)) == (400, expected)
    assert directory.world.context.principals.page("", 100, "") == before


def test_a_directory_reads_first_what_can_be_done(directory: Directory) -> None:
    found = directory.http.get("/scim/v2/ServiceProviderConfig")
    config = found.json()

    assert found.headers["content-type"] == "application/scim+json"
    assert config["patch"] == {"supported": True}
    assert config["filter"] == {"supported": True, "maxResults": 200}
    assert {name for name in ("sort", "etag", "changePassword") if config[name] == {"supported": False}} == {
        "sort", "etag", "changePassword",
    }  # fmt: skip
    assert [scheme["type"] for scheme in config["authenticationSchemes"]] == ["oauthbearertoken"]
    assert directory.http.get("/scim/v2/ServiceProviderConfig", headers={"Authorization": ""}).status_code == 401


@pytest.mark.parametrize("kind", ["Schemas", "ResourceTypes"])
def test_what_is_listed_is_found_by_its_own_location(directory: Directory, kind: str) -> None:
    listed = directory.http.get(f"/scim/v2/{kind}", params={"startIndex": 7, "count": 1}).json()

    assert listed["schemas"] == [LIST]
    assert listed["totalResults"] == len(listed["Resources"]) > 1, "pages are not looked at (RFC 7644 §4)"
    for one in listed["Resources"]:
        assert directory.http.get(one["meta"]["location"]).json() == one
    assert problem(directory.http.get(f"/scim/v2/{kind}/none"))[0] == 404
    assert problem(directory.http.get(f"/scim/v2/{kind}", params={"filter": 'id eq "a"'})) == (400, "invalidFilter")


def test_the_schemas_name_what_a_resource_has_and_nothing_else(directory: Directory) -> None:
    body = {**ALICE, "externalId": "e-1"}
    made = directory.http.post("/scim/v2/Users", json=body).json()
    group = directory.http.get("/scim/v2/Groups/seller").json()
    told = directory.http.get("/scim/v2/Schemas").json()["Resources"]
    schemas = {one["id"]: {attribute["name"] for attribute in one["attributes"]} for one in told}
    common = {"schemas", "id", "externalId", "meta"}  # RFC 7643 §3.1: of every resource, in no schema

    assert set(made) - common - {ENTERPRISE} == schemas[USER]
    assert set(made[ENTERPRISE]) == schemas[ENTERPRISE]
    assert set(group) - common == schemas[GROUP]
    for kind in directory.http.get("/scim/v2/ResourceTypes").json()["Resources"]:
        assert directory.http.get(f"/scim/v2{kind['endpoint']}").status_code == 200
        assert kind["schema"] in schemas
