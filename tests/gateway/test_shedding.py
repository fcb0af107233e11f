"""More is asked than can be done: what is cheap and important is answered, the rest is turned away at once."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from gateway.limits import Limits
from gateway.main import routed_methods
from gateway.shedding import FIRST, LEAST, MOST, WAIT_SECONDS, WAITING, Limiter, Overloaded, Worth, worth_of
from tests.gateway.conftest import a_world

WIDE = Limits(rate=100_000, burst=100_000, anonymous_rate=1000, anonymous_burst=100_000)
SECONDS = float(os.environ.get("KEHU_OVERLOAD_SECONDS", "4"))
HOBS, DISH_SECONDS = 2, 0.04  # the kitchen makes fifty dishes a second

KNOWN = {
    "CreateToken": Worth.VITAL,
    "AcceptInvitation": Worth.VITAL,
    "Unsubscribe": Worth.VITAL,
    "GetProfile": Worth.DIRECT,
    "RecordConsent": Worth.DIRECT,
    "Decide": Worth.DIRECT,
    "UpdateTicket": Worth.DIRECT,
    "GetOperation": Worth.DIRECT,
    "ListProfiles": Worth.LIST,
    "Search": Worth.LIST,
    "QueryMetric": Worth.LIST,
    "SimulatePolicy": Worth.LIST,
    "ListRelationships": Worth.LIST,
    "ImportRecords": Worth.BULK,
    "StreamRecords": Worth.BULK,
    "BatchUpsertRecords": Worth.BULK,
    "ExportProfiles": Worth.BULK,
    "DownloadExport": Worth.BULK,
    "RunCampaign": Worth.BULK,
    "ComputeScores": Worth.BULK,
    "RebuildIndex": Worth.BULK,
}


def test_the_worth_of_a_method_follows_from_its_proto():
    found = {method.full_name.rpartition(".")[2]: worth_of(method) for method in routed_methods()}

    assert {name: found[name] for name in KNOWN} == KNOWN
    assert set(found.values()) == set(Worth)


def run(port, rate, seconds, connections, paths):
    command = [
        sys.executable,
        str(Path(__file__).with_name("loader.py")),
        *map(str, (port, rate, seconds, connections)),
    ]
    done = subprocess.run(command, input="\n".join(paths), capture_output=True, text=True, check=True, timeout=180)
    return json.loads(done.stdout)


def good(found):
    return [row for row in found if row[1] == 200]


def test_at_ten_times_the_load_what_can_be_done_is_done_in_time_and_the_rest_is_told_when_to_come_again(
    kitchen_file, messages
):
    hobs = threading.Semaphore(HOBS)

    def work():
        with hobs:
            time.sleep(DISH_SECONDS)

    with a_world(kitchen_file, messages, WIDE) as world:
        world.kitchen.work = work
        calm = run(world.port, HOBS / DISH_SECONDS * 2, 2.0, HOBS * 2, ["/v1/dishes/soup"])
        capacity = len(good(calm)) / 2.0
        token = {"grant_type": "client_credentials", "client_id": "load", "client_secret": "right+secret"}
        signed_in: list[int] = []
        stop = threading.Event()

        def sign_in():
            while not stop.wait(0.2):
                signed_in.append(httpx.post(f"{world.http.base_url}/oauth2/token", data=token, timeout=10).status_code)

        signing = threading.Thread(target=sign_in)
        signing.start()
        paths = ["/v1/dishes/soup"] * 9 + ["/v1/dishes"]
        found = run(world.port, capacity * 10, SECONDS, 200, paths)
        stop.set()
        signing.join()
        after = run(world.port, capacity / 2, 1.0, 4, ["/v1/dishes/soup"])

    done = good(found)
    times = sorted(row[2] for row in done)
    goodput, p99 = len(done) / SECONDS, times[int(len(times) * 0.99)]
    statuses = Counter(row[1] for row in found)
    print(f"capacity {capacity:.0f}/s, offered {len(found) / SECONDS:.0f}/s, goodput {goodput / capacity:.0%}")
    print(f"accepted p50 {times[len(times) // 2]:.3f} s, p99 {p99:.3f} s, {dict(statuses)}")
    assert set(statuses) <= {200, 429, 503}
    assert all(row[3] for row in found if row[1] != 200)
    assert goodput >= 0.8 * capacity
    assert p99 <= max(1.0, 15 * sorted(row[2] for row in good(calm))[-1])  # of a machine that does much else
    assert set(signed_in) == {200}
    single, lists = (Counter(row[1] for row in found if row[0] == path) for path in ("/v1/dishes/soup", "/v1/dishes"))
    assert lists[200] / lists.total() <= single[200] / single.total()
    assert {row[1] for row in after} == {200}


def test_a_service_that_hangs_takes_no_places_of_another():
    async def work():
        hung, other = Limiter(), Limiter()
        results = await asyncio.gather(*(hung.enter(Worth.DIRECT) for _ in range(2 * WAITING)), return_exceptions=True)
        await other.enter(Worth.BULK)
        return sum(isinstance(result, Overloaded) for result in results), other.under_way

    refused, under_way = asyncio.run(work())
    assert refused == 2 * WAITING - math.ceil(0.9 * FIRST)
    assert under_way == 1


def test_who_waits_is_let_in_by_worth_and_waits_a_little_only():
    async def work():
        limiter = Limiter()
        for _ in range(FIRST):
            await limiter.enter(Worth.VITAL)
        order: list[Worth] = []

        async def come(worth):
            await limiter.enter(worth)
            order.append(worth)

        waiting = [
            asyncio.ensure_future(come(worth)) for worth in (Worth.DIRECT, Worth.VITAL, Worth.DIRECT, Worth.VITAL)
        ]
        await asyncio.sleep(0)
        for _ in range(2):
            limiter.leave("a", 0.01, True)
        began = time.monotonic()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        return order, [type(result) for result in results], time.monotonic() - began, limiter

    order, results, seconds, limiter = asyncio.run(work())
    assert order == [Worth.VITAL, Worth.VITAL]
    assert results == [Overloaded, type(None), Overloaded, type(None)]
    assert WAIT_SECONDS[Worth.DIRECT] / 2 <= seconds
    assert limiter.under_way == FIRST


@pytest.mark.parametrize("worth", list(Worth))
def test_a_client_that_goes_while_it_waits_leaves_no_place_taken(worth):
    async def work():
        limiter = Limiter()
        for _ in range(FIRST):
            await limiter.enter(Worth.VITAL)
        gone = asyncio.ensure_future(limiter.enter(worth))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        at_once = asyncio.ensure_future(limiter.enter(Worth.VITAL))
        await asyncio.sleep(0)
        limiter.leave("a", 0.01, True)
        at_once.cancel()  # after it was given the place
        await asyncio.wait([at_once])
        for _ in range(FIRST - 1):
            limiter.leave("a", 0.01, True)
        return limiter.under_way

    assert asyncio.run(work()) == 0


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


async def spell(limiter, clock, count, seconds, together):
    """Make calls that take so long, so many at a time."""
    for _ in range(count):
        entered = 0
        for _ in range(together):
            try:
                await asyncio.wait_for(limiter.enter(Worth.VITAL), 0.0001)
            except (TimeoutError, Overloaded):
                break
            entered += 1
        clock.now += seconds
        for _ in range(entered):
            limiter.leave("a", seconds, True)


def test_places_become_fewer_when_calls_are_late_and_more_when_they_are_quick_again():
    async def work():
        clock = Clock()
        limiter = Limiter(clock)
        await spell(limiter, clock, 5, 0.02, 2)
        await spell(limiter, clock, 20, 2.0, 80)
        low = limiter.limit
        await spell(limiter, clock, 300, 0.02, 300)
        return low, limiter.limit

    low, high = asyncio.run(work())
    assert low == LEAST
    assert FIRST < high <= MOST


def test_a_method_that_always_takes_long_is_not_taken_for_overload():
    async def work():
        clock = Clock()
        limiter = Limiter(clock)
        await spell(limiter, clock, 5, 3.0, 2)
        await spell(limiter, clock, 20, 3.0, 50)
        return limiter.limit

    assert asyncio.run(work()) >= FIRST
