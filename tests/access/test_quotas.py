"""Quotas of a policy: reviewed with it, fetched with it, and handed out in portions that never add up to more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import quotas_pb2

from services.access.domain.differences import differences
from services.access.domain.policies import Content
from services.access.domain.quotas import quota_faults
from services.access.domain.vocabulary import Inventory
from services.access.publication import sorted_set
from services.access.store.windows import MemoryQuotaWindows, MongoQuotaWindows, QuotaWindows
from services.chassis.access.quotas import Quota
from services.chassis.access.wire import updated
from tests.access.stores import BOTH, emptied
from tests.access.world import START, running_world

GOOD = Quota("crm", "app:crm", "profiles", "read", 1000, 60)
INVENTORY = Inventory({"profiles": frozenset(("read", "list"))}, frozenset())


@pytest.fixture(params=BOTH)
def windows(request: pytest.FixtureRequest) -> Iterator[QuotaWindows]:
    if request.param == "memory":
        yield MemoryQuotaWindows()
        return
    with emptied(request, "quota_windows"):
        store = MongoQuotaWindows()
        store.ensure_indexes()
        yield store


def test_of_many_that_add_at_once_none_sees_the_same_count(windows: QuotaWindows) -> None:
    seen: list[int] = []
    add = lambda: seen.append(windows.add("w", 3, START, START + timedelta(seconds=60)))  # noqa: E731
    threads = [threading.Thread(target=add) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(seen) == list(range(0, 60, 3))


def test_a_period_that_is_over_is_forgotten_and_others_are_not(windows: QuotaWindows) -> None:
    windows.add("old", 5, START, START + timedelta(seconds=10))
    windows.add("long", 7, START, START + timedelta(seconds=1000))
    later = START + timedelta(seconds=20)
    windows.add("new", 1, later, later + timedelta(seconds=10))

    assert windows.add("old", 1, later, later + timedelta(seconds=10)) == 0
    assert windows.add("long", 1, later, later + timedelta(seconds=10)) == 7


def ask(wanted: int, spent: int = 0, subject: str = "app:crm") -> quotas_pb2.LeaseQuotasRequest:
    return quotas_pb2.LeaseQuotasRequest(
        asks=[
            quotas_pb2.QuotaAsk(
                quota="crm", subject=subject, requests=100, period_seconds=60, wanted=wanted, spent=spent
            )
        ]
    )


def test_portions_never_add_up_to_more_than_the_quota_and_begin_anew_with_the_period() -> None:
    with running_world() as world:
        stub = world.stub("", purpose="", peer="gateway")
        portions = [stub.LeaseQuotas(ask(wanted), timeout=5).portions[0] for wanted in (60, 30, 30, 1)]
        other = stub.LeaseQuotas(ask(10, subject="app:till"), timeout=5).portions[0]
        world.clock.forward(60)
        anew = stub.LeaseQuotas(ask(10, spent=20), timeout=5).portions[0]

    assert [(p.granted, p.left) for p in portions] == [(60, 40), (30, 10), (10, 0), (0, 0)]
    assert 0 < portions[0].ends_in_seconds <= 60
    assert (other.granted, other.left) == (10, 90)
    assert (anew.granted, anew.left) == (10, 70)


def test_nobody_but_a_gateway_is_given_portions() -> None:
    with running_world() as world, pytest.raises(grpc.RpcError) as refused:
        world.stub("", peer="profiles").LeaseQuotas(ask(1), timeout=5)

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "CRM"}, "quotas[1].name"),
        ({"name": "crm"}, "quotas[1].name"),
        ({"subject": "role:seller"}, "quotas[1].subject"),
        ({"subject": "svc:profiles"}, "quotas[1].subject"),
        ({"resource": "unicorns"}, "quotas[1].resource"),
        ({"action": "fly"}, "quotas[1].action"),
        ({"resource": "*", "action": "read"}, "quotas[1].action"),
        ({"requests": -1}, "quotas[1]"),
        ({"period_seconds": 0}, "quotas[1]"),
        ({"subject": "app:crm"}, "quotas[1]"),
    ],
)
def test_a_quota_that_means_nothing_is_a_fault_of_the_policy(changes: dict[str, object], field: str) -> None:
    second = {"name": "all", "subject": "*", "resource": "profiles", "action": "read", "requests": 10,
              "period_seconds": 60} | changes  # fmt: skip

    found = [fault.field for fault in quota_faults(Content((), quotas=(GOOD, Quota(**second))), INVENTORY)]  # type: ignore[arg-type]
    assert found == [field]
    assert list(quota_faults(Content((), quotas=(GOOD,)), INVENTORY)) == []


def test_a_quota_is_drafted_shown_compared_and_fetched_with_its_policy() -> None:
    with running_world() as world:
        stub = world.stub()
        current = stub.GetPolicy(pb.GetPolicyRequest(policy_id="current"), timeout=10)
        current.quotas.add(name="crm", subject="app:crm", resource="*", action="*", requests=600, period_seconds=60)
        current.comment = "the CRM may ask ten times a second"
        drafted = stub.CreatePolicy(pb.CreatePolicyRequest(policy=current), timeout=10)
        policy = world.context.policies.get(drafted.name.removeprefix("policies/"))
        assert policy is not None
        reply = pb.GetPolicySnapshotResponse()
        reply.rule_set.CopyFrom(sorted_set(policy.content, policy.number, [], "mark"))
        fetched = updated(None, reply)
        faults = stub.ValidatePolicy(pb.ValidatePolicyRequest(policy_id=policy.id), timeout=30).faults

    wanted = (Quota("crm", "app:crm", "*", "*", 600, 60),)
    assert [(quota.name, quota.requests) for quota in drafted.quotas] == [("crm", 600)]
    assert fetched is not None
    assert fetched.quotas == policy.content.quotas == wanted
    assert not faults
    said = differences(Content((), quotas=wanted), Content((), quotas=(Quota("crm", "app:crm", "*", "*", 60, 60),)))
    assert [(each.change, each.kind) for each in said] == [("changed", "quota")]
    assert said[0].after is not None and "60 of * on * in 60 s" in said[0].after.english
