"""Quotas over two gateways and a real access service: what is offered twice over is answered once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from grpc import aio
from kehu.access.v1 import access_pb2

from gateway.auth import Doorkeeper
from gateway.leases import lease_by
from gateway.limits import Limits
from gateway.main import build_gateway
from gateway.problems import Problem
from gateway.quotas import AGAIN_SECONDS, Ask, Portion, Quotas
from gateway.routes.derived import Edge
from gateway.transcoding.catalog import methods_of
from gateway.transcoding.reading import Readers
from gateway.transcoding.writing import Writers
from gateway.upstreams import Upstreams
from infra.processes import free_port
from services.access.domain.quotas import portion
from services.chassis.access.quotas import Quota, applying
from services.chassis.server import Serving
from tests.access.world import running_world
from tests.gateway.conftest import Kitchen, adder, serving_in_thread
from tests.harness import StatedTokens, running

REQUESTS, WINDOW = 400, 3600
WIDE = Limits(rate=100_000, burst=100_000, anonymous_rate=1000, anonymous_burst=100_000)


@contextmanager
def two_gateways(kitchen_file, messages, quotas):
    """Yield the addresses of two gateways before one kitchen and one access service, with the kitchen's harness."""
    with ExitStack() as stack:
        access = stack.enter_context(running_world())
        kitchen = Kitchen(messages)
        harness = stack.enter_context(running(Serving("kitchen", [(adder(kitchen_file), kitchen)])))
        harness.policy.quotas = quotas
        addresses = {"kitchen": harness.address, "access": access.harness.address}
        urls = []
        for _ in range(2):
            port = free_port()

            def make_app(port=port):
                methods = methods_of([kitchen_file, access_pb2.DESCRIPTOR])
                upstreams = Upstreams(methods, lambda service, names: aio.insecure_channel(addresses[service]))
                shared = Quotas(lease_by(upstreams))
                doorkeeper = Doorkeeper(harness.policy, StatedTokens(), harness.trail, WIDE, quotas=shared)
                edge = Edge(doorkeeper, upstreams, WIDE, Readers(), Writers())
                routed = [m for m in methods_of([kitchen_file]) if m.is_routed]
                return build_gateway(edge, routed, "http://test", lambda: True, [], [upstreams.close])

            stack.enter_context(serving_in_thread(make_app, port))
            urls.append(f"http://127.0.0.1:{port}")
        yield urls, access


def offer(urls, count, headers_of, path="/v1/dishes/soup"):
    """Send `count` requests to each gateway, from eight connections each, and count the statuses."""
    found: Counter[int] = Counter()
    lock = threading.Lock()

    def work(url, numbers):
        with httpx.Client(base_url=url, timeout=30) as http:
            for number in numbers:
                status = http.get(path, headers=headers_of(number)).status_code
                with lock:
                    found[status] += 1

    with ThreadPoolExecutor(16) as pool:
        for url in urls:
            for part in range(8):
                pool.submit(work, url, range(part, count, 8))
    return found


FORMS = [
    *(
        "v1/dishes/soup",
        "v1/dishes/soup/",
        "v1/dishes//soup",
        "v1/dishes/soup?",
        "v1/dishes/soup;a",
        "v1/dishes/soup%20",
    ),
    *("v1/Dishes/soup", "V1/dishes/soup", "v1/dishes/./soup", "v1/dish%65s/soup", "v1/kitchens/k/dishes/soup"),
]


def disguised(number):
    """Return headers of one app that tries to look like many."""
    return {
        "Authorization": f"{('Bearer', 'bearer', 'BEARER')[number % 3]} app:crm~{number % 7}@kitchen",
        "X-Forwarded-For": f"10.0.{number % 250}.1",
        "Forwarded": f"for=10.0.0.{number % 250}",
        "X-Real-IP": f"10.1.0.{number % 250}",
        "X-Request-Id": f"request-{number:08}",
    }


def test_two_gateways_together_answer_what_the_quota_says_of_twice_as_many_in_disguise(kitchen_file, messages):
    quota = Quota("crm", "app:crm", "dishes", "read", REQUESTS, WINDOW)
    with two_gateways(kitchen_file, messages, (quota,)) as (urls, _):
        found = offer(urls, REQUESTS, disguised)
        forms = {httpx.get(f"{urls[0]}/{form}", headers=disguised(0)).status_code for form in FORMS}
        other = httpx.get(f"{urls[1]}/v1/dishes/soup", headers={"Authorization": "Bearer app:other@kitchen"})

    assert found.total() == 2 * REQUESTS
    assert set(found) == {200, 429}
    assert abs(found[200] - REQUESTS) <= 0.05 * REQUESTS
    assert 200 not in forms
    assert other.status_code == 200


def test_a_caller_is_told_which_quota_it_used_up_and_when_to_come_again(kitchen_file, messages):
    quota = Quota("reads", "*", "dishes", "read", 2, 60)
    with two_gateways(kitchen_file, messages, (quota,)) as (urls, _):
        headers = {"Authorization": "Bearer app:crm@kitchen"}
        good, _, refused = (httpx.get(f"{url}/v1/dishes/soup", headers=headers) for url in (urls[0], urls[1], urls[0]))
        listed = httpx.get(f"{urls[0]}/v1/dishes", headers={**headers, "X-Purpose": "service"})

    assert good.headers["ratelimit-policy"] == '"reads";q=2;w=60'
    assert good.headers["ratelimit"].startswith('"reads";r=1;t=')
    assert (refused.status_code, refused.json()["reason"]) == (429, "QUOTA_EXCEEDED")
    assert refused.json()["metadata"] == {"quota": "reads", "requests": "2", "period_seconds": "60"}
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit"].startswith('"reads";r=0;t=')
    assert refused.headers["ratelimit-policy"] == '"reads";q=2;w=60'
    assert listed.status_code == 200
    assert "ratelimit" not in listed.headers


def test_without_access_each_gateway_hands_out_a_quarter_and_no_more(kitchen_file, messages):
    quota = Quota("crm", "app:*", "*", "*", 40, WINDOW)
    with two_gateways(kitchen_file, messages, (quota,)) as (urls, access), pytest.MonkeyPatch.context() as patch:
        patch.setattr(access.context.windows, "add", _away)
        found = offer(urls, 24, disguised)

    assert found == {200: 20, 429: 28}


def _away(*_):
    raise RuntimeError("the database is gone")


class Store:
    """An access service of one counter for each caller and quota, and a clock moved by hand."""

    def __init__(self):
        self.now, self.taken, self.is_away, self.asks = 1000.0, Counter(), False, 0

    def clock(self):
        return self.now

    async def lease(self, asks: Sequence[Ask]) -> Sequence[Portion]:
        await asyncio.sleep(0)
        if self.is_away:
            raise OSError
        self.asks += len(asks)
        return [self._portion(ask) for ask in asks]

    def _portion(self, ask):
        period = ask.quota.period_seconds
        key = (ask.quota.name, ask.subject, self.now // period)
        granted, left = portion(ask.quota.requests, self.taken[key] + ask.spent, ask.wanted)
        self.taken[key] += ask.spent + ask.wanted
        return Portion(granted, left, period - self.now % period)


async def accepted(quotas, known, count, subject="app:crm"):
    """Return how many of so many calls at once are let through."""

    async def one():
        try:
            await quotas.spend(quotas.of(known, subject, "dishes", "read"))
        except Problem:
            return 0
        return 1

    return sum(await asyncio.gather(*(one() for _ in range(count))))


MINUTE = (Quota("minute", "*", "*", "*", 100, 60),)


def test_a_new_period_brings_the_whole_quota_again_and_an_old_portion_ends_with_its_period():
    async def work():
        store = Store()
        gateways = [Quotas(store.lease, store.clock) for _ in range(2)]
        first = [await accepted(gateway, MINUTE, 30) for gateway in gateways]
        store.now += 60
        second = [await accepted(gateway, MINUTE, 100) for gateway in gateways]
        return first, second

    first, second = asyncio.run(work())
    assert first == [30, 30]
    assert sum(second) == 100


def test_an_idle_gateway_holds_next_to_nothing_back():
    async def work():
        store = Store()
        busy, idle = Quotas(store.lease, store.clock), Quotas(store.lease, store.clock)
        return await accepted(idle, MINUTE, 1), sum([await accepted(busy, MINUTE, 1) for _ in range(150)]), store.asks

    idle, busy, asks = asyncio.run(work())
    assert idle == 1
    assert 95 <= idle + busy <= 100
    assert asks < 40


def test_while_access_is_away_a_gateway_hands_out_its_last_share_and_tells_of_it_afterwards():
    async def work():
        store = Store()
        gateways = [Quotas(store.lease, store.clock) for _ in range(2)]
        before = [await accepted(gateways[0], MINUTE, 70), await accepted(gateways[1], MINUTE, 70)]
        store.now += 60
        store.is_away = True
        away = [await accepted(gateway, MINUTE, 100) for gateway in gateways]
        store.now += AGAIN_SECONDS
        again = await accepted(gateways[0], MINUTE, 100)
        store.is_away = False
        store.now += AGAIN_SECONDS
        back = [await accepted(gateway, MINUTE, 100) for gateway in gateways]
        store.now += 60
        after = [await accepted(gateway, MINUTE, 100) for gateway in gateways]
        return before, away, again, back, after

    before, away, again, back, after = asyncio.run(work())
    assert 95 <= sum(before) <= 100
    assert 95 <= sum(away) <= 100
    assert away[0] >= before[0] and away[1] == before[1]
    assert again == 0
    assert sum(back) <= away[1]  # the first to come back does not know yet what the other handed out
    assert sum(after) == 100


def test_a_quota_nobody_ever_got_anything_of_falls_back_to_a_quarter():
    async def work():
        store = Store()
        store.is_away = True
        return await accepted(Quotas(store.lease, store.clock), MINUTE, 100)

    assert asyncio.run(work()) == 25


def test_a_quota_of_none_shuts_out_and_one_caller_never_uses_up_anothers():
    async def work():
        store = Store()
        quotas = Quotas(store.lease, store.clock)
        shut = (Quota("none", "app:crm", "*", "*", 0, 60), *MINUTE)
        return (
            await accepted(quotas, shut, 10),
            await accepted(quotas, shut, 200, "app:till"),
            await accepted(quotas, shut, 200, "user:ann"),
        )

    assert asyncio.run(work()) == (0, 100, 100)


def test_the_quota_that_names_the_caller_nearest_holds_and_others_hold_beside_it():
    everybody = Quota("all", "*", "*", "*", 1, 60)
    apps = Quota("apps", "app:*", "*", "*", 2, 60)
    crm = Quota("crm", "app:crm", "*", "*", 3, 60)
    exports = Quota("exports", "*", "profiles", "export", 4, 60)
    known = (everybody, exports, crm, apps)

    assert applying(known, "app:crm", "profiles", "export") == (crm, exports)
    assert applying(known, "app:till", "profiles", "read") == (apps,)
    assert applying(known, "user:crm", "profiles", "read") == (everybody,)
    assert applying((crm,), "app:till", "profiles", "read") == ()
