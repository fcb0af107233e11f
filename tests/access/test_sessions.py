"""Sessions of people: begun by signing in, prolonged by step-up, listed and ended by the person or an administrator."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import people_pb2

from services.access.bootstrap import seed
from services.access.domain.sessions import Session
from services.access.store.sessions import MemorySessions, MongoSessions, Sessions
from services.chassis.errors import Unauthenticated
from tests.access.stores import BOTH, emptied
from tests.access.test_api import new_person, other_process, person_token, poll, refusal
from tests.access.test_step_up import claims, step_up
from tests.access.world import SECOND, World, running_world

ROOT = "user-root"


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def sessions_of(world: World, caller: str = "user:root@administration") -> list[people_pb2.Session]:
    request = people_pb2.ListSessionsRequest(principal_id=ROOT)
    return list(world.stub(caller).ListSessions(request, timeout=5).sessions)


def id_of(token: str) -> str:
    return str(claims(token)["jti"]).partition(".")[0]


def sign_in_twice(world: World) -> tuple[str, str]:
    first = person_token(world)
    world.clock.forward(60)
    return first, person_token(world)


def test_each_sign_in_is_a_session_until_its_last_token_ends(world: World) -> None:
    first, second = sign_in_twice(world)

    listed = [session.name for session in sessions_of(world)]
    world.clock.forward(850)

    assert listed == [f"principals/{ROOT}/sessions/{id_of(token)}" for token in (second, first)]
    assert [session.name for session in sessions_of(world)] == listed[:1]


def test_step_up_prolongs_the_session_it_was_made_in(world: World) -> None:
    token = person_token(world)
    began = world.clock.time
    world.clock.forward(600)

    fresh = step_up(world, token)
    (session,) = sessions_of(world)

    assert id_of(fresh) == id_of(token)
    assert session.create_time.ToDatetime(UTC) == began
    assert session.expire_time.ToDatetime(UTC) == began + timedelta(seconds=1500)


def test_a_session_ended_by_an_administrator_ends_everywhere_and_the_others_go_on(world: World) -> None:
    holder, verifier = other_process(world)
    lost, kept = sign_in_twice(world)
    fresh = _stepped(world, lost)
    for token in (lost, kept, fresh):
        assert verifier.verify(token, None)

    request = people_pb2.EndSessionRequest(principal_id=ROOT, session_id=id_of(lost))
    world.stub().EndSession(request, timeout=5)
    poll(world, holder)

    for token in (lost, fresh):
        with pytest.raises(Unauthenticated):
            verifier.verify(token, None)
    assert verifier.verify(kept, None)
    assert [session.name.rpartition("/")[2] for session in sessions_of(world)] == [id_of(kept)]


def _stepped(world: World, token: str) -> str:
    world.clock.forward(60)
    return step_up(world, token)


def test_an_ended_session_cannot_be_prolonged(world: World) -> None:
    token = person_token(world)
    world.context.sessions.remove(ROOT, id_of(token))  # without the revocation: the session alone decides
    world.clock.forward(60)

    with pytest.raises(grpc.RpcError) as caught:
        step_up(world, token)

    assert refusal(caught.value) == ("UNAUTHENTICATED", "SUBJECT_TOKEN_REFUSED")


def test_after_twelve_hours_the_password_is_asked_for_again(world: World) -> None:
    token = person_token(world)
    for _ in range(51):  # 51 × 14 minutes = 11 h 54
        world.clock.forward(840)
        token = step_up(world, token)
    world.clock.forward(840)

    with pytest.raises(grpc.RpcError) as caught:
        step_up(world, token)

    assert refusal(caught.value) == ("UNAUTHENTICATED", "SUBJECT_TOKEN_REFUSED")


def test_a_person_lists_and_ends_their_own_sessions_only(world: World) -> None:
    new_person(world, "second")
    token = person_token(world)
    mine, other = world.stub(), world.stub("user:second@administration")

    assert len(mine.ListOwnSessions(people_pb2.ListOwnSessionsRequest(), timeout=5).sessions) == 1
    assert not other.ListOwnSessions(people_pb2.ListOwnSessionsRequest(), timeout=5).sessions
    with pytest.raises(grpc.RpcError) as caught:
        other.EndOwnSession(people_pb2.EndOwnSessionRequest(session_id=id_of(token)), timeout=5)
    assert refusal(caught.value) == ("NOT_FOUND", "SESSION_NOT_FOUND")
    assert other_process(world)[1].verify(token, None), "the try revoked somebody else's session"

    mine.EndOwnSession(people_pb2.EndOwnSessionRequest(session_id=id_of(token)), timeout=5)

    with pytest.raises(Unauthenticated):
        other_process(world)[1].verify(token, None)


def test_an_app_has_no_account(world: World) -> None:
    stub = world.stub("app:marketing-app@marketing")

    with pytest.raises(grpc.RpcError) as caught:
        stub.ListOwnSessions(people_pb2.ListOwnSessionsRequest(), timeout=5)

    assert refusal(caught.value) == ("FAILED_PRECONDITION", "PERSON_NEEDED")


def test_whoever_gets_a_new_secret_has_no_session_left(world: World) -> None:
    seed(world.context, [SECOND])  # of the last administrator it would be refused
    person_token(world)

    world.stub().RotateSecret(pb.RotateSecretRequest(principal_id=ROOT), timeout=5)

    assert sessions_of(world) == []


def test_who_has_to_wait_is_listed_and_let_in_at_once_by_an_administrator(world: World) -> None:
    for _ in range(8):
        with pytest.raises(grpc.RpcError):
            person_token(world, password="guess")
        world.clock.forward(1)
    for _ in range(3):  # those that were tried too early do not count
        world.clock.forward(10)
        with pytest.raises(grpc.RpcError):
            person_token(world, password="guess")
    waiting = world.stub().ListPrincipals(pb.ListPrincipalsRequest(locked=True), timeout=5).principals

    unlocked = world.stub().UnlockPrincipal(people_pb2.UnlockPrincipalRequest(principal_id=ROOT), timeout=5)

    assert [person.login for person in waiting] == ["root"]
    assert waiting[0].lock_end_time.ToDatetime(UTC) > world.clock.time
    assert not unlocked.HasField("lock_end_time")
    assert person_token(world)
    assert not world.stub().ListPrincipals(pb.ListPrincipalsRequest(locked=True), timeout=5).principals


# ---- the stores -------------------------------------------------------------------------------------------------

START = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


@pytest.fixture(params=BOTH)
def store(request: pytest.FixtureRequest) -> Iterator[Sessions]:
    if request.param == "memory":
        yield MemorySessions()
        return
    with emptied(request, "sessions"):
        found = MongoSessions()
        found.ensure_indexes()
        yield found


def a_session(id: str, after: int = 0, owner: str = ROOT) -> Session:
    time = START + timedelta(seconds=after)
    return Session(id, owner, ("pwd", "otp"), time, time, time + timedelta(seconds=900))


def test_sessions_are_of_their_person_the_newest_first_until_they_end(store: Sessions) -> None:
    for session in (a_session("a"), a_session("b", 60), a_session("c", owner="user-x")):
        store.add(session)

    assert store.of(ROOT, START) == [a_session("b", 60), a_session("a")]
    assert store.of(ROOT, START + timedelta(seconds=900)) == [a_session("b", 60)]
    assert store.get("c") == a_session("c", owner="user-x")


def test_a_removed_session_is_not_prolonged(store: Sessions) -> None:
    store.add(a_session("a"))
    there = store.prolong(a_session("a", 60))
    store.remove(ROOT, "a")

    assert there
    assert not store.prolong(a_session("a", 120))
    assert store.get("a") is None


def test_a_session_is_removed_by_its_person_only_or_with_all_of_theirs(store: Sessions) -> None:
    for session in (a_session("a"), a_session("b"), a_session("c", owner="user-x")):
        store.add(session)

    assert not store.remove("user-x", "a")
    assert store.remove(ROOT)
    assert not store.remove(ROOT)
    assert store.of("user-x", START) == [a_session("c", owner="user-x")]


def test_what_is_over_is_forgotten_when_another_begins(store: Sessions) -> None:
    store.add(a_session("a"))
    store.add(a_session("b", 901))

    assert store.get("a") is None
