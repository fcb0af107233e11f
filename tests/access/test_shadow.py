"""A candidate decided alongside: what it would answer otherwise is counted exactly, and never answered."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace

import grpc
import pytest
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import access_pb2_grpc, review_pb2

from services.access.api import AccessServicer
from services.access.store.shadows import MemoryShadows, MongoShadows, ShadowTotals
from services.chassis.access import MODEL, Caller, PolicySnapshot, RowFilter, SnapshotHolder
from services.chassis.access.shadow import KEPT, Shadow, ShadowCounts, ShadowKey, ShadowPoller
from services.chassis.server import Serving
from services.chassis.telemetry import SHADOWED
from tests.access.stores import BOTH, emptied
from tests.access.test_api import new_person, refusal
from tests.access.test_flow import publish
from tests.access.test_review import draft
from tests.access.world import World, running_world
from tests.harness import running

DENY_LIST = ("role:administrator", "administration", "principals", "list", "*", "deny")
KEY = ShadowKey("user:x", "sales", "sales", "profiles", "read", "allowed", "denied")
MODEL_RULE = ("role:seller", "sales", "profiles", "read", "*", "allow")


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running_:
        yield running_


def start(world: World, policy_id: str) -> review_pb2.ShadowReport:
    return world.stub().StartShadow(review_pb2.StartShadowRequest(policy_id=policy_id), timeout=10)


def report(world: World, policy_id: str, **how: object) -> review_pb2.ShadowReport:
    return world.stub().GetShadowReport(review_pb2.GetShadowReportRequest(policy_id=policy_id, **how), timeout=10)


def poller(world: World, holder: SnapshotHolder) -> ShadowPoller:
    return ShadowPoller(holder, world.stub(caller="", peer="search"))


def snapshot(*rules: tuple[str, ...]) -> PolicySnapshot:
    return PolicySnapshot(1, MODEL, [MODEL_RULE, *rules], [("user:x", "role:seller", "sales")])


def test_a_guarded_service_answers_by_the_policy_in_force_while_the_candidate_is_counted(world: World) -> None:
    policy_id = draft(world, add=[DENY_LIST])
    assert start(world, policy_id).running
    holder = SnapshotHolder()
    holder.swap(world.context.directory.snapshot())
    sync = poller(world, holder)
    sync.sync_once()
    adder = access_pb2_grpc.add_AccessServiceServicer_to_server
    with running(Serving("access", [(adder, AccessServicer(world.context))]), holder) as guarded:  # type: ignore[arg-type]
        stub = guarded.stub(
            access_pb2_grpc.AccessServiceStub, caller="user:root@administration", purpose="administration"
        )
        for _ in range(7):
            assert stub.ListPrincipals(pb.ListPrincipalsRequest(), timeout=5).principals, (
                "allowed, as by the live policy"
            )
        for _ in range(4):
            stub.ListRoles(pb.ListRolesRequest(), timeout=5)
    sync.sync_once()

    found = report(world, policy_id)

    assert (found.compared, found.differing, found.failed) == (11, 7, 0)
    assert [(d.subject, d.purpose, d.resource, d.action, d.before, d.after, d.count) for d in found.differences] == [
        ("user:root", "administration", "principals", "list", "allowed", "denied", 7)
    ]


def test_a_candidate_that_would_allow_more_allows_nothing(world: World) -> None:
    policy_id = draft(world, add=[("role:administrator", "administration", "tickets", "*", "*", "allow")])
    start(world, policy_id)
    holder = SnapshotHolder()
    holder.swap(world.context.directory.snapshot())
    poller(world, holder).sync_once()
    caller = Caller("user:root", "user", "administration", "administration")

    live = holder.current.decide(caller, "tickets", "read")
    assert holder.shadow is not None
    holder.shadow.compare(caller, "tickets", "read", (), live)

    assert not live.allowed
    assert holder.shadow.take().differing == 1


def test_other_fields_or_rows_are_a_difference_and_the_same_answer_is_none() -> None:
    shown = ("role:seller", "sales", "fields/personal/name", "show", "sales", "allow")
    live, shadow = snapshot(), Shadow("c", "m", snapshot(shown))
    for purpose in ("sales", "sales", "service"):
        caller = Caller("user:x", "user", "sales", purpose)
        shadow.compare(caller, "profiles", "read", (), live.decide(caller, "profiles", "read"))

    counts = shadow.take()

    assert (counts.compared, counts.differing) == (3, 2)
    assert [key.after for key in counts.differences] == ["allowed, with other shown"]


def test_a_row_filter_that_a_method_cannot_apply_counts_as_denied_as_the_guard_will() -> None:
    def filtered(*filters: RowFilter) -> PolicySnapshot:
        return PolicySnapshot(1, MODEL, [MODEL_RULE], [("user:x", MODEL_RULE[0], MODEL_RULE[1])], filters)

    caller = Caller("user:x", "user", MODEL_RULE[1], MODEL_RULE[4])
    live = filtered().decide(caller, MODEL_RULE[2], MODEL_RULE[3])
    shadow = Shadow("c", "m", filtered(RowFilter(MODEL_RULE[0], MODEL_RULE[1], MODEL_RULE[2], "owner", ("x",))))
    for fields in (frozenset({"owner"}), frozenset[str]()):
        shadow.compare(caller, MODEL_RULE[2], MODEL_RULE[3], (), live, row_fields=fields)

    counts = shadow.take()

    assert live.allowed and (counts.compared, counts.differing, counts.failed) == (2, 2, 0)
    assert {key.after for key in counts.differences} == {"allowed, with other row_filter", "denied"}


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ("allow", "allow", "same"),
        ("allow", "deny", "would_deny"),
        ("deny", "allow", "would_allow"),
        ("allow", None, "failed"),
    ],
)
def test_how_a_candidate_answers_is_counted_by_kind_and_by_nothing_of_the_caller(
    before: str, after: str | None, outcome: str
) -> None:
    def told() -> dict[str, float]:
        samples = next(iter(SHADOWED.collect())).samples
        assert all(set(sample.labels) == {"outcome"} for sample in samples)
        return {sample.labels["outcome"]: sample.value for sample in samples if sample.name.endswith("_total")}

    live, known = snapshot((*MODEL_RULE[:5], before)), told()
    shadow = Shadow("c", "m", snapshot((*MODEL_RULE[:5], after)) if after else None)
    caller = Caller("user:x", "user", MODEL_RULE[1], MODEL_RULE[4])
    shadow.compare(caller, MODEL_RULE[2], MODEL_RULE[3], (), live.decide(caller, MODEL_RULE[2], MODEL_RULE[3]))

    changed = {name for name, value in told().items() if value != known.get(name, 0)}
    assert changed == {outcome}


@pytest.mark.parametrize("broken", [None, SimpleNamespace(decide=None)])
def test_a_candidate_that_cannot_decide_is_counted_and_harms_nothing(broken: object) -> None:
    shadow = Shadow("c", "m", broken)  # type: ignore[arg-type]
    caller = Caller("user:x", "user", "sales", "sales")

    shadow.compare(caller, "profiles", "read", (), snapshot().decide(caller, "profiles", "read"))

    assert shadow.take().failed == 1


def test_what_is_kept_between_two_reports_is_bounded_and_the_sum_still_right() -> None:
    shadow, live = Shadow("c", "m", snapshot((*MODEL_RULE[:5], "deny"))), snapshot()
    for number in range(KEPT + 50):
        caller = Caller("user:x", "user", "sales", f"p{number}")
        shadow.compare(caller, "profiles", "read", (), live.decide(caller, "profiles", "read"))

    counts = shadow.take()

    assert (counts.differing, len(counts.differences)) == (KEPT + 50, KEPT)


def test_what_waits_while_access_is_away_stays_small_enough_to_be_taken() -> None:
    shadow, live = Shadow("c", "m", snapshot((*MODEL_RULE[:5], "deny"))), snapshot()
    sent = []

    def answer(request: pb.SyncShadowRequest, timeout: float) -> pb.SyncShadowResponse:
        sent.append(request)
        raise ConnectionError

    holder = SnapshotHolder()
    holder.shadow = shadow
    for attempt in range(3):
        for number in range(KEPT):
            caller = Caller("user:x", "user", "sales", f"p{attempt}-{number}")
            shadow.compare(caller, "profiles", "read", (), live.decide(caller, "profiles", "read"))
        ShadowPoller(holder, SimpleNamespace(SyncShadow=answer)).sync_once()

    assert [(request.differing, len(request.differences)) for request in sent] == [
        (KEPT, KEPT), (2 * KEPT, KEPT), (3 * KEPT, KEPT),
    ]  # fmt: skip


def test_nothing_is_lost_while_access_is_away_or_many_threads_count(world: World) -> None:
    policy_id = draft(world, add=[DENY_LIST])
    start(world, policy_id)
    holder, live = SnapshotHolder(), world.context.directory.snapshot()
    holder.swap(live)
    sync = poller(world, holder)
    sync.sync_once()
    assert holder.shadow is not None
    caller = Caller("user:root", "user", "administration", "administration")
    decision = live.decide(caller, "principals", "list")

    def count() -> None:
        for _ in range(200):
            holder.shadow.compare(caller, "principals", "list", (), decision)  # type: ignore[union-attr]

    threads = [threading.Thread(target=count) for _ in range(5)]
    for thread in threads:
        thread.start()
    away = ShadowPoller(holder, SimpleNamespace(SyncShadow=lambda request, timeout: 1 / 0))
    while any(thread.is_alive() for thread in threads):
        away.sync_once()
        sync.sync_once()
    away.sync_once()
    sync.sync_once()

    assert (report(world, policy_id).compared, report(world, policy_id).differing) == (1000, 1000)


def test_a_stopped_or_published_candidate_is_decided_no_more_and_its_report_stays(world: World) -> None:
    new_person(world, "second")
    stopped, published = draft(world, add=[DENY_LIST]), draft(world)
    holder = SnapshotHolder()
    sync = poller(world, holder)
    for policy_id in (stopped, published):
        start(world, policy_id)
        sync.sync_once()
        assert holder.shadow is not None and holder.shadow.policy_id == policy_id
        holder.shadow.put_back(ShadowCounts(3, 0, 0))
        if policy_id == stopped:
            world.stub().StopShadow(review_pb2.StopShadowRequest(policy_id=policy_id), timeout=10)
        else:
            publish(world, policy_id)
        sync.sync_once()
        assert holder.shadow is None
        assert (report(world, policy_id).running, report(world, policy_id).compared) == (False, 3)


def test_a_role_given_meanwhile_counts_for_the_candidate_too(world: World) -> None:
    start(world, draft(world))
    holder = SnapshotHolder()
    sync = poller(world, holder)
    sync.sync_once()
    before = holder.shadow
    sync.sync_once()
    assert holder.shadow is before, "no news, nothing is compiled anew"

    new_person(world, "second")
    world.context.directory.refresh(at_once=True)
    sync.sync_once()

    assert holder.shadow is not before


def test_a_faulty_draft_or_a_published_version_is_no_candidate(world: World) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        start(world, draft(world, add=[(*DENY_LIST[:5], "Deny")]))
    assert refusal(caught.value) == ("INVALID_ARGUMENT", "POLICY_INVALID")
    with pytest.raises(grpc.RpcError) as caught:
        start(world, "default")
    assert refusal(caught.value) == ("FAILED_PRECONDITION", "POLICY_STATE")


@pytest.fixture(params=BOTH)
def shadows(request: pytest.FixtureRequest) -> Iterator[MemoryShadows | MongoShadows]:
    if request.param == "memory":
        yield MemoryShadows()
        return
    with emptied(request, "shadows", "shadow_differences"):
        yield MongoShadows()


def test_a_store_adds_up_what_the_processes_counted(shadows: MemoryShadows | MongoShadows) -> None:
    other = ShadowKey("user:y", *list(KEY.__slots__)[1:])
    shadows.add("c1", ShadowCounts(10, 3, 1, Counter({KEY: 2, other: 1})))
    shadows.add("c1", ShadowCounts(5, 4, 0, Counter({KEY: 4})))
    shadows.add("c2", ShadowCounts(1, 1, 0, Counter({KEY: 1})))

    assert shadows.totals("c1") == ShadowTotals(15, 7, 1)
    assert {key: count for _, key, count in shadows.page("c1", "", 10)} == {KEY: 6, other: 1}
    assert shadows.totals("never") == ShadowTotals()


def test_a_store_keeps_one_candidate_and_pages_by_place(shadows: MemoryShadows | MongoShadows) -> None:
    assert shadows.current() == ""
    shadows.set("c1")
    shadows.set("c2")
    keys = [ShadowKey(f"user:{n}", *list(KEY.__slots__)[1:]) for n in range(25)]
    shadows.add("c2", ShadowCounts(25, 25, 0, Counter({key: 1 for key in keys})))
    seen: list[ShadowKey] = []
    after = ""
    while found := shadows.page("c2", after, 10):
        seen += [key for _, key, _ in found]
        after = found[-1][0]

    assert shadows.current() == "c2"
    assert len(seen) == 25
    assert set(seen) == set(keys)


def test_a_store_bounds_the_rows_and_not_the_sums(
    shadows: MemoryShadows | MongoShadows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.access.store.shadows.KEPT", 5)
    for start_ in (0, 4):
        keys = [ShadowKey(f"user:{n}", *list(KEY.__slots__)[1:]) for n in range(start_, start_ + 4)]
        shadows.add("c3", ShadowCounts(4, 4, 0, Counter({key: 1 for key in keys})))
    shadows.add("c3", ShadowCounts(1, 1, 0, Counter({keys[0]: 1})))

    assert shadows.totals("c3").differing == 9
    assert len(shadows.page("c3", "", 100)) == 5
    assert sum(count for _, _, count in shadows.page("c3", "", 100)) == 6
