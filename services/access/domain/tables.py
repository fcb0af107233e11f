"""Policy tests: tables in YAML that a lawyer can read; what a table does not list is denied.

A table says of one role (or one subject), in one department, for one purpose: which actions of which resources are
allowed, which field groups are shown, masked, searchable and revealable. The form is that of Cerbos's test suites,
by role.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import yaml

from services.access.domain.vocabulary import Inventory
from services.chassis.access import Caller, PolicySnapshot
from services.chassis.errors import FieldViolation

TABLES = 200
TABLE_CHARACTERS = 20_000
FAILURES_SHOWN = 100
GROUPS = ("shown", "masked", "searchable", "revealable")
FORM = "role or subject, department, purpose, allow, shown, masked, searchable, revealable"


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """A table as it was written; `name` tells it from the others of the policy."""

    name: str
    table: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is read; `who` is a role or a subject, an action `*` is every action of the resource."""

    who: str
    department: str
    purpose: str
    allow: Mapping[str, tuple[str, ...]]
    shown: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    searchable: frozenset[str] = frozenset()
    revealable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Failure:
    """One row that the policy answers otherwise than the table says."""

    test: str
    row: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class TableReport:
    """What running a policy's tables found."""

    tables: int
    rows: int
    failures: tuple[Failure, ...]


class TableFault(ValueError):
    """A table is not of the form; the text says what to do."""


class _Loader(yaml.SafeLoader):
    """Plain YAML: no aliases, by which a small text grows without bound, and no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:  # type: ignore[override]
        if self.check_event(yaml.AliasEvent):
            raise TableFault("write it without aliases (& and *name)")
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:  # type: ignore[override]
        found: dict[object, object] = super().construct_mapping(node, deep)  # type: ignore[assignment]
        if len(found) != len(node.value):
            raise TableFault("write each key once")
        return found


def read_table(text: str) -> Table:
    """Return the table that a text says.

    Raises:
        TableFault: it is no YAML, or says other things than a table; its content is not repeated.
    """
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise TableFault(f"write it as YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise TableFault(f"write a table with {FORM}")
    who = [raw.pop(name) for name in ("role", "subject") if name in raw]
    known = {field.name for field in fields(Table)} - {"who"}
    if len(who) != 1 or not set(raw) <= known or "department" not in raw:
        raise TableFault(f"give it {FORM}, of these one of role and subject and the department at least")
    texts = [who[0], raw["department"], raw.get("purpose") or ""]
    if not all(isinstance(text, str) for text in texts):
        raise TableFault("write role, subject, department and purpose as words")
    groups = {name: frozenset(_words(raw.get(name), name)) for name in GROUPS}
    return Table(texts[0], texts[1], texts[2], _allow(raw.get("allow") or {}), **groups)


def _allow(raw: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise TableFault("write allow as resources with lists of actions")
    return {resource: _words(actions, f"allow.{resource}") for resource, actions in raw.items()}


def _words(raw: object, name: str) -> tuple[str, ...]:
    found = raw if raw is not None else []
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise TableFault(f"write {name} as a list of words")
    return tuple(found)


def table_faults(tests: Sequence[PolicyTest], inventory: Inventory) -> list[FieldViolation]:
    """Return what is wrong with the tables themselves: their form, and names of what does not exist."""
    found, names = [], [test.name for test in tests]
    for position, test in enumerate(tests):
        place = f"tests[{position}]"
        if names.index(test.name) != position:
            found.append(FieldViolation(f"{place}.name", "give each test a name of its own"))
        try:
            found += [FieldViolation(f"{place}.table", text) for text in _unknown(read_table(test.table), inventory)]
        except TableFault as fault:
            found.append(FieldViolation(f"{place}.table", str(fault)))
    return found


def _unknown(table: Table, inventory: Inventory) -> Iterator[str]:
    for resource, actions in table.allow.items():
        offered = inventory.actions.get(resource)
        if offered is None:
            yield f"allow names {resource[:100]!r}, which no RPC has"
        elif not set(actions) <= {*offered, "*"}:
            yield f"allow.{resource} may name {', '.join(sorted(offered))} or *"
    if not table.shown | table.masked | table.searchable | table.revealable <= inventory.groups:
        yield "shown, masked, searchable and revealable name field groups such as personal/contact"


def links_of(tests: Sequence[PolicyTest]) -> list[tuple[str, str, str]]:
    """Return the role links by which somebody holds each table's role; nobody who signs in has such a name."""
    tables = enumerate(read_table(test.table) for test in tests)
    return [(_asker(n, table), table.who, table.department) for n, table in tables if table.who.startswith("role:")]


def _asker(position: int, table: Table) -> str:
    return f"test:{position}" if table.who.startswith("role:") else table.who


def run_tests(tests: Sequence[PolicyTest], snapshot: PolicySnapshot, inventory: Inventory) -> TableReport:
    """Ask the policy every row of every table; `snapshot` holds the links of `links_of`."""
    rows, failures = 0, []
    for position, test in enumerate(tests):
        table = read_table(test.table)
        caller = Caller(_asker(position, table), "user", table.department, table.purpose)
        for row, expected, found in _rows(table, caller, snapshot, inventory):
            rows += 1
            if expected != found:
                failures.append(Failure(test.name, row, expected, found))
    return TableReport(len(tests), rows, tuple(failures))


def _rows(
    table: Table, caller: Caller, snapshot: PolicySnapshot, inventory: Inventory
) -> Iterator[tuple[str, str, str]]:
    """Yield every row that the protos offer: what it is, what the table says, what the policy says."""
    words = ("denied", "allowed")
    for resource, actions in sorted(inventory.actions.items()):
        listed = table.allow.get(resource, ())
        for action in sorted(actions):
            expected = action in listed or "*" in listed
            found = snapshot.decide(caller, resource, action).allowed
            yield f"{resource} {action}", words[expected], words[found]
    obligations = snapshot.obligations(caller)
    for group in sorted(inventory.groups):
        row = f"fields/{group}"
        yield row, _seen(group, table.shown, table.masked), _seen(group, obligations.shown, obligations.masked)
        yield f"{row} search", words[group in table.searchable], words[group in obligations.searchable]
        yield f"{row} reveal", words[group in table.revealable], words[group in obligations.revealable]


def _seen(group: str, shown: frozenset[str], masked: frozenset[str]) -> str:
    return "shown" if group in shown else "masked" if group in masked else "hidden"


def failure_violations(report: TableReport) -> list[FieldViolation]:
    """Return failures as violations, 100 at most."""
    return [
        FieldViolation(f"tests.{f.test}", f"{f.row} is {f.expected} by its table and {f.found} by the rules")
        for f in report.failures[:FAILURES_SHOWN]
    ]
