"""A policy change simulated: 10,000 recorded decisions and every method for 1,000 people (issue 5 §7).

The worst case is measured too: 1,000 people each with a rule of their own, so that nobody is like another.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from services.access.defaults import ROLES, default_content
from services.access.domain.policies import Content, Row, whatever_purpose
from services.access.domain.simulation import Asked, Report, compare
from services.access.domain.vocabulary import PURPOSES
from services.access.inventory import descriptors_path, read_inventory
from services.chassis.access import PolicySnapshot

DECISIONS, PEOPLE, REACH_SECONDS = 10_000, 1_000, 30.0


def make_people(random_: random.Random, count: int) -> tuple[list[tuple[str, str]], list[Row]]:
    """Return people with departments, and the links to their roles."""
    people, links = [], []
    for number in range(count):
        role, department, _ = random_.choice(ROLES)
        people.append((f"user:u{number}", department))
        links.append((f"user:u{number}", role, department))
    return people, links


def make_decisions(random_: random.Random, people: Sequence[tuple[str, str]], count: int) -> list[Asked]:
    """Return requests of these people: any method, any purpose."""
    actions = read_inventory(descriptors_path()).actions
    methods = [(resource, action) for resource in sorted(actions) for action in sorted(actions[resource])]
    found = []
    for _ in range(count):
        subject, department = random_.choice(people)
        resource, action = random_.choice(methods)
        found.append(Asked(subject, department, random_.choice(PURPOSES), resource, action, True))
    return found


def changed(random_: random.Random, content: Content) -> Content:
    """Return a policy with a tenth of its rules gone and some denials more."""
    kept = [rule for rule in content.rules if random_.random() > 0.1]
    denials = [(*random_.choice(content.rules)[:3], "read", "*", "deny") for _ in range(5)]
    return Content(tuple(dict.fromkeys((*kept, *denials))), content.links, content.row_filters, content.model)


def measure(content: Content, other: Content, named: frozenset[str], size: int) -> tuple[float, Report]:
    """Return the seconds of CPU a comparison takes, compiling included, and its report."""
    random_ = random.Random(20261122)
    people, links = make_people(random_, size)
    decisions = make_decisions(random_, people, DECISIONS)
    inventory = read_inventory(descriptors_path())
    began = time.process_time()  # of this process: the machine may be shared
    sides = [PolicySnapshot(1, c.model, c.rules, links, c.row_filters) for c in (content, other)]
    whatever = whatever_purpose(inventory.actions, content, other)
    report = compare(*sides, decisions, people, inventory, PURPOSES, named, whatever)
    return time.process_time() - began, report


def run(short: bool) -> list[dict[str, object]]:
    """Return the rows of the table."""
    size = 100 if short else PEOPLE
    content = default_content()
    other = changed(random.Random(7), content)
    usual, report = measure(content, other, frozenset(), size)
    everybody = frozenset(f"user:u{number}" for number in range(size))
    worst, alone = measure(content, other, everybody, size)
    same = report.changes == alone.changes and len(report.changes) > 0
    asked = f"{DECISIONS:,} decisions, {size:,} people × {report.methods} methods × {len(PURPOSES) + 1} purposes"
    reach = f"≤ {REACH_SECONDS:.0f} s"
    return [
        {
            "figure": f"simulate: {asked}",
            "value": f"{usual:.2f} s of CPU",
            "reach": reach,
            "ok": usual <= REACH_SECONDS,
        },
        {
            "figure": "simulate, nobody like another",
            "value": f"{worst:.1f} s of CPU, the same {len(report.changes)} changes: {same}",
            "reach": reach,
            "ok": worst <= REACH_SECONDS and same,
        },
    ]
