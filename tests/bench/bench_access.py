"""Access decisions at 10,000 and 100,000 rules, 20,000 subjects, 10 departments, against pycasbin, oso and Cedar.

The peer is one plain pycasbin enforcer with the matching function of its role manager taken out: with it, the
first decision of each department alone takes a minute (it compares every pair of names). Identity is checked
twice: a sample against the enforcer that holds all rules, and all 100,000 requests against enforcers that hold
the rules of one object, action and department each, for the matcher demands r.obj == p.obj and the like; roles, purpose
and effect are theirs to tell. KEHU_BENCH_FULL=1 asks the whole enforcer all of them, which takes hours.
"""

from __future__ import annotations

import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import casbin
from casbin.model import FastModel

from services.chassis.access import MODEL, Caller, NamedCondition, PolicySnapshot, RowFilter
from services.chassis.access.conditions import Network

Row = dict[str, object]
Rule = tuple[str, ...]

RULES, SUBJECTS, DEPARTMENTS, REQUESTS = 10_000, 20_000, 10, 100_000
ROLES_PER_DEPARTMENT = 20
OBJECTS = 40
ACTIONS = ("read", "list", "create", "update", "delete")
PURPOSES = ("marketing", "service", "sales")
SAMPLE_SECONDS = 30.0
ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools" / "access-peers"
UV = ("sh", str(ROOT / "infra" / "bootstrap.sh"))
PEERS = ("oso==0.27.3", "cedarpy==4.12.2")


def make_policy(random_: random.Random, count: int = RULES) -> tuple[list[Rule], list[Rule]]:
    """Return rules and role links: roles within departments, some in roles, some denials, some wildcards."""
    rules: set[Rule] = set()
    while len(rules) < count:
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


def by_equality(rules: Sequence[Rule], links: Sequence[Rule], requests: Sequence[Rule]) -> list[bool]:
    """Return pycasbin's answers from enforcers that hold what is equal by the matcher, sharing one role graph."""
    shards: dict[Rule, list[Rule]] = defaultdict(list)
    for rule in rules:
        for department in [f"d{n}" for n in range(DEPARTMENTS + 1)] if rule[1] == "*" else [rule[1]]:
            for action in ACTIONS if rule[3] == "*" else [rule[3]]:
                shards[department, rule[2], action].append(rule)
    roles = enforcer(rules[:1], links).get_role_manager()
    made: dict[Rule, casbin.Enforcer] = {}
    answers = []
    for request in requests:
        key = request[1:4]
        if key not in made and shards[key]:
            made[key] = enforcer(shards[key], [])
            made[key].model["g"]["g"].rm = roles
        answers.append(key in made and made[key].enforce(*request))
    return answers


def cpu(
    snapshot: PolicySnapshot, requests: Sequence[Rule], purpose: str = "", address: str = "", rounds: int = 4
) -> float:
    """Return the µs of CPU per decision; the best round, for others use this machine too.

    Who calls is known before: a server makes its caller when it verifies the token.
    """
    asked = [
        (Caller(subject, "user", department, purpose or why.replace("none", ""), address=address), resource, action)
        for subject, department, resource, action, why in requests
    ]
    found = []
    for _ in range(rounds):
        started = time.process_time()
        for caller, resource, action in asked:
            snapshot.decide(caller, resource, action)
        found.append((time.process_time() - started) / len(requests) * 1e6)
    return min(found)


def fast_enforcer(rules: Sequence[Rule], links: Sequence[Rule]) -> casbin.FastEnforcer:
    """Return pycasbin's FastEnforcer, keyed by object: by two keys it would overlook rules with a wildcard."""
    model = FastModel([2])
    model.load_model_from_text(MODEL)
    made = casbin.FastEnforcer(model, cache_key_order=[2])
    made.get_role_manager().add_matching_func(None)
    for rule in rules:
        made.model["p"]["p"].policy.append(list(rule))
    made.model["g"]["g"].policy = [list(link) for link in links]
    made.build_role_links()
    return made


def peer(engine: str, file: Path, seconds: float) -> tuple[float, list[bool]]:
    """Return the µs of CPU per decision of a peer, and the answers it gave in so many seconds."""
    command = [str(environment(TOOLS, PEERS)), "tests/bench/access_peers.py", engine, str(file), str(seconds)]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return float(found["us"]), list(found["answers"])


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """Make an environment with these packages if it is not there, and return its Python."""
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if not stamp.exists() or stamp.read_text("utf-8") != "\n".join(packages):
        for command in (
            [*UV, "venv", "--quiet", "--clear", "--python", "3.11", str(folder)],
            [*UV, "pip", "install", "--quiet", "--python", str(python), *packages],
        ):
            subprocess.run(command, check=True, cwd=tempfile.gettempdir())
        stamp.write_text("\n".join(packages), "utf-8")
    return python


def run(short: bool) -> list[Row]:
    """Return the rows of the table."""
    logging.getLogger("casbin").disabled = True
    random_ = random.Random(20261121)
    rules, links = make_policy(random_)
    requests = make_requests(random_, 1000 if short else REQUESTS)
    snapshot = PolicySnapshot(1, MODEL, rules, links)
    first = cpu(snapshot, requests, rounds=1)
    ours, answers = cpu(snapshot, requests), [ask(snapshot, request) for request in requests]
    took, _ = timed(partial(ask, snapshot), requests)
    rows = [
        _figure("10,000 rules, 20,000 subjects, 10 departments", ours, 5.0, took),
        _beside("10,000 rules, nobody having asked before", first),
        *_larger(short),
    ]
    rows.append(_with_obligations(rules, links, requests))
    rows += _peers(rules, links, requests, answers, ours, short)
    changes = (20_000,) if short else (100, 1_000, 100_000)
    return [*rows, *_swaps(short), *(_publication(short, changed) for changed in changes)]


def _figure(what: str, us: float, reach: float, took: Sequence[float] = ()) -> Row:
    p99 = f" (p99 {statistics.quantiles(took, n=100)[98] * 1e3:.3f} ms by the clock)" if took else ""
    value = f"{us:.1f} µs of CPU{p99}"
    return {"figure": f"access decision, {what}", "value": value, "reach": f"≤ {reach:.0f} µs", "ok": us <= reach}


def _beside(what: str, us: float) -> Row:
    return {"figure": f"access decision, {what}", "value": f"{us:.1f} µs of CPU", "ok": None}


def _larger(short: bool) -> list[Row]:
    random_ = random.Random(100_000)
    rules, links = make_policy(random_, 20_000 if short else 100_000)
    snapshot = PolicySnapshot(1, MODEL, rules, links)
    requests = make_requests(random_, REQUESTS)
    first = cpu(snapshot, requests, rounds=1)
    return [
        _figure(f"{len(rules):,} rules", cpu(snapshot, requests), 10.0),
        _beside(f"{len(rules):,} rules, nobody having asked before", first),
    ]


def _with_obligations(rules: Sequence[Rule], links: Sequence[Rule], requests: Sequence[Rule]) -> Row:
    """Measure with conditions, row filters and field groups: every decision is asked for all of them."""
    inside = NamedCondition("inside", Network(("10.0.0.0/8",)))
    fields = [(f"role:d{d}-r{r}", f"d{d}", f"fields/personal/{group}", "show", "sales", "allow", "inside")
              for d in range(DEPARTMENTS) for r in range(ROLES_PER_DEPARTMENT)
              for group in ("name", "contact", "birth", "address")]  # fmt: skip
    gated = [(*rule, "inside") if number % 10 == 0 else rule for number, rule in enumerate(rules)]
    filters = [RowFilter(f"role:d{d}-r{r}", "*", f"o{o}", "owner_department", ("$department",))
               for d in range(DEPARTMENTS) for r in range(0, ROLES_PER_DEPARTMENT, 4)
               for o in range(OBJECTS)]  # fmt: skip
    snapshot = PolicySnapshot(1, MODEL, [*gated, *fields], links, filters, conditions=[inside])
    return _figure(
        "with conditions, row filters, field groups", cpu(snapshot, requests[:5000], "sales", "10.1.2.3"), 50.0
    )


def _peers(
    rules: Sequence[Rule], links: Sequence[Rule], requests: Sequence[Rule], answers: Sequence[bool], ours: float,
    short: bool,
) -> list[Row]:  # fmt: skip
    plain, fast = enforcer(rules, links), fast_enforcer(rules, links)
    for department in range(DEPARTMENTS):
        for one in (plain, fast):
            one.enforce("user:u0", f"d{department}", "o0", "read", "none")  # its role graphs are built lazily
    full = os.environ.get("KEHU_BENCH_FULL") == "1"
    budget = float("inf") if full else 8.0 if short else SAMPLE_SECONDS
    rows = []
    for name, asked, reach in (("pycasbin Enforcer", plain, 10_000), ("pycasbin FastEnforcer", fast, 50)):
        started = time.process_time()
        took, theirs = timed(lambda request, asked=asked: bool(asked.enforce(*request)), requests, budget)
        us = (time.process_time() - started) / len(took) * 1e6
        rows.append(_against(name, us, theirs, answers, ours, reach))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.json"
        file.write_text(json.dumps({"rules": rules, "links": links, "requests": requests}), "utf-8")
        for name, engine in (("oso 0.27.3", "oso"), ("Cedar (cedarpy 4.12.2)", "cedar")):
            rows.append(_against(name, *peer(engine, file, 8.0 if short else SAMPLE_SECONDS), answers, ours, 50))
    sharded = by_equality(rules, links, requests)
    differences = sum(a != b for a, b in zip(answers, sharded, strict=True))
    allowed = sum(answers) / len(answers)
    figure = "same answers as pycasbin, by object, action and department"
    value = f"{differences} differences of {len(requests):,}, {allowed:.0%} allowed"
    return [*rows, {"figure": figure, "value": value, "reach": "0", "ok": differences == 0}]


def _against(name: str, us: float, theirs: Sequence[bool], answers: Sequence[bool], ours: float, reach: int) -> Row:
    differences = sum(a != b for a, b in zip(theirs, answers, strict=False))
    return {
        "figure": "access decision, CPU",
        "value": f"{ours:.1f} µs; {differences} answers differ",
        "peer": f"{us:,.0f} µs, {name}, {len(theirs):,} requests",
        "ratio": f"{us / ours:,.0f}×",
        "reach": f"≥ {reach:,}×, 0 differ",
        "ok": us / ours >= reach and not differences,
    }


def _publication(short: bool, changed: int) -> Row:
    arguments = ("20000", "2", "2") if short else ("100000", "8", "8")
    command = [sys.executable, "-m", "tests.bench.access_publish", *arguments, str(changed)]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    figure = f"a policy of {int(arguments[0]):,} rules, {changed:,} of them others, published → in force in all"
    return {
        "figure": f"{figure} {arguments[1]} processes, p99",
        "value": f"{found['p99']:.2f} s",
        "peer": f"median {found['p50']:.2f} s, longest {found['longest']:.2f} s of {found['count']}; CPU "
        f"{found['cpu_access']:.2f} s in access, {found['cpu_process']:.3f} s in each process",
        "reach": "≤ 2 s",
        "ok": found["p99"] <= 2,
    }


def _swaps(short: bool) -> list[Row]:
    command = [sys.executable, "-m", "tests.bench.access_swap", *(("20000", "2") if short else ("100000", "10"))]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    longest, quiet = found["longest_ms"], found["quiet_ms"]
    ratio, other = (found[name] / found["snapshot"] for name in ("highest", "highest_other"))
    size, built = found["bytes"] / 2**20, found["built"]
    return [
        {
            "figure": f"a request's longest wait while a policy is swapped ({size:.1f} MiB, built in {built:.1f} s)",
            "value": f"{longest:.1f} ms",
            "peer": f"{quiet:.1f} ms with no swap; {found['stretch_ms']:.1f} ms of CPU without a pause at most",
            "reach": "≤ 20 ms",
            "ok": longest <= 20,
        },
        {
            "figure": "memory while two snapshots are there, the next with one rule in a hundred changed",
            "value": f"{found['highest'] / 2**20:.0f} MiB",
            "peer": f"{found['snapshot'] / 2**20:.0f} MiB, one; with every rule changed {other:.2f}×",
            "ratio": f"{ratio:.2f}×",
            "reach": "≤ 2×",
            "ok": ratio <= 2,
        },
    ]
