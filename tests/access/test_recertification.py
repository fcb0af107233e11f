"""Recertification: owners confirm each quarter who has which role, unanswered is revoked; by a clock moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from kehu.access.v1 import access_pb2, requests_pb2
from kehu.access.v1 import recertification_pb2 as pb

from services.access.changing import change
from services.access.domain import recertification as domain
from services.access.domain.errors import LastAdministrator
from services.access.domain.principals import Principal
from services.access.domain.recertification import Grant, Recertification, quarter_of
from services.access.keeper import Keeper
from services.access.recertifying import Recertifier
from services.access.store.recertifications import (
    RECORDS,
    MemoryRecertifications,
    MongoRecertifications,
    RecertificationRecord,
    Recertifications,
)
from services.chassis import records
from services.chassis.errors import Conflict, Unavailable
from tests.access.stores import BOTH, emptied
from tests.access.test_api import refusal
from tests.access.world import START, World, running_world

OLGA, OTTO, SAM, ROOT = "user:olga@service", "user:otto@service", "user:sam@sales", "user:root@administration"
SERVICE = "2026-q4-service"
DAY = timedelta(days=1)
LONG_AGO = datetime(2026, 1, 5, tzinfo=UTC)


def settle_people(world: World, *people: tuple[str, str, tuple[str, ...]], since: datetime = LONG_AGO) -> None:
    """Put people and apps there who were made some time ago."""
    store = world.context.principals
    for subject, department, roles in people:
        kind, login = subject.split(":")
        store.insert(Principal(kind, login, department, roles, "hash of x"))  # type: ignore[arg-type]
    for id, row in list(store._rows.items()):  # type: ignore[attr-defined]
        if row.create_time and row.create_time > since:
            store._rows[id] = replace(row, create_time=since)  # type: ignore[attr-defined]
    world.context.directory.refresh(at_once=True)


STAFF = (
    ("user:olga", "service", ("role:owner", "role:agent")),
    ("user:otto", "service", ("role:owner",)),
    ("user:ann", "service", ("role:agent",)),
    ("app:desk", "service", ("role:agent",)),
    ("user:sam", "sales", ("role:seller",)),
)


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        settle_people(running, *STAFF)
        yield running


def look(world: World, days: float = 30) -> Recertifier:
    recertifier = Recertifier(world.context, days)
    recertifier.look(world.clock.time)
    return recertifier


def later(world: World, days: float) -> None:
    world.clock.forward(days * 86400)


def grants(world: World, review: str = SERVICE, caller: str = OLGA, state: str = "") -> dict[tuple[str, str], Any]:
    request = pb.ListRecertificationGrantsRequest(recertification_id=review, state=state)
    found = world.stub(caller).ListRecertificationGrants(request, timeout=5).grants
    return {(grant.subject, grant.role): grant for grant in found}


def states(world: World, review: str = SERVICE) -> dict[tuple[str, str], str]:
    return {key: grant.state for key, grant in grants(world, review, ROOT).items()}


def answer(
    world: World, caller: str, *answers: tuple[str, str, str], review: str = SERVICE, comment: str = "still at work"
) -> list[Any]:
    known = grants(world, review, ROOT)
    wanted = [
        pb.RecertificationAnswer(grant_id=known[subject, role].grant_id, decision=decision, comment=comment)
        for subject, role, decision in answers
    ]
    request = pb.AnswerRecertificationRequest(recertification_id=review, answers=wanted)
    return list(world.stub(caller).AnswerRecertification(request, timeout=10).grants)


def refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return refusal(caught.value)


def roles(world: World, id: str) -> tuple[str, ...]:
    found = world.context.principals.get(id)
    assert found is not None
    return found.roles


def alerts(world: World) -> list[tuple[str, str]]:
    return [(a.subject, a.detail) for a in world.context.alerts.page("", None, 100) if a.rule == "recertification"]


def link(world: World, *links: tuple[str, ...]) -> None:
    """Put a policy in force that links roles."""
    current = world.context.directory.policy
    content = replace(current.content, links=links)
    number = current.number + 1
    world.context.policies.insert(replace(current, id="in-force", number=number, content=content, version=0))
    world.context.directory.refresh(at_once=True)


def test_quarters_begin_at_midnight_in_shanghai() -> None:
    last = datetime(2026, 12, 31, 15, 59, tzinfo=UTC)

    assert quarter_of(last)[0] == "2026-q4"
    assert quarter_of(last + timedelta(minutes=1)) == ("2027-q1", datetime(2026, 12, 31, 16, tzinfo=UTC))
    assert [quarter_of(datetime(2026, month, 15, tzinfo=UTC))[0][-1] for month in range(1, 13)] == list("111222333444")


def test_each_department_gets_its_standing_roles_to_confirm(world: World) -> None:
    look(world)

    assert set(states(world)) == {
        ("user:olga", "role:owner"), ("user:olga", "role:agent"), ("user:otto", "role:owner"),
        ("user:ann", "role:agent"), ("app:desk", "role:agent"),
    }  # fmt: skip
    assert set(states(world, "2026-q4-sales")) == {("user:sam", "role:seller")}
    found = world.stub(OLGA).GetRecertification(pb.GetRecertificationRequest(recertification_id=SERVICE), timeout=5)
    assert (found.state, dict(found.counts), found.escalated) == ("open", {"open": 5}, False)
    assert found.due_time.ToDatetime(UTC) == START + 30 * DAY


def test_what_nobody_confirms_is_revoked_at_the_due_date_and_not_before(world: World) -> None:
    recertifier = look(world)
    answer(world, OLGA, ("user:ann", "role:agent", "confirm"), ("user:otto", "role:owner", "confirm"))
    answer(world, OTTO, ("user:olga", "role:owner", "confirm"))
    later(world, 29.9)
    recertifier.look(world.clock.time)
    before = states(world)
    later(world, 0.2)
    recertifier.look(world.clock.time)

    assert "revoked" not in before.values()
    assert states(world) == {
        ("user:ann", "role:agent"): "confirmed", ("user:otto", "role:owner"): "confirmed",
        ("user:olga", "role:owner"): "confirmed", ("user:olga", "role:agent"): "revoked",
        ("app:desk", "role:agent"): "revoked",
    }  # fmt: skip
    assert (roles(world, "user-olga"), roles(world, "app-desk"), roles(world, "user-ann")) == (
        ("role:owner",), (), ("role:agent",),
    )  # fmt: skip
    kept = grants(world, state="confirmed")["user:ann", "role:agent"]
    assert (kept.answerer, kept.comment) == ("user:olga", "still at work")
    assert grants(world, state="revoked")["app:desk", "role:agent"].comment == "not answered by the due date"


def test_revoking_ends_the_tokens_and_is_in_the_trail(world: World) -> None:
    recertifier = look(world)
    later(world, 31)
    recertifier.look(world.clock.time)

    entries = [entry for block in world.context.chain.blocks.ascending(1) for entry in block.entries]
    revoked = [entry for entry in entries if (entry.resource, entry.action) == ("recertifications", "revoke")]
    assert {entry.subject for entry in revoked} == {"svc:access"}
    assert any("role:agent of app:desk" in entry.reason for entry in revoked)
    assert "app:desk" in world.context.directory.revoked().subjects


def test_an_early_no_takes_the_role_at_once(world: World) -> None:
    look(world)

    told = answer(world, OLGA, ("user:ann", "role:agent", "revoke"), comment="left the team")

    assert (told[0].state, roles(world, "user-ann")) == ("revoked", ())
    again = answer(world, OTTO, ("user:ann", "role:agent", "revoke"))
    assert again[0].answerer == "user:olga"
    refusal_of_a_yes = refused(lambda: answer(world, OTTO, ("user:ann", "role:agent", "confirm")))
    assert refusal_of_a_yes == ("FAILED_PRECONDITION", "RECERTIFICATION_STATE")


def test_nobody_answers_for_their_own_nor_for_another_department(world: World) -> None:
    look(world)
    both = [("user:ann", "role:agent", "confirm"), ("user:olga", "role:owner", "confirm")]

    own = refused(lambda: answer(world, OLGA, *both))
    foreign = refused(lambda: answer(world, ROOT, ("user:ann", "role:agent", "confirm")))
    unseen = refused(lambda: grants(world, SERVICE, SAM))

    assert own == ("FAILED_PRECONDITION", "SELF_APPROVAL")
    assert foreign == ("PERMISSION_DENIED", "NOT_DATA_OWNER")
    assert unseen == ("NOT_FOUND", "RECERTIFICATION_NOT_FOUND")
    assert set(states(world).values()) == {"open"}  # nothing half-written
    assert refused(lambda: grants(world, SERVICE, "app:desk@service"))[1] == "PERSON_NEEDED"


def test_bad_answers_write_nothing(world: World) -> None:
    look(world)
    known = grants(world)["user:ann", "role:agent"].grant_id
    foreign = grants(world, "2026-q4-sales", ROOT)["user:sam", "role:seller"].grant_id
    cases = {
        "twice": [(known, "confirm", "x"), (known, "confirm", "x")],
        "of another": [(known, "confirm", "x"), (foreign, "confirm", "x")],
        "unknown": [(known, "confirm", "x"), ("f" * 32, "confirm", "x")],
        "no reason": [(known, "confirm", "")],
        "no decision": [(known, "perhaps", "x")],
        "none": [],
    }
    for name, rows in cases.items():
        answers = [pb.RecertificationAnswer(grant_id=g, decision=d, comment=c) for g, d, c in rows]
        request = pb.AnswerRecertificationRequest(recertification_id=SERVICE, answers=answers)
        code, _ = refused(lambda request=request: world.stub(OLGA).AnswerRecertification(request, timeout=5))
        assert code in ("INVALID_ARGUMENT", "NOT_FOUND"), name
    assert set(states(world).values()) == {"open"}


def test_a_department_without_an_owner_is_answered_by_administrators(world: World) -> None:
    look(world)
    review = "2026-q4-sales"
    found = world.stub(ROOT).GetRecertification(pb.GetRecertificationRequest(recertification_id=review), timeout=5)

    told = answer(world, ROOT, ("user:sam", "role:seller", "confirm"), review=review)

    assert found.escalated
    assert told[0].state == "confirmed"


def test_the_only_owners_own_role_is_answered_by_administrators() -> None:
    with running_world() as world:
        settle_people(world, ("user:olga", "service", ("role:owner",)), ("user:ann", "service", ("role:agent",)))
        look(world)

        told = answer(world, ROOT, ("user:olga", "role:owner", "confirm"))

        assert told[0].state == "confirmed"
        assert refused(lambda: answer(world, ROOT, ("user:ann", "role:agent", "confirm")))[1] == "NOT_DATA_OWNER"


def test_where_nobody_could_answer_nothing_is_opened_nor_revoked_and_auditors_hear_of_it() -> None:
    with running_world() as world:
        settle_people(world)
        recertifier = look(world)
        later(world, 40)
        recertifier.look(world.clock.time)

        assert roles(world, "user-root") == ("role:administrator",)
        assert world.context.recertifications.get("2026-q4-administration") is None
        assert alerts(world) == [("svc:access", "nobody could answer for 1 roles")]
        # the two apps are answered for by the administrator, who did not
        assert roles(world, "app-marketing-app") == ()


def test_who_could_answer_and_left_saves_no_role_and_costs_none_nobody_could_answer(world: World) -> None:
    recertifier = look(world)
    for id in ("user-otto", "user-root"):
        found = world.context.principals.get(id)
        world.context.principals.save(replace(found, enabled=False))  # type: ignore[type-var]
    world.context.directory.refresh(at_once=True)
    later(world, 31)
    recertifier.look(world.clock.time)

    assert roles(world, "user-ann") == ()
    assert roles(world, "user-olga") == ("role:owner", "role:agent")
    assert ("user:olga", "role:owner: nobody but themselves could answer") in alerts(world)


def test_the_last_administrator_is_never_removed() -> None:
    with running_world() as world:
        # the second may answer, but not administer
        settle_people(world, ("user:vera", "administration", ("role:owner",)))
        recertifier = look(world)
        review = "2026-q4-administration"
        request = pb.PreviewRecertificationRequest(recertification_id=review)
        preview = world.stub(ROOT).PreviewRecertification(request, timeout=5).outcomes
        later(world, 31)
        recertifier.look(world.clock.time)

        assert roles(world, "user-root") == ("role:administrator",)
        assert ("user:root", "role:administrator: the last administrator is never removed") in alerts(world)
        assert {(o.grant.subject, o.outcome) for o in preview} == {("user:root", "kept"), ("user:vera", "revoked")}


def test_the_preview_says_what_comes_and_changes_nothing(world: World) -> None:
    recertifier = look(world)
    answer(world, OLGA, ("user:ann", "role:agent", "confirm"))
    found = world.context.principals.get("app-desk")
    world.context.principals.save(replace(found, roles=()))  # type: ignore[type-var]
    later(world, 29)

    request = pb.PreviewRecertificationRequest(recertification_id=SERVICE, page_size=2)
    outcomes: list[Any] = []
    while True:
        reply = world.stub(OLGA).PreviewRecertification(request, timeout=5)
        outcomes += reply.outcomes
        if not reply.next_page_token:
            break
        request.page_token = reply.next_page_token
    told = {(o.grant.subject, o.grant.role): o.outcome for o in outcomes}
    unchanged = (roles(world, "user-olga"), set(states(world).values()))
    later(world, 2)
    recertifier.look(world.clock.time)

    assert told == {
        ("user:olga", "role:owner"): "revoked", ("user:olga", "role:agent"): "revoked",
        ("user:otto", "role:owner"): "revoked", ("app:desk", "role:agent"): "gone",
    }  # fmt: skip
    assert unchanged == (("role:owner", "role:agent"), {"open", "confirmed"})
    after = states(world)
    assert {key: after[key] for key in told} == told  # the preview was right


def test_who_came_in_the_quarter_is_not_in_it_and_is_in_the_next(world: World) -> None:
    settle_people(world, ("user:new", "service", ("role:agent",)), since=datetime(2026, 10, 5, tzinfo=UTC))
    store = world.context.principals
    store._rows["user-new"] = replace(store._rows["user-new"], create_time=START)  # type: ignore[attr-defined]
    for id, row in list(store._rows.items()):  # type: ignore[attr-defined]
        if id != "user-new":
            store._rows[id] = replace(row, create_time=LONG_AGO)  # type: ignore[attr-defined]
    recertifier = look(world)
    this = set(states(world))
    later(world, 60)
    recertifier.look(world.clock.time)
    recertifier.look(world.clock.time + timedelta(hours=2))

    assert ("user:new", "role:agent") not in this
    assert ("user:new", "role:agent") in grants(world, "2027-q1-service", ROOT)


def test_roles_that_the_policy_links_are_kept_and_told(world: World) -> None:
    link(
        world,
        ("user:ann", "role:owner", "service"),
        ("user:sam", "role:agent", "service"),  # of another department: it decides nothing
        ("user:ann", "role:steward", "service", "0", str(int(START.timestamp()) - 1)),  # over
    )
    recertifier = look(world)
    listed = grants(world)
    later(world, 31)
    recertifier.look(world.clock.time)

    assert listed["user:ann", "role:owner"].of_policy
    assert set(listed) & {("user:sam", "role:agent"), ("user:ann", "role:steward")} == set()
    assert states(world)["user:ann", "role:owner"] == "kept"
    assert ("user:ann", "role:owner: it stands in the policy: take it out by a policy change") in alerts(world)


def test_a_revoke_of_what_the_policy_links_is_kept_and_said_again_changes_nothing(world: World) -> None:
    link(world, ("user:ann", "role:owner", "service"))
    look(world)
    answers = (("user:ann", "role:owner", "revoke"), ("user:otto", "role:owner", "confirm"))
    first = answer(world, OLGA, *answers[:1])

    assert answer(world, OLGA, *answers)[0] == first[0], "a request that was cut is sent again whole"
    assert states(world)["user:ann", "role:owner"] == "kept"
    assert states(world)["user:otto", "role:owner"] == "confirmed"


def test_lent_roles_are_not_in_it(world: World) -> None:
    wanted = requests_pb2.AccessRequest(role="role:owner", purpose="service", reason="leave")
    wanted.end_time.FromDatetime(START + 60 * DAY)
    asked = world.stub("user:ann@service").CreateAccessRequest(
        requests_pb2.CreateAccessRequestRequest(access_request=wanted), timeout=5
    )
    id = asked.name.rpartition("/")[2]
    world.stub(OLGA).ApproveAccessRequest(requests_pb2.ApproveAccessRequestRequest(access_request_id=id), timeout=5)

    look(world)

    assert ("user:ann", "role:owner") not in states(world)


def test_reminders_come_fourteen_and_three_days_before_the_end(world: World) -> None:
    recertifier, told = look(world), []
    for hour in range(31 * 24):
        before = world.context.recertifications.get(SERVICE).reminders  # type: ignore[union-attr]
        recertifier.look(world.clock.time)
        if world.context.recertifications.get(SERVICE).reminders > before:  # type: ignore[union-attr]
            told.append(hour / 24)
        world.clock.forward(3600)

    assert told == [16, 27]


def test_one_review_a_quarter_and_none_beside_an_open_one(world: World) -> None:
    recertifier = look(world, days=60)  # from 21 November to 20 January
    answer(world, OLGA, ("user:ann", "role:agent", "confirm"))
    later(world, 45)
    recertifier.look(world.clock.time)
    beside = world.context.recertifications.get("2027-q1-service")
    later(world, 16)
    for _ in range(3):
        recertifier.look(world.clock.time)
        world.clock.forward(7200)

    assert beside is None
    names = [review.id for review in world.context.recertifications.page("service", None, 10)]
    assert names == ["2027-q1-service", SERVICE]  # the history stays


def test_zero_days_means_never(world: World) -> None:
    look(world, days=0)

    assert world.context.recertifications.unfinished() == []


def test_the_keepers_thread_does_it(world: World) -> None:
    keeper = Keeper(world.context.chain, 3, None, world.clock, recertifier=Recertifier(world.context, 30))
    keeper.look()

    assert world.context.recertifications.get(SERVICE) is not None


class Killed(Exception):
    """The process ends here."""


STEPS = range(1, 60)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_write_the_next_process_ends_it_alike(step: int) -> None:
    with running_world() as world:
        settle_people(world, *STAFF)
        ends = run_through(world, kill_at=step)

        assert ends == EXPECTED


EXPECTED = {
    "user-olga": ("role:owner",), "user-otto": (), "user-ann": (), "app-desk": (),
}  # fmt: skip


def run_through(world: World, kill_at: int) -> dict[str, tuple[str, ...]]:
    """Open, answer one, let it end; every store write counts, and the process dies at one of them."""
    count, c = 0, world.context
    targets = [(c.recertifications, ("add", "save", "add_grants", "save_grant")), (c.principals, ("save",)),
               (c.revocations, ("add",)), (c.chain, ("append",)), (c.alerts, ("add",))]  # fmt: skip

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **how: Any) -> Any:
            nonlocal count
            count += 1
            if count == kill_at:
                raise Killed
            return write(*args, **how)

        return run

    for target, names in targets:
        for name in names:
            setattr(target, name, counted(getattr(target, name)))

    def process() -> None:
        try:
            Recertifier(c, 30).look(world.clock.time)
        except Killed:
            Recertifier(c, 30).look(world.clock.time)

    process()
    count += 1000
    answer(world, OTTO, ("user:olga", "role:owner", "confirm"))
    count -= 1000
    later(world, 31)
    process()
    process()
    review = c.recertifications.get(SERVICE)
    assert review is not None and review.state == "closed"
    assert set(states(world).values()) == {"confirmed", "revoked"}
    entries = [entry for block in c.chain.blocks.ascending(1) for entry in block.entries]
    targets_written = [e.target for e in entries if (e.resource, e.action) == ("recertifications", "revoke")]
    assert len(targets_written) == len(set(targets_written))
    return {id: roles(world, id) for id in EXPECTED}


def test_an_answer_that_was_cut_off_is_carried_out_later(world: World) -> None:
    recertifier = look(world)
    save = world.context.principals.save

    def away(principal: Principal) -> Principal:
        raise Unavailable("the database does not answer")

    world.context.principals.save = away  # type: ignore[method-assign]
    cut = refused(lambda: answer(world, OLGA, ("user:ann", "role:agent", "revoke")))
    world.context.principals.save = save  # type: ignore[method-assign]
    between = states(world)["user:ann", "role:agent"]
    recertifier.look(world.clock.time)

    assert (cut[0], between) == ("UNAVAILABLE", "revoking")
    assert (states(world)["user:ann", "role:agent"], roles(world, "user-ann")) == ("revoked", ())


def test_answers_after_the_end_are_refused(world: World) -> None:
    look(world)
    later(world, 30)

    late = refused(lambda: answer(world, OLGA, ("user:ann", "role:agent", "confirm")))

    assert late == ("FAILED_PRECONDITION", "RECERTIFICATION_STATE")


@pytest.fixture(params=BOTH)
def store(request: pytest.FixtureRequest) -> Iterator[Recertifications]:
    if request.param == "memory":
        yield MemoryRecertifications()
        return
    with emptied(request, "recertifications", "recertification_grants"):
        records.ensure_indexes(RECORDS)
        yield MongoRecertifications()


def review(quarter: str = "2026-q4", department: str = "service", **values: Any) -> Recertification:
    return Recertification(f"{quarter}-{department}", department, START, START + 30 * DAY, **values)


def test_a_review_is_kept_once_and_changed_by_one(store: Recertifications) -> None:
    first = store.add(review())
    again = store.add(review(escalated=True))
    store.save(replace(first, state=domain.OPEN), 3)

    assert (again.escalated, again.version) == (False, 1)
    with pytest.raises(Conflict):
        store.save(replace(first, state=domain.CLOSED))
    kept = store.get(first.id)
    assert kept is not None
    assert (kept.state, kept.start_time, kept.due_time) == ("open", START, START + 30 * DAY)
    assert [row.id for row in store.unfinished()] == [first.id]
    store.save(replace(kept, state=domain.CLOSED, reminders=2), reminder=True)
    assert store.unfinished() == []
    assert store.get("2026-q4-nowhere") is None
    if isinstance(store, MongoRecertifications):
        facts = [fact["data"] for fact in RecertificationRecord._get_collection().distinct("outbox")]
        assert sorted((fact["state"], fact.get("open_grants", 0)) for fact in facts) == [("closed", 0), ("open", 3)]


def test_grants_are_kept_once_and_paged_by_state(store: Recertifications) -> None:
    rows = [Grant(f"{n:032x}", "2026-q4-service", f"user:{n}", "service", "role:agent") for n in range(7)]
    store.add_grants(rows)
    store.add_grants([replace(rows[0], role="role:other")])
    known = store.grant(rows[0].id)
    assert known is not None
    done = store.save_grant(replace(known, state=domain.CONFIRMED, answerer="user:o", comment="c", answer_time=START))

    assert (known.role, known.of_policy) == ("role:agent", False)
    assert replace(done, update_time=None) == replace(store.grant(rows[0].id), update_time=None)  # type: ignore[type-var]
    with pytest.raises(Conflict):
        store.save_grant(known)
    assert [int(row.id, 16) for row in store.grants("2026-q4-service", "open", rows[2].id, 3)] == [3, 4, 5]
    assert [int(row.id, 16) for row in store.grants("2026-q4-service", "", "", 2)] == [0, 1]
    assert store.grants("2026-q4-sales", "", "", 9) == []
    assert store.grant("f" * 32) is None


def test_reviews_are_paged_newest_first_without_a_gap(store: Recertifications) -> None:
    for quarter, department in ((q, d) for q in ("2026-q3", "2026-q4") for d in ("sales", "service", "analytics")):
        at = START + (timedelta(days=90) if quarter == "2026-q4" else timedelta())
        store.add(replace(review(quarter, department), start_time=at))

    found, before = [], None
    while page := store.page("", before, 2):
        found += page
        before = (page[-1].start_time, page[-1].id)

    names = ("service", "sales", "analytics")
    assert [row.id for row in found] == [f"{quarter}-{name}" for quarter in ("2026-q4", "2026-q3") for name in names]
    assert [row.id for row in store.page("sales", None, 9)] == ["2026-q4-sales", "2026-q3-sales"]


def test_two_administrators_taken_out_at_once_do_not_both_go() -> None:
    with running_world() as world:
        settle_people(world, ("user:second", "administration", ("role:administrator",)))
        c = world.context
        save, others = c.principals.save, []

        def meanwhile(changed: Principal) -> Principal:
            if not others and changed.id == "user-root" and not changed.enabled:
                second = c.principals.get("user-second")
                assert second is not None
                others.append(save(replace(second, enabled=False)))  # another process, which saw both a moment ago
            return save(changed)

        c.principals.save = meanwhile  # type: ignore[method-assign]
        root = c.principals.get("user-root")
        assert root is not None
        with pytest.raises(LastAdministrator):
            change(c, replace(root, enabled=False))

        assert others
        assert c.principals.get("user-root").enabled  # type: ignore[union-attr]


def test_the_last_who_administers_at_times_only_is_kept_too() -> None:
    with running_world() as world:
        settle_people(world)
        current, number = world.context.directory.policy, world.context.directory.policy.number + 1
        end = str(int(START.timestamp()) + 86400)
        link = ("role:night", "role:administrator", "administration", "0", end)
        rules = (*current.content.rules, ("role:night", "administration", "operations", "read", "*", "allow"))
        content = replace(current.content, links=(link,), rules=rules)
        world.context.policies.insert(replace(current, id="in-force", number=number, content=content, version=0))
        root = world.context.principals.get("user-root")
        assert root is not None
        world.context.principals.save(replace(root, roles=("role:night",)))
        world.context.directory.refresh(at_once=True)
        request = access_pb2.DisablePrincipalRequest(principal_id="user-root")

        kept = refused(lambda: world.stub().DisablePrincipal(request, timeout=5))
        later(world, 2)
        world.stub().DisablePrincipal(request, timeout=5)  # the link is over: there is nobody to lose

        assert kept == ("FAILED_PRECONDITION", "LAST_ADMINISTRATOR")
