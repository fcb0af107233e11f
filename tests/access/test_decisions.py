"""The default policy against tables that a lawyer can read; what a table does not list is denied."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from services.access.defaults import default_content
from services.access.domain.checks import faults
from services.access.domain.tables import PolicyTest, Table, links_of, read_table, run_tests
from services.access.domain.vocabulary import DEPARTMENTS, PURPOSES, Inventory
from services.access.inventory import descriptors_path, read_inventory
from services.chassis.access import Caller, PolicySnapshot
from services.chassis.access.stepping import UNATTENDED

TABLES = sorted((Path(__file__).parent / "decisions").glob("*.yaml"))


def load(path: Path) -> Table:
    return read_table(path.read_text(encoding="utf-8"))


@cache
def inventory() -> Inventory:
    return read_inventory(descriptors_path())


def policy(table: Table) -> PolicySnapshot:
    content = default_content()
    return PolicySnapshot(1, content.model, content.rules, [("user:x", table.who, table.department)])


def rows(table: Table) -> list[tuple[str, str, bool]]:
    """Return every resource and action of the protos with what the table says of it."""
    found = []
    for resource, actions in sorted(inventory().actions.items()):
        listed = table.allow.get(resource, ())
        found += [(resource, action, action in listed or "*" in listed) for action in sorted(actions)]
    return found


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_role_may_do_what_its_table_lists_and_nothing_else(path: Path) -> None:
    table = load(path)
    caller = Caller("user:x", "user", table.department, table.purpose)
    snapshot = policy(table)

    wrong = [row for row in rows(table) if snapshot.decide(caller, row[0], row[1]).allowed is not row[2]]

    assert not wrong


def test_the_tables_hold_four_hundred_rows_and_name_only_what_exists() -> None:
    tables = [load(path) for path in TABLES]

    assert sum(len(rows(table)) for table in tables) >= 400
    for table in tables:
        for resource, actions in table.allow.items():
            assert resource in inventory().actions, (table.who, resource)
            assert {"*"} == set(actions) or set(actions) <= inventory().actions[resource], (table.who, resource)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_role_means_nothing_in_another_department(path: Path) -> None:
    table = load(path)
    snapshot = policy(table)
    for department in (*DEPARTMENTS, "elsewhere"):
        caller = Caller("user:x", "user", department, table.purpose)
        allowed = [row for row in rows(table) if snapshot.decide(caller, row[0], row[1]).allowed]
        assert bool(allowed) is (department == table.department)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_fields_are_shown_masked_or_hidden_as_listed_for_the_roles_purpose_only(path: Path) -> None:
    table = load(path)
    snapshot = policy(table)
    for purpose in (*PURPOSES, "", "none", "anything"):
        obligations = snapshot.obligations(Caller("user:x", "user", table.department, purpose))
        right = purpose == table.purpose
        assert obligations.shown == (set(table.shown) if right else set()), purpose
        assert obligations.masked == (set(table.masked) if right else set()), purpose
        assert obligations.searchable == (set(table.searchable) if right else set()), purpose
        assert obligations.revealable == (set(table.revealable) if right else set()), purpose


def test_a_stranger_may_do_nothing() -> None:
    content = default_content()
    snapshot = PolicySnapshot(1, content.model, content.rules, [])
    for department in DEPARTMENTS:
        for resource, actions in inventory().actions.items():
            for action in actions:
                caller = Caller("user:nobody", "user", department, "administration")
                assert not snapshot.decide(caller, resource, action).allowed


def test_the_default_policy_has_no_fault() -> None:
    links = [("user:root", "role:administrator", "administration")]

    assert faults(default_content(), inventory(), links, [("user:root", "administration")]) == []


def test_every_resource_of_the_protos_is_reachable_by_some_role() -> None:
    named = {rule[2] for rule in default_content().rules}
    attended = {resource for resource in inventory().actions if not resource.startswith(UNATTENDED)}

    assert attended <= named


def test_the_same_tables_pass_as_the_tests_of_a_policy_with_four_hundred_rows() -> None:
    content, tests = default_content(), [PolicyTest(path.stem, path.read_text(encoding="utf-8")) for path in TABLES]
    snapshot = PolicySnapshot(1, content.model, content.rules, links_of(tests), content.row_filters)

    report = run_tests(tests, snapshot, inventory())

    assert report.failures == ()
    assert report.rows >= 400
