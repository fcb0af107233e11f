"""Relationships: stated, said by sources, suggested by rule; they follow their records, and hide whom consent hides."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kehu.consent.v1 import consent_pb2
from kehu.profiles.v1 import profiles_pb2
from kehu.profiles.v1 import relations_pb2 as pb

from services.chassis.access.values import Condition, Obligations
from services.chassis.errors import Unavailable
from services.chassis.jobs import Worker
from services.profiles.admission import Admission, Entry
from services.profiles.domain.relations import BY_STEWARD, STATED, Edge, Relation, household_key, walk
from services.profiles.domain.sources import SourceSettings
from services.profiles.protection.erasing import Eraser
from services.profiles.protection.resealing import Resealer
from services.profiles.relations.columns import ColumnFollower, RelationColumns, columns_of
from services.profiles.relations.relating import Relations
from services.profiles.relations.remotes import RemoteConsents
from services.profiles.relations.suggesting import Suggester
from services.profiles.relations.values import HouseholdKey, RelationCode, StoredRelation
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.values import Source
from tests.profiles.conftest import Desk
from tests.profiles.domain.builders import record
from tests.profiles.people import Service, person, source_request
from tests.profiles.test_store import mongo_store, store

__all__ = ["mongo_store", "store"]
CODE = "91110000100006602D"


@dataclass
class StatedConsents:
    """Allows whom it is told to; counts who was asked about, and may be out of order."""

    refused: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    is_down: bool = False

    def allowed(self, profile_ids: Sequence[str], purpose: str, channel: str) -> Collection[str]:
        """Answer."""
        if self.is_down:
            raise Unavailable("consent does not answer")
        self.asked += [(item, purpose, channel) for item in profile_ids]
        return [item for item in profile_ids if item not in self.refused]


@pytest.fixture
def consents(desk: Desk) -> StatedConsents:
    found = StatedConsents()
    object.__setattr__(desk.service.tools, "consents", found)
    return found


def relate(desk: Desk, kind: str, one: str, other: str, **more: object) -> pb.Relationship:
    given_ = pb.Relationship(type=f"relationTypes/{kind}", profile=one, other_profile=other, **more)
    return desk.call("CreateRelationship", pb.CreateRelationshipRequest(relationship=given_))


def relations(desk: Desk, name: str) -> list[pb.Relationship]:
    return list(desk.call("ListRelationships", pb.ListRelationshipsRequest(parent=name)).relationships)


def network(desk: Desk, name: str, **question: object) -> pb.Network:
    return desk.call("GetNetwork", pb.GetNetworkRequest(name=name, **{"channel": "email", **question}))


def named(found: pb.Network) -> list[str]:
    return [item.name for item in found.nodes]


def people(desk: Desk, count: int) -> list[str]:
    return [desk.upsert("till", str(number), person(number)) for number in range(count)]


def suggest(desk: Desk) -> pb.RelationSuggestions:
    operation = desk.call("SuggestRelationships", pb.SuggestRelationshipsRequest())
    handlers = Suggester(desk.service.store, desk.service.vault, 2).handlers()
    assert Worker("profiles", handlers, desk.service.operations).run_one()
    found = pb.RelationSuggestions()
    desk.service.jobs.get(operation.name, "data-office").response.Unpack(found)
    return found


# the walk


def graph(*pairs: str) -> list[Edge]:
    return [Edge(f"r{at}", "other", *pair.split("-")) for at, pair in enumerate(pairs)]


def walked(edges: Sequence[Edge], depth: int, hidden: Collection[str] = (), nodes: int = 99, most: int = 99):
    def edges_of(asked: Sequence[str]) -> tuple[list[Edge], bool]:
        return [edge for edge in edges if edge.one in asked or edge.other in asked], False

    return walk("a", depth, edges_of, lambda asked: {item for item in asked if item not in hidden}, nodes, most)


def test_a_walk_reaches_whom_so_many_steps_lead_to() -> None:
    edges = graph("a-b", "b-c", "c-d", "d-e")
    assert ["".join(walked(edges, depth).nodes) for depth in (1, 2, 3)] == ["ab", "abc", "abcd"]


def test_nobody_is_walked_through_who_is_hidden() -> None:
    edges = graph("a-b", "b-c", "a-d", "d-e")
    found = walked(edges, 3, {"b"})
    assert set(found.nodes) == {"a", "d", "e"}
    assert set(found.edges) == {"r2", "r3"}
    assert not walked(edges, 3, {"a"}).nodes, "who is hidden has no network"


def test_the_strongest_of_the_shortest_ways_counts() -> None:
    edges = [Edge("1", "x", "a", "b", 0.5), Edge("2", "x", "a", "c", 0.9), Edge("3", "x", "b", "d", 1.0),
             Edge("4", "x", "c", "d", 0.8), Edge("5", "x", "a", "b", 0.6)]  # fmt: skip
    nodes = walked(edges, 2).nodes
    assert (nodes["b"].strength, nodes["d"].distance) == (0.6, 2)
    assert nodes["d"].strength == pytest.approx(0.72)


def test_a_walk_that_ends_at_a_limit_says_so_and_keeps_the_strongest() -> None:
    edges = [Edge(str(number), "x", "a", f"n{number:02d}", 1 - number / 100) for number in range(20)]
    found = walked(edges, 1, nodes=6)
    assert (list(found.nodes), found.is_truncated) == (["a", *(f"n{number:02d}" for number in range(5))], True)
    assert walked(edges, 1, most=3).is_truncated
    assert not walked(edges, 1).is_truncated


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=20),
    st.sets(st.sampled_from("bcdefgh")),
    st.integers(1, 3),
)
def test_a_walk_shows_exactly_what_is_reached_through_those_who_may_be_seen(
    pairs: list[tuple[str, str]], hidden: set[str], depth: int
) -> None:
    edges = [Edge(str(at), "x", *pair) for at, pair in enumerate(pairs) if pair[0] != pair[1]]
    expected = {"a"}
    for _ in range(depth):
        expected |= {e.beyond(n) for e in edges for n in (e.one, e.other) if n in expected} - hidden
    found = walked(edges, depth, hidden)
    assert set(found.nodes) == expected
    assert all({edge.one, edge.other} <= expected for edge in found.edges.values())


# stated


def test_a_relationship_is_stated_with_its_evidence_and_seen_from_both(desk: Desk) -> None:
    one, two, three = people(desk, 3)
    made = relate(desk, "parent", one, two, valid_from="2001-02-03", confidence=0.9)

    assert (made.evidence.kind, made.evidence.stated_by) == (pb.RelationEvidence.KIND_STEWARD, "user:test")
    assert (made.state, made.inferred, made.valid_from) == (pb.Relationship.STATE_STATED, False, "2001-02-03")
    assert relations(desk, one) == relations(desk, two) == [made]
    assert relations(desk, three) == []
    assert (made.profile, made.other_profile) == (one, two)


def test_what_cannot_be_a_relationship_is_refused_with_what_is_wrong(desk: Desk) -> None:
    one, two, _ = people(desk, 3)

    def refused(**given_: object) -> str:
        base = {"type": "relationTypes/spouse", "profile": one, "other_profile": two, **given_}
        request = pb.CreateRelationshipRequest(
            relationship=pb.Relationship(**{k: v for k, v in base.items() if v is not None})
        )
        return desk.refused("CreateRelationship", request)

    organization = {"other_profile": None, "type": "relationTypes/employer"}
    assert refused(type="relationTypes/pet") == "RELATION_INVALID"
    assert refused(other_profile=one) == "RELATION_INVALID"
    assert refused(type="relationTypes/employer") == "RELATION_INVALID"
    assert refused(valid_from="2020-02-30") == "RELATION_INVALID"
    assert refused(valid_from="2020-02-03", valid_to="2020-02-02") == "RELATION_INVALID"
    assert refused(**organization, organization=pb.Organization()) == "RELATION_INVALID"
    wrong = pb.Organization(unified_social_credit_code=CODE[:-1] + "A")
    assert refused(**organization, organization=wrong) == "RELATION_INVALID"
    assert refused(other_profile="profiles/nobody") == "PROFILE_NOT_FOUND"
    relate(desk, "spouse", one, two)
    assert refused(profile=two, other_profile=one) == "RELATIONSHIP_EXISTS", "spouses are so both ways"
    assert relate(desk, "parent", one, two).name != relate(desk, "parent", two, one).name


def test_an_ended_relationship_stays_and_may_begin_again(desk: Desk, consents: StatedConsents) -> None:
    one, two = people(desk, 2)
    made = relate(desk, "spouse", one, two, valid_from="2001-01-01")
    desk.call("EndRelationship", pb.EndRelationshipRequest(name=made.name, valid_to="2010-01-01"))

    assert named(network(desk, one)) == [one], "it does not hold today"
    assert relations(desk, one)[0].valid_to == "2010-01-01"
    again = relate(desk, "spouse", one, two, valid_from="2012-01-01")
    assert named(network(desk, one)) == [one, two]
    desk.call("DeleteRelationship", pb.DeleteRelationshipRequest(name=again.name))
    assert desk.refused("DeleteRelationship", pb.DeleteRelationshipRequest(name=again.name)) == "RELATIONSHIP_NOT_FOUND"


def test_types_are_data(desk: Desk) -> None:
    one, two = people(desk, 2)
    kind = pb.RelationType(display_name="mentor of 导师", inverse_display_name="pupil of 学生")
    request = pb.CreateRelationTypeRequest(relation_type_id="mentor", relation_type=kind)
    desk.call("CreateRelationType", request)

    assert desk.refused("CreateRelationType", request) == "RELATION_TYPE_EXISTS"
    request.relation_type_id = "spouse"
    assert desk.refused("CreateRelationType", request) == "RELATION_TYPE_EXISTS"
    listed = desk.call("ListRelationTypes", pb.ListRelationTypesRequest(page_size=1000)).relation_types
    assert [item.name.rpartition("/")[2] for item in listed] == [
        "employer", "household", "mentor", "other", "parent", "referral", "spouse",
    ]  # fmt: skip
    assert relate(desk, "mentor", one, two).type == "relationTypes/mentor"


def test_nothing_of_a_relationship_is_stored_in_clear(desk: Desk) -> None:
    one, two = people(desk, 2)
    relate(desk, "spouse", one, two)
    given_ = pb.Relationship(type="relationTypes/employer", profile=one)
    given_.organization.display_name, given_.organization.unified_social_credit_code = "某某科技", CODE
    desk.call("CreateRelationship", pb.CreateRelationshipRequest(relationship=given_, note="told at the counter"))

    kept = repr([
        {name: getattr(item, name) for name in StoredRelation.__slots__}
        for item in desk.service.store.relations.page({}, "", 10)
    ])  # fmt: skip
    for secret in ("spouse", "某某", CODE, "counter", "till/0"):
        assert secret not in kept


def test_a_relationship_is_gone_with_either_person(desk: Desk) -> None:
    one, two, three = people(desk, 3)
    relate(desk, "spouse", one, two)
    relate(desk, "parent", three, one)
    store_, key_id = desk.service.store, two.rpartition("/")[2]
    store_.destroy_data_key(store_.profiles([key_id])[key_id].key_id)
    desk.service.vault.forget(store_.profiles([key_id])[key_id].key_id)

    assert [item.type for item in relations(desk, one)] == ["relationTypes/parent"]
    assert len(store_.relations.page({}, "", 10)) == 1, "what nobody can read any more is removed"


def test_a_relationship_outlives_new_data_keys_of_both(desk: Desk) -> None:
    one, two = people(desk, 2)
    made = relate(desk, "spouse", one, two)
    store_, resealer = desk.service.store, Resealer(desk.service.store, desk.service.vault)
    for name in (one, two):
        profile_id = name.rpartition("/")[2]
        assert resealer.reseal(store_.profiles([profile_id])[profile_id])
        assert resealer.settle(store_.profiles([profile_id])[profile_id]) == 1
        assert relations(desk, one) == [made]


def test_an_erasure_leaves_nothing_of_relationships(desk: Desk) -> None:
    one, two = desk.upsert("till", "1", flat(1)), desk.upsert("till", "2", flat(2))
    suggest(desk)
    store_, profile_id = desk.service.store, one.rpartition("/")[2]
    ColumnFollower(store_, desk.service.vault).follow(
        [record("1", source_id="till", my_code="KH-1")], RelationColumns({}, {"till": ["my_code"]})
    )
    eraser = Eraser(store_, desk.service.vault, 0)
    eraser._enter(profile_id, "asked", "user:test")
    eraser.erase(profile_id)

    assert relations(desk, two) == []
    assert store_.relations.page({}, "", 9) == store_.relation_codes.page({}, "", 9) == []
    assert [item.record for item in store_.household_keys.page({}, "", 9)] == ["till/2"]


def test_only_whom_the_caller_may_reach_is_listed_or_changed(desk: Desk) -> None:
    one, two = people(desk, 2)
    elsewhere = desk.upsert("else", "9", person(9))
    near, far = relate(desk, "spouse", one, two), relate(desk, "parent", elsewhere, one)
    desk.harness.policy.obligations = Obligations(
        everything=True, row_filter=(Condition("owner_department", ("sales",)),)
    )

    assert relations(desk, one) == [near]
    assert desk.refused("DeleteRelationship", pb.DeleteRelationshipRequest(name=far.name)) == "RELATIONSHIP_NOT_FOUND"
    assert desk.refused("ListRelationships", pb.ListRelationshipsRequest(parent=elsewhere)) == "PROFILE_NOT_FOUND"


@pytest.fixture(autouse=True)
def elsewhere(request: pytest.FixtureRequest) -> None:
    """Register a source of another department where there is a desk."""
    if "desk" in request.fixturenames:
        made = source_request("else")
        made.source.owner_department = "marketing"
        request.getfixturevalue("desk").call("CreateSource", made)


# networks


def test_a_network_names_nobody_who_did_not_consent_to_the_purpose(desk: Desk, consents: StatedConsents) -> None:
    one, two, three, four = people(desk, 4)
    relate(desk, "spouse", one, two)
    relate(desk, "referral", two, three)
    relate(desk, "referral", one, four)
    assert named(network(desk, one, depth=3)) == [one, *sorted((two, four)), three]
    assert {item[1:] for item in consents.asked} == {("stewardship", "email")}

    consents.refused = {two.rpartition("/")[2]}
    found = network(desk, one, depth=3)
    assert (named(found), len(found.edges)) == ([one, four], 1)
    assert three.rpartition("/")[2] not in repr(found)
    consents.refused = {one.rpartition("/")[2]}
    assert not network(desk, one).nodes


def test_a_network_of_a_silent_consent_service_is_an_error_not_an_answer(desk: Desk, consents: StatedConsents) -> None:
    one, two = people(desk, 2)
    relate(desk, "spouse", one, two)
    consents.is_down = True
    assert desk.refused("GetNetwork", pb.GetNetworkRequest(name=one, channel="email")) == "UNAVAILABLE"


def test_a_network_without_a_purpose_is_refused(desk: Desk) -> None:
    (one,) = people(desk, 1)
    request = pb.GetNetworkRequest(name=one, channel="email")
    assert desk.refused("GetNetwork", request, purpose="") == "PURPOSE_REQUIRED"


def test_a_network_ends_at_whom_the_row_filter_hides(desk: Desk, consents: StatedConsents) -> None:
    one, two = people(desk, 2)
    far = desk.upsert("else", "9", person(9))
    relate(desk, "referral", one, far)
    relate(desk, "referral", far, two)
    desk.harness.policy.obligations = Obligations(
        everything=True, row_filter=(Condition("owner_department", ("sales",)),)
    )
    assert named(network(desk, one, depth=3)) == [one]
    assert far.rpartition("/")[2] not in {item[0] for item in consents.asked}


def test_people_of_one_employer_meet_at_the_organization(desk: Desk, consents: StatedConsents) -> None:
    one, two = people(desk, 2)
    for name, title in ((one, "某某科技"), (two, "某某科技有限公司")):
        given_ = pb.Relationship(type="relationTypes/employer", profile=name)
        given_.organization.display_name, given_.organization.unified_social_credit_code = title, CODE.lower()
        desk.call("CreateRelationship", pb.CreateRelationshipRequest(relationship=given_))
    found = network(desk, one, depth=2)

    assert [item.distance for item in found.nodes] == [0, 1, 2]
    assert found.nodes[1].organization.unified_social_credit_code == CODE
    assert found.nodes[1].name.startswith("organizations/") and found.nodes[2].name == two
    employer = found.nodes[1].name
    assert {(item.first, item.second) for item in found.edges} == {(one, employer), (two, employer)}
    desk.harness.policy.obligations = Obligations()
    hidden = network(desk, one, depth=2).nodes
    assert (hidden[1].organization.display_name, hidden[2].display_name) == ("", "")


def test_prospects_are_those_of_a_stage_reached_through_everybody(desk: Desk, consents: StatedConsents) -> None:
    one, two, three = people(desk, 3)
    relate(desk, "referral", one, two)
    relate(desk, "referral", two, three, confidence=0.5)
    store_, last = desk.service.store, three.rpartition("/")[2]
    store_.write_profiles([(replace(store_.profiles([last])[last], stage="potential"), [])])

    found = network(desk, one, depth=2, stages=["potential"])
    assert [(item.name, item.strength) for item in found.nodes] == [(one, 1.0), (three, 0.5)]
    assert named(network(desk, one, depth=2, types=["relationTypes/spouse"])) == [one]


def test_consent_is_asked_in_the_callers_name_and_every_doubt_is_a_refusal() -> None:
    class Stub:
        def BatchDecide(self, request: consent_pb2.BatchDecideRequest, timeout: float) -> object:
            self.request = request
            if request.purpose_id == "down":
                raise grpc.RpcError
            return consent_pb2.BatchDecideResponse(decisions=[
                consent_pb2.Decision(profile_id="a", allowed=True), consent_pb2.Decision(profile_id="b"),
                consent_pb2.Decision(profile_id="x", allowed=True),
            ])  # fmt: skip

    stub = Stub()
    remote = RemoteConsents(stub)  # type: ignore[arg-type]
    assert remote.allowed(["a", "b", "c"], "marketing", "email") == {"a"}
    assert not stub.request.accept_legal_basis
    remote.allowed(["a"], "service", "phone")
    assert stub.request.accept_legal_basis
    with pytest.raises(Unavailable):
        remote.allowed(["a"], "down", "email")


# merged and split


def test_a_relationship_follows_its_record_and_one_to_oneself_sleeps_until_the_split(desk: Desk) -> None:
    one, two, three = people(desk, 3)
    made, other = relate(desk, "spouse", one, two), relate(desk, "parent", one, three)
    ids = [name.rpartition("/")[2] for name in (one, two, three)]
    survivor = desk.service.taker.merger.merge(ids[:2])

    assert [(item.type, item.profile) for item in relations(desk, f"profiles/{survivor}")] == [
        ("relationTypes/parent", f"profiles/{survivor}")
    ]
    assert desk.refused("DeleteRelationship", pb.DeleteRelationshipRequest(name=made.name)) == "RELATIONSHIP_NOT_FOUND"
    split = profiles_pb2.UnmergeProfileRequest(name=f"profiles/{survivor}", reason="two people")
    split.source_records.add(source="sources/till", source_record_id="1")
    desk.call("UnmergeProfile", split)
    keys = ("till/0", "till/1")
    owner = {key: f"profiles/{desk.service.store.by_record_keys([key])[0].profile_id}" for key in keys}

    assert {item.name for item in relations(desk, owner["till/0"])} == {made.name, other.name}
    (back,) = relations(desk, owner["till/1"])
    assert (back.profile, back.other_profile) == (owner["till/0"], owner["till/1"])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("merge"), st.integers(0, 5), st.integers(0, 5)),
        st.tuples(st.just("split"), st.integers(0, 5), st.integers(0, 5)),
        st.tuples(st.just("relate"), st.integers(0, 5), st.integers(0, 5)),
    ),
    max_size=12,
)


@given(STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_merged_and_split_relationships_are_where_their_records_are(
    tmp_path: Path, steps: list[tuple[str, int, int]]
) -> None:
    service = Service(tmp_path / "keys")
    admit_people(service, 6)
    merger, found = service.taker.merger, Relations(service.store, service.vault)
    stated: list[tuple[str, str]] = []

    def home(number: int) -> str:
        return service.store.by_record_keys([f"till/{number}"])[0].profile_id

    for step, one, two in steps:
        if step == "merge" and home(one) != home(two):
            merger.merge([home(one), home(two)], "user:li")
        elif step == "split" and len(service.store.profiles([home(one)])[home(one)].records) > 1:
            merger.split(home(one), [f"till/{one}"], new_name())
        elif step == "relate" and one != two:
            keys = f"till/{one}", f"till/{two}"
            relation = Relation("other", *keys, BY_STEWARD, "user:a", "2026-01-01T00:00:00+00:00")
            service.store.relations.insert(found.state(relation, new_name(), STATED))
            stated.append(keys)
    for number in range(6):
        profile = service.store.profiles([home(number)])[home(number)]
        shown, _ = found.of([profile])
        keys = {key: home(int(key.partition("/")[2])) for pair in stated for key in pair}
        expected = [
            (keys[one], keys[two]) for one, two in stated
            if keys[one] != keys[two] and profile.profile_id in (keys[one], keys[two])
        ]  # fmt: skip
        assert sorted(item.ends for item in shown) == sorted(expected)


def new_name() -> str:
    return uuid4().hex


def admit_people(service: Service, count: int) -> None:
    admission = Admission(service.store, service.vault, service.taker)
    entries = [Entry(n + 1, person(n), False, str(n)) for n in range(count)]
    admission.admit(SourceSettings("till", (), owner_department="sales"), entries)


# said by sources


@pytest.fixture
def club(desk: Desk) -> Iterator[Desk]:
    """A source whose rows name the spouse's card, and who recommended them by a code."""
    for name in ("spouse_card", "referred_by", "my_code"):
        request = profiles_pb2.CreateFieldDefinitionRequest(field_id=name, field_definition={})
        desk.call("CreateFieldDefinition", request)
    made = source_request("club")
    made.source.relations.add(field="spouse_card", type="relationTypes/spouse")
    made.source.relations.add(field="referred_by", type="relationTypes/referral", code_field="my_code", inverse=True)
    desk.call("CreateSource", made)
    yield desk


def test_a_column_that_names_the_others_record_makes_a_relationship_whichever_comes_first(club: Desk) -> None:
    one = club.upsert("club", "1", {**person(1), "spouse_card": "2"})
    assert relations(club, one) == []
    two = club.upsert("club", "2", person(2))
    (found,) = relations(club, two)

    assert (found.profile, found.other_profile, found.inferred) == (one, two, False)
    assert found.evidence.kind == pb.RelationEvidence.KIND_SOURCE_RECORD
    assert found.evidence.source_record == "sources/club/records/1"


def test_a_column_that_names_a_code_finds_who_holds_it(club: Desk, consents: StatedConsents) -> None:
    guest = club.upsert("club", "9", {**person(9), "referred_by": "KH-77"})
    host = club.upsert("club", "3", {**person(3), "my_code": "KH-77"})
    club.upsert("club", "4", {**person(4), "my_code": "KH-77"})
    (found,) = relations(club, host)

    assert (found.profile, found.other_profile) == (host, guest), "the one with the code is who recommended"
    assert relations(club, guest) == [found]
    assert named(network(club, host)) == [host, guest]
    kept = repr(club.service.store.relation_codes.page({}, "", 10))
    assert "KH-77" not in kept


def test_a_code_that_was_typed_into_the_wrong_row_is_whose_it_is_after_the_correction(club: Desk) -> None:
    guest = club.upsert("club", "9", {**person(9), "referred_by": "KH-77"})
    wrong = club.upsert("club", "4", {**person(4), "my_code": "KH-77"}, "2026-01-01T00:00:00Z")
    club.upsert("club", "4", {**person(4), "my_code": "KH-78"}, "2026-01-02T00:00:00Z")
    host = club.upsert("club", "3", {**person(3), "my_code": "KH-77"})

    assert relations(club, wrong) == []
    assert [(item.profile, item.other_profile) for item in relations(club, host)] == [(host, guest)]


def test_a_row_that_says_otherwise_changes_the_relationship_and_one_that_says_nothing_ends_it(club: Desk) -> None:
    one = club.upsert("club", "1", {**person(1), "spouse_card": "2"}, "2026-01-01T00:00:00Z")
    two, three = club.upsert("club", "2", person(2)), club.upsert("club", "3", person(3))
    club.upsert("club", "1", {**person(1), "spouse_card": "3"}, "2026-01-02T00:00:00Z")
    assert (len(relations(club, one)), relations(club, two), len(relations(club, three))) == (1, [], 1)

    club.upsert("club", "1", {**person(1), "spouse_card": "2"}, "2025-01-01T00:00:00Z")
    assert len(relations(club, three)) == 1, "an older row changes nothing"
    club.upsert("club", "1", person(1), "2026-01-03T00:00:00Z")
    assert relations(club, one) == []


def test_what_a_steward_removed_a_source_brings_back_only_when_it_says_something_else(club: Desk) -> None:
    one, two = club.upsert("club", "1", {**person(1), "spouse_card": "2"}), club.upsert("club", "2", person(2))
    club.call("DeleteRelationship", pb.DeleteRelationshipRequest(name=relations(club, two)[0].name))
    club.upsert("club", "1", {**person(1), "spouse_card": "2"})
    assert relations(club, one) == []
    club.upsert("club", "3", person(3))
    club.upsert("club", "1", {**person(1), "spouse_card": "3"}, "2099-01-01T00:00:00Z")
    assert len(relations(club, one)) == 1


def test_a_source_may_not_name_a_field_type_or_source_that_is_not_there(desk: Desk) -> None:
    wrong = ({"field": "pet"}, {"type": "relationTypes/pet"}, {"type": "relationTypes/employer"},
             {"source": "sources/none"}, {"code_field": "pet"})  # fmt: skip
    for column in wrong:
        made = source_request("club")
        made.source.relations.add(**{"field": "email", "type": "relationTypes/spouse", **column})
        assert desk.refused("CreateSource", made) == "MAPPING_INVALID"


# suggested


def flat(number: int, room: str = "1单元301室", surname: str = "欧阳") -> dict[str, str]:
    given_ = ("娜娜", "建国", "小明", "志强", "美玲", "文博", "晓燕", "雨桐", "浩然", "子涵")[number % 10]
    return {**person(number), "name": surname + given_, "address": f"浙江省杭州市西湖区文三路20号5幢{room}"}


def test_one_surname_behind_one_door_is_suggested_and_never_stated(desk: Desk, consents: StatedConsents) -> None:
    one, two = desk.upsert("till", "1", flat(1)), desk.upsert("till", "2", flat(2))
    desk.upsert("till", "3", flat(3, "1单元302室"))
    desk.upsert("till", "4", flat(4, surname="上官"))
    done = suggest(desk)

    assert (done.profiles_read, done.households_found, done.suggested) == (4, 1, 1)
    (found,) = relations(desk, one)
    assert (found.type, found.state, found.inferred) == (
        "relationTypes/household", pb.Relationship.STATE_SUGGESTED, True
    )  # fmt: skip
    assert (found.evidence.kind, found.confidence) == (pb.RelationEvidence.KIND_RULE, 0.6)
    assert named(network(desk, one)) == [one], "a guess is walked only when asked for"
    assert named(network(desk, one, include_inferred=True)) == [one, two]
    assert network(desk, one, include_inferred=True).edges[0].inferred
    assert suggest(desk).suggested == 0

    confirmed = desk.call("ConfirmRelationship", pb.ConfirmRelationshipRequest(name=found.name))
    assert (confirmed.state, confirmed.inferred, confirmed.evidence.stated_by) == (
        pb.Relationship.STATE_STATED, True, "user:test"
    )  # fmt: skip
    assert named(network(desk, two)) == [two, one]


def test_a_dismissed_suggestion_is_never_made_again(desk: Desk) -> None:
    one, _ = desk.upsert("till", "1", flat(1)), desk.upsert("till", "2", flat(2))
    suggest(desk)
    desk.call("DeleteRelationship", pb.DeleteRelationshipRequest(name=relations(desk, one)[0].name))
    suggest(desk)
    assert relations(desk, one) == []


def test_an_address_of_yesterday_and_a_crowd_suggest_nothing(desk: Desk) -> None:
    one, _ = desk.upsert("till", "1", flat(1), "2026-01-01T00:00:00Z"), desk.upsert("till", "2", flat(2))
    store_, vault = desk.service.store, desk.service.vault
    everybody, _ = load(store_, vault, store_.page_profiles("", 9, ()))
    listing = Suggester(store_, vault)
    store_.household_keys.add_missing([key for item in everybody for key in listing._keys_of(item)])
    desk.upsert("till", "1", flat(1, "1单元999室"), "2026-02-01T00:00:00Z")
    assert suggest(desk).suggested == 0
    assert relations(desk, one) == []
    for number in range(9):
        desk.upsert("shop", f"d{number}", {**flat(number, "2单元101室"), "phone": f"1370000{number:04d}"})
    done = suggest(desk)
    assert (done.suggested, done.crowded) == (0, 1)


def test_those_known_to_be_a_family_are_not_suggested(desk: Desk) -> None:
    one, two = desk.upsert("till", "1", flat(1)), desk.upsert("till", "2", flat(2))
    relate(desk, "spouse", one, two)
    assert suggest(desk).suggested == 0


@pytest.mark.parametrize(
    ("address", "name", "is_known"),
    [("浙江省杭州市西湖区文三路20号5幢301室", "欧阳娜娜", True), ("浙江省杭州市西湖区文三路20号", "欧阳娜娜", False),
     ("", "欧阳娜娜", False), ("浙江省杭州市西湖区文三路20号5幢301室", "", False)],
)  # fmt: skip
def test_a_household_needs_a_room_and_a_surname(address: str, name: str, is_known: bool) -> None:
    assert bool(household_key(record("1", name=name, address=address))) == is_known


# stores


def test_relationships_codes_and_households_are_kept_in_every_store(store: Store) -> None:
    for name, one, other in (("r1", "a", "b"), ("r2", "b", "c"), ("r3", "b", "d")):
        store.relations.insert(StoredRelation(name, one, other, STATED, ["k1", "k2"], b"sealed", "d"))
    assert [item.id for item in store.relations.page({"one": "b"}, "", 9)] == ["r2", "r3"]
    assert [item.id for item in store.relations.page({"other": "b"}, "", 9)] == ["r1"]
    assert sorted(item.id for item in store.relations.among("id", ["r1", "r3", "none"])) == ["r1", "r3"]
    assert (store.relations.get("r1").keys, store.relations.get("r1").sealed) == (["k1", "k2"], b"sealed")
    assert store.relation_codes.add_missing([RelationCode("c", "till/1"), RelationCode("c", "till/2")]) == 1
    assert [item.id for item in store.relation_codes.among("record", ["till/1"])] == ["c"]
    store.household_keys.add_missing([HouseholdKey(f"{at}/till/1", at, "till/1") for at in ("y", "x")])
    assert [item.place for item in store.household_keys.page({}, "", 9)] == ["x", "y"]


def test_a_column_is_followed_the_same_way_in_every_store(store: Store, tmp_path: Path) -> None:
    service = Service(tmp_path / "keys", store)
    admit_people(service, 3)
    columns = columns_of([Source("till", "sales", relations=[["note", "spouse", "", "", ""]])])
    said = record("0", source_id="till", note="1")
    follower = ColumnFollower(store, service.vault)
    follower.follow([said], columns)
    follower.follow([said], columns)
    (kept,) = store.relations.page({}, "", 9)
    assert (kept.version, len(kept.keys)) == (1, 2)
    profile = store.by_record_keys(["till/1"])[0]
    assert len(Relations(store, service.vault).of([profile])[0]) == 1
    follower.follow([record("0", source_id="till")], columns)
    assert store.relations.page({}, "", 9) == []


def test_a_relationship_that_holds_from_and_to_a_day_holds_on_both() -> None:
    relation = Relation("other", "a", "b", valid_from="2020-01-02", valid_to="2020-01-04")
    assert [relation.holds_on(date(2020, 1, day)) for day in (1, 2, 4, 5)] == [False, True, True, False]
