"""The promises of the decision, each with its number: default deny, the same answers as others, reloads, speed."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from kehu.tickets.v1 import tickets_pb2, tickets_pb2_grpc

from services.chassis.access import (
    MODEL,
    Caller,
    Decision,
    NamedCondition,
    PlainRules,
    PolicySnapshot,
    RowFilter,
    SnapshotHolder,
    SnapshotPoller,
    build_rules,
    in_reach,
)
from services.chassis.access.conditions import DateWindow, DevicePosture, Network, RecordAttribute, SecondFactorAge
from services.chassis.errors import Invalid, Unavailable
from services.chassis.server import Serving
from tests.bench.bench_access import make_policy, make_requests
from tests.chassis.policy_oracle import Request, allowed
from tests.harness import OpenPolicy, running

NOW = 1_000_000.0
SUBJECTS = ["user:a", "user:b", "role:r1", "role:r2", "role:r3", "role:r4"]
CONDITIONS: dict[str, dict[str, Any]] = {
    "past": {"kind": "window", "value": (0, NOW - 1)},
    "present": {"kind": "window", "value": (NOW - 1, NOW + 1)},
    "inside": {"kind": "network", "value": "10.0.0.0/8"},
    "outside": {"kind": "network", "value": "10.0.0.0/8", "negated": True},
    "managed": {"kind": "device", "value": ("managed", "true")},
    "fresh": {"kind": "factor", "value": 300},
    "own": {"kind": "record", "value": ("owner", ("$subject",))},
    "gold": {"kind": "record", "value": ("tier", ("gold", "silver"))},
}
NAMED = [
    NamedCondition("past", DateWindow(0, NOW - 1)),
    NamedCondition("present", DateWindow(NOW - 1, NOW + 1)),
    NamedCondition("inside", Network(("10.0.0.0/8",))),
    NamedCondition("outside", Network(("10.0.0.0/8",)), negated=True),
    NamedCondition("managed", DevicePosture("managed", ("true",))),
    NamedCondition("fresh", SecondFactorAge(300)),
    NamedCondition("own", RecordAttribute("owner", ("$subject",))),
    NamedCondition("gold", RecordAttribute("tier", ("gold", "silver"))),
]
REQUEST_ONLY = ("past", "present", "inside", "outside", "managed", "fresh")


def random_policy(pick: random.Random) -> dict[str, Any]:
    rules = []
    for _ in range(pick.randint(3, 14)):
        effect = pick.choice(("allow", "allow", "allow", "deny"))
        names = pick.sample(REQUEST_ONLY, pick.choice((0, 0, 1, 2)))
        names += pick.sample(("own", "gold"), pick.choice((0, 0, 1) if effect == "deny" else (0, 0, 1, 2)))
        rules.append((
            pick.choice(SUBJECTS), pick.choice(("*", "d1", "d2")), pick.choice(("o1", "o1", "o2")),
            pick.choice(("*", "read", "list")), pick.choice(("*", "sales", "none")), effect, tuple(names),
        ))  # fmt: skip
    links = [
        (pick.choice(SUBJECTS), pick.choice(SUBJECTS[2:]), pick.choice(("d1", "d1", "d2")),
         *pick.choice(((0, 1e12), (0, 1e12), (0, NOW), (NOW, 1e12), (NOW + 1, 1e12))))
        for _ in range(pick.randint(2, 14))
    ]  # fmt: skip
    filters = [
        (pick.choice(SUBJECTS), pick.choice(("owner", "tier")), pick.choice((("user:a",), ("gold", "x"))))
        for _ in range(pick.choice((0, 0, 1, 3)))
    ]
    return {"rules": rules, "links": sorted(set(links)), "filters": filters, "conditions": CONDITIONS}


def random_request(pick: random.Random) -> Request:
    record = {"owner": pick.choice(("user:a", "user:b", "")), "tier": pick.choice(("gold", "x", ""))}
    return Request(
        pick.choice(("user:a", "user:a", "user:b", "role:r1", "user:x")), pick.choice(("d1", "d1", "d2", "d3")),
        pick.choice(("o1", "o1", "o2", "o3")), pick.choice(("read", "read", "list", "other")),
        pick.choice(("sales", "sales", "none", "other")),
        NOW, pick.choice(("10.1.2.3", "8.8.8.8", None)), pick.choice(({}, {"managed": "true"}, {"managed": "no"})),
        pick.choice((None, NOW - 300, NOW - 301)), pick.choice((None, record)),
    )  # fmt: skip


def compiled(policy: dict[str, Any]) -> PolicySnapshot:
    rows = [(*rule[:6], "+".join(rule[6])) if rule[6] else rule[:6] for rule in policy["rules"]]
    links = [link[:3] if link[3:] == (0, 1e12) else (*link[:3], str(link[3]), str(link[4])) for link in policy["links"]]
    filters = [
        RowFilter(name, "*", resource, field, values)
        for name, field, values in policy["filters"]
        for resource in ("o1", "o2")
    ]
    return PolicySnapshot(1, MODEL, rows, links, filters, conditions=NAMED, now=lambda: NOW)


def decided(snapshot: PolicySnapshot, asked: Request) -> Decision:
    factor = None if asked.factor is None else datetime.fromtimestamp(asked.factor, UTC)
    caller = Caller(
        asked.subject, "user", asked.department, "" if asked.purpose == "none" else asked.purpose, auth_time=factor,
        methods=("pwd", "otp"), address=asked.address or "", device=tuple(asked.device.items()),
    )  # fmt: skip
    return snapshot.decide(caller, asked.resource, asked.action)


def answer(snapshot: PolicySnapshot, asked: Request) -> bool:
    decision = decided(snapshot, asked)
    if not decision.allowed or asked.record is None:
        return decision.allowed
    return in_reach(decision.obligations.row_filter, asked.record.get)


def test_an_independent_oracle_of_sixty_lines_answers_twenty_thousand_requests_alike() -> None:
    """reliability row 3: random policies with denials, wildcards, chains, times, conditions, row filters."""
    pick = random.Random(20261122)
    yes = different = 0
    for _ in range(1000):
        policy = random_policy(pick)
        snapshot = compiled(policy)
        for _ in range(20):
            asked = random_request(pick)
            ours, theirs = answer(snapshot, asked), allowed(policy, asked)
            yes += theirs
            different += ours is not theirs

    assert different == 0
    assert 500 < yes < 19_500  # both answers were asked for


def test_what_others_were_answered_before_changes_no_answer() -> None:
    """Decisions are remembered for all who are treated alike: a snapshot nobody asked yet says the same, all of it."""
    pick = random.Random(20261124)
    narrowed = different = 0
    for _ in range(100):
        policy = random_policy(pick)
        asked_often = compiled(policy)
        for _ in range(60):
            asked = random_request(pick)._replace(resource="o1", action="read", purpose="sales")
            ours, fresh = (decided(snapshot, asked) for snapshot in (asked_often, compiled(policy)))
            narrowed += bool(fresh.obligations.row_filter)
            different += ours != fresh

    assert different == 0
    assert narrowed > 100


def test_a_hundred_thousand_random_requests_are_answered_as_plain_pycasbin_answers_them() -> None:
    pick = random.Random(20261123)
    yes = different = 0
    for _ in range(500):
        rules = [rule[:6] for rule in random_policy(pick)["rules"]][:6]
        links = [link[:3] for link in random_policy(pick)["links"]]
        ours, theirs = build_rules(MODEL, rules, links), PlainRules(MODEL, rules, links)
        for _ in range(200):
            request = random_request(pick)[:5]
            verdict = theirs.decide(request).allowed
            yes += verdict
            different += ours.decide(request).allowed is not verdict

    assert different == 0
    assert 2000 < yes < 98_000


def refused_by_all(snapshot: PolicySnapshot, requests: list[Request]) -> int:
    return sum(answer(snapshot, asked) for asked in requests)


def test_two_thousand_requests_and_ten_faults_allow_nothing() -> None:
    """reliability row 1: no rule, nobody known, empty words, no policy, a broken one, a failing decision point."""
    pick = random.Random(1)
    requests = [random_request(pick) for _ in range(2000)]
    everything = ("role:r1", "*", "o1", "*", "*", "allow")
    assert refused_by_all(PolicySnapshot(1, MODEL, (), ()), requests) == 0
    assert refused_by_all(PolicySnapshot(1, MODEL, [("user:y", *everything[1:])], ()), requests) == 0
    snapshot = PolicySnapshot(1, MODEL, [everything], [("user:a", "role:r1", "d1")])
    base = Request("user:a", "d1", "o1", "read", "sales", NOW, None, {}, None)
    assert answer(snapshot, base)
    faults = 0
    for change in ({"subject": ""}, {"department": ""}, {"resource": ""}, {"action": ""}, {"department": "d9"}):
        assert not answer(snapshot, base._replace(**change))
        faults += 1
    holder = SnapshotHolder()
    for error in (ConnectionError(), TimeoutError(), Invalid("bad rules")):
        assert not SnapshotPoller(holder, _raising(error)).poll_once()
        with pytest.raises(Unavailable):
            _ = holder.current
        faults += 1
    for error in (RuntimeError("broken"), Unavailable("no policy")):
        assert _call_with(error) in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE)
        faults += 1
    assert faults == 10


def _raising(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def _call_with(error: Exception) -> grpc.StatusCode:
    """Return what a caller of a service sees whose decision point fails."""

    class Failing(OpenPolicy):
        decide = staticmethod(_raising(error))

    class Tickets(tickets_pb2_grpc.TicketsServiceServicer):
        def GetTicket(self, request: tickets_pb2.GetTicketRequest, context: grpc.ServicerContext) -> Any:
            raise AssertionError("nobody was let in")

    add = tickets_pb2_grpc.add_TicketsServiceServicer_to_server
    with running(Serving("tickets", [(add, Tickets())]), Failing()) as harness:
        stub = harness.stub(tickets_pb2_grpc.TicketsServiceStub)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetTicket(tickets_pb2.GetTicketRequest(name="tickets/1"), timeout=5)
    return caught.value.code()


def test_a_hundred_thousand_decisions_in_eight_threads_over_two_hundred_reloads_mix_no_two_policies() -> None:
    """reliability row 13: version n allows read to its own role only; a decision of two versions would show."""
    both = [
        PolicySnapshot(n, MODEL, [("user:alice", "marketing", "profiles", action, "*", "allow")], [])
        for n, action in ((1, "read"), (2, "list"))
    ]
    caller = Caller("user:alice", "user", "marketing", "marketing")
    holder, wrong, done = SnapshotHolder(), [], [0] * 8
    holder.swap(both[0])

    def ask(thread: int) -> None:
        for _ in range(12_500):
            current = holder.current
            one, other = (current.decide(caller, "profiles", name) for name in ("read", "list"))
            expected = (current.version == 1, current.version == 2, current.version, current.version)
            if (one.allowed, other.allowed, one.policy_version, other.policy_version) != expected:
                wrong.append((one, other))
            done[thread] += 1

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for reload in range(200):
            holder.swap(both[reload % 2])
            time.sleep(0.002)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)

    assert (sum(done), wrong) == (100_000, [])


def test_ten_thousand_rules_decide_within_five_milliseconds_and_strangers_cost_no_memory() -> None:
    """reliability row 14: p99 ≤ 5 ms, load ≤ 5 s, + ≤ 5 MB for 20,000 unknown subjects and 5,000 departments."""
    pick = random.Random(14)
    rules, links = make_policy(pick)
    started = time.process_time()
    snapshot = PolicySnapshot(1, MODEL, rules, links)
    load = time.process_time() - started
    took = []
    for subject, department, resource, action, _ in make_requests(pick, 5000):
        caller = Caller(subject, "user", department)
        began = time.thread_time()
        snapshot.decide(caller, resource, action)
        took.append(time.thread_time() - began)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    stranger = Caller("user:nobody", "user", "nowhere")
    for number in range(20_000):
        caller = replace(stranger, subject=f"user:stranger{number}", department=f"d{number % 5000}x")
        assert not snapshot.decide(caller, "o1", "read").allowed
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert sorted(took)[int(len(took) * 0.99)] <= 0.005
    assert load <= 5
    assert grown <= 5_000_000
