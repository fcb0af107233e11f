"""Access decisions at 10,000 rules, 20,000 subjects, 10 departments, against pycasbin on the same rules.

The peer is one plain pycasbin enforcer with the matching function of its role manager taken out: with it, the
first decision of each department alone takes a minute (it compares every pair of names). Identity is checked
twice: a sample against the enforcer that holds all rules, and all 20,000 requests against enforcers that hold
the rules of one object each, for the matcher demands r.obj == p.obj. KEHU_BENCH_FULL=1 asks the whole enforcer
all 20,000, which takes more than an hour.
"""

from __future__ import annotations

import logging
import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import casbin

from services.chassis.access import MODEL, Caller, PolicySnapshot

Row = dict[str, object]
Rule = tuple[str, ...]

RULES, SUBJECTS, DEPARTMENTS, REQUESTS = 10_000, 20_000, 10, 20_000
ROLES_PER_DEPARTMENT = 20
OBJECTS = 40
ACTIONS = ("read", "list", "create", "update", "delete")
PURPOSES = ("marketing", "service", "sales")
P99_REACH_MS, SPEED_REACH = 0.1, 1000
SAMPLE_SECONDS = 150.0


def make_policy(random_: random.Random) -> tuple[list[Rule], list[Rule]]:
    """Return rules and role links: roles within departments, some in roles, some denials, some wildcards."""
    rules: set[Rule] = set()
    while len(rules) < RULES:
        department = random_.randrange(DEPARTMENTS)
        role = f"role:d{department}-r{random_.randrange(ROLES_PER_DEPARTMENT)}"
        where = "*" if random_.random() < 0.05 else f"d{department}"
        action = "*" if random_.random() < 0.1 else random_.choice(ACTIONS)
        purpose = "*" if random_.random() < 0.7 else random_.choice(PURPOSES)
        effect = "deny" if random_.random() < 0.05 else "allow"
        rules.add((role, where, f"o{random_.randrange(OBJECTS)}", action, purpose, effect))
    links: list[Rule] = []
    for department in range(DEPARTMENTS):
        names = [f"role:d{department}-r{n}" for n in range(ROLES_PER_DEPARTMENT)]
        links += [(names[n], names[n + 1], f"d{department}") for n in range(0, ROLES_PER_DEPARTMENT - 1, 4)]
    for number in range(SUBJECTS):
        department = number % DEPARTMENTS
        role = f"role:d{department}-r{random_.randrange(ROLES_PER_DEPARTMENT)}"
        links.append((f"user:u{number}", role, f"d{department}"))
    return sorted(rules), links


def make_requests(random_: random.Random, count: int) -> list[Rule]:
    """Return requests: most by known subjects in their department, some by strangers or elsewhere."""
    found = []
    for _ in range(count):
        number = random_.randrange(SUBJECTS + SUBJECTS // 20)
        elsewhere = random_.random() < 0.05
        department = random_.randrange(DEPARTMENTS + 1) if elsewhere else number % DEPARTMENTS
        purpose = random_.choice((*PURPOSES, "none"))
        resource = f"o{random_.randrange(OBJECTS)}"
        found.append((f"user:u{number}", f"d{department}", resource, random_.choice(ACTIONS), purpose))
    return found


class _Rows(casbin.persist.Adapter):
    def __init__(self, rules: Sequence[Rule], links: Sequence[Rule]) -> None:
        self._rules, self._links = rules, links

    def load_policy(self, model: casbin.Model) -> None:
        model["p"]["p"].policy = [list(rule) for rule in self._rules]
        model["g"]["g"].policy = [list(link) for link in self._links]


def enforcer(rules: Sequence[Rule], links: Sequence[Rule]) -> casbin.Enforcer:
    """Return a pycasbin enforcer as the library makes it, but for the matching function."""
    made = casbin.Enforcer(casbin.Enforcer.new_model(text=MODEL))
    made.get_role_manager().add_matching_func(None)
    made.set_adapter(_Rows(rules, links))
    made.load_policy()
    return made


def ask(snapshot: PolicySnapshot, request: Rule) -> bool:
    """Decide as a server does: caller, resource, action."""
    subject, department, resource, action, purpose = request
    caller = Caller(subject, "user", department, "" if purpose == "none" else purpose)
    return snapshot.decide(caller, resource, action).allowed


def timed(
    decide: Callable[[Rule], bool], requests: Sequence[Rule], budget: float = float("inf")
) -> tuple[list[float], list[bool]]:
    """Return the seconds and the answer of each request, of as many as fit in `budget` seconds."""
    seconds: list[float] = []
    answers: list[bool] = []
    began = time.perf_counter()
    for request in requests:
        started = time.perf_counter()
        answer = decide(request)
        seconds.append(time.perf_counter() - started)
        answers.append(answer)
        if time.perf_counter() - began > budget:
            break
    return seconds, answers


def by_object(rules: Sequence[Rule], links: Sequence[Rule], requests: Sequence[Rule]) -> list[bool]:
    """Return pycasbin's answers from enforcers that hold the rules of one object, sharing one role graph."""
    shards: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        shards[rule[2]].append(rule)
    roles = enforcer(rules[:1], links).get_role_manager()
    made: dict[str, casbin.Enforcer] = {}
    answers = []
    for request in requests:
        name = request[2]
        if name not in made:
            made[name] = enforcer(shards[name], [])
            made[name].model["g"]["g"].rm = roles
        answers.append(bool(shards[name]) and made[name].enforce(*request))
    return answers


def run(short: bool) -> list[Row]:
    """Return the rows of the table."""
    logging.getLogger("casbin").disabled = True
    random_ = random.Random(20261121)
    rules, links = make_policy(random_)
    requests = make_requests(random_, 1000 if short else REQUESTS)
    started = time.perf_counter()
    snapshot = PolicySnapshot(1, MODEL, rules, links)
    build_seconds = time.perf_counter() - started
    timed(lambda request: ask(snapshot, request), requests)  # warm, as a server is
    ours, answers = timed(lambda request: ask(snapshot, request), requests)

    plain = enforcer(rules, links)
    for department in range(DEPARTMENTS):
        plain.enforce("user:u0", f"d{department}", "o0", "read", "none")  # its role graphs are built lazily
    full = os.environ.get("KEHU_BENCH_FULL") == "1"
    budget = float("inf") if full else 8.0 if short else SAMPLE_SECONDS
    theirs, sample = timed(lambda request: plain.enforce(*request), requests, budget)
    sharded = by_object(rules, links, requests)
    differences = sum(a != b for a, b in zip(answers, sharded, strict=True))
    differences += sum(a != b for a, b in zip(answers, sample, strict=False))
    return _rows(ours, theirs, differences, len(requests), sum(answers), build_seconds)


def _rows(
    ours: list[float], theirs: list[float], differences: int, asked: int, allowed: int, build_seconds: float
) -> list[Row]:
    p99 = statistics.quantiles(ours, n=100)[98] * 1000
    mean, plain_mean = statistics.mean(ours), statistics.mean(theirs)
    speed = plain_mean / mean
    return [
        {
            "figure": f"access decision p99 ({RULES:,} rules, {SUBJECTS:,} subjects, {DEPARTMENTS} departments)",
            "value": f"{p99:.4f} ms (median {statistics.median(ours) * 1e6:.1f} µs, built in {build_seconds:.2f} s)",
            "peer": "",
            "ratio": "",
            "reach": f"≤ {P99_REACH_MS} ms",
            "ok": p99 <= P99_REACH_MS,
        },
        {
            "figure": "access decision, mean",
            "value": f"{mean * 1e6:.1f} µs",
            "peer": f"{plain_mean * 1e3:.0f} ms, plain pycasbin, {len(theirs)} requests",
            "ratio": f"{speed:,.0f}×",
            "reach": f"≥ {SPEED_REACH:,}×",
            "ok": speed >= SPEED_REACH,
        },
        {
            "figure": "same answers as pycasbin",
            "value": f"{differences} differences",
            "peer": f"{asked:,} requests by object, {len(theirs):,} whole; {allowed / asked:.0%} allowed",
            "ratio": "",
            "reach": "0",
            "ok": differences == 0,
        },
    ]
