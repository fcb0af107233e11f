"""Filters and rows: which values of which fields a hit must have, and who may ask for that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from services.chassis.access import Clause, Condition, Either, Except
from services.chassis.errors import Denied, FieldViolation, Invalid

TYPES = ("profiles", "tickets")
FILTER_FIELDS: Mapping[str, tuple[str, str]] = {
    "province_code": ("personal", "address"),
    "city_code": ("personal", "address"),
    "department": ("internal", ""),
    "tier": ("internal", ""),
    "kind": ("internal", ""),
    "status": ("internal", ""),
    "status_category": ("internal", ""),
    "priority": ("internal", ""),
    "profile_id": ("internal", ""),
}
TYPE_GROUPS = {"tickets": ("personal", "content")}  # who sees nothing of a ticket's words sees no ticket
FACET_FIELDS = ("type", "province_code", "city_code", "department", "tier", "kind", "status_category", "priority")
ROW_FIELDS = {"owner_department": "department", "profile": "profile_id", "ticket_id": "id", "type": "type"}
_TERM = re.compile(r'\s*(?P<field>[a-z_]+)\s*=\s*(?:\((?P<many>[^()]*)\)|(?P<one>"[^"]*"|[^\s()"]+))\s*(?P<and>AND\b)?')
_VALUE = re.compile(r'"[^"]*"|[^\s()"]+')

Filters = Mapping[str, frozenset[str]]


class FilterInvalid(Invalid):
    """The filter cannot be read."""

    reason = "FILTER_INVALID"


class FilterDenied(Denied):
    """The filter asks for a field that the caller does not see."""

    reason = "FILTER_DENIED"


class TypeUnknown(Invalid):
    """There is no such type in the index."""

    reason = "TYPE_UNKNOWN"


@dataclass(frozen=True, slots=True)
class RowRule:
    """A field must have one of these values, whatever the caller asks for."""

    field: str
    values: frozenset[str]


def parse_filter(text: str) -> dict[str, frozenset[str]]:
    """Return the wanted values by field of `a=b AND c=(d OR e)`; a field named twice must satisfy both.

    Raises:
        FilterInvalid: with the position of what cannot be read.
    """
    wanted: dict[str, frozenset[str]] = {}
    position = 0
    while text[position:].strip():
        found = _TERM.match(text, position)
        if found is None or found["field"] not in FILTER_FIELDS:
            raise _invalid(position)
        values = _values(found["many"], position) if found["one"] is None else {found["one"].strip('"')}
        known = wanted.get(found["field"])
        wanted[found["field"]] = frozenset(values) if known is None else known & frozenset(values)
        position = found.end()
        if bool(found["and"]) != bool(text[position:].strip()):
            raise _invalid(position)
    return wanted


def _values(many: str, position: int) -> set[str]:
    tokens = _VALUE.findall(many)
    if len(tokens) % 2 == 0 or any(token != "OR" for token in tokens[1::2]):
        raise _invalid(position)
    return {token.strip('"') for token in tokens[::2]}


def _invalid(position: int) -> FilterInvalid:
    text = "write field=value or field=(a OR b), joined by AND; fields: " + ", ".join(FILTER_FIELDS)
    metadata = {"position": str(position)}
    return FilterInvalid("the filter cannot be read", metadata=metadata, violations=[FieldViolation("filter", text)])


def check_filter(wanted: Iterable[str], seen: Mapping[tuple[str, str], bool]) -> None:
    """Refuse a filter on a field the caller does not see at least masked: counts would tell what is hidden.

    Raises:
        FilterDenied: naming the field.
    """
    for field in wanted:
        if not _sees(field, seen):
            text = f"you may not filter by {field} for this purpose"
            raise FilterDenied(text, metadata={"field": field})


def visible_facets(seen: Mapping[tuple[str, str], bool]) -> tuple[str, ...]:
    """Return the facets whose values the caller sees at least masked."""
    return tuple(field for field in FACET_FIELDS if _sees(field, seen))


def _sees(field: str, seen: Mapping[tuple[str, str], bool]) -> bool:
    classification, group = FILTER_FIELDS.get(field, ("internal", ""))
    return classification == "internal" or seen.get((classification, group), False)


def check_types(types: Iterable[str]) -> frozenset[str]:
    """Return the types to search, all when none is named.

    Raises:
        TypeUnknown: naming the first that is not there.
    """
    wanted = frozenset(types)
    for unknown in sorted(wanted - set(TYPES)):
        violation = FieldViolation("types", "use " + " or ".join(TYPES))
        raise TypeUnknown("there is no such type", metadata={"type": unknown[:32]}, violations=[violation])
    return wanted or frozenset(TYPES)


def visible_types(types: frozenset[str], seen: Mapping[tuple[str, str], bool]) -> frozenset[str]:
    """Return the types of which the caller sees more than that something is there."""
    return frozenset(each for each in types if each not in TYPE_GROUPS or seen.get(TYPE_GROUPS[each], False))


def with_rows(wanted: Filters, types: frozenset[str], rows: Iterable[RowRule]) -> dict[str, frozenset[str]]:
    """Return the filter narrowed to the caller's rows; a rule on a field the index has not lets nothing through."""
    narrowed = dict(wanted)
    narrowed["type"] = narrowed.get("type", types) & types
    for rule in rows:
        field = ROW_FIELDS.get(rule.field, rule.field)
        if field not in FILTER_FIELDS and field not in ("type", "id"):
            narrowed["type"] = frozenset()
            continue
        known, values = narrowed.get(field), rule.values
        if rule.field == "ticket_id":
            values = frozenset(f"tickets/{id}" for id in values)
        narrowed[field] = values if known is None else known & values
    return narrowed


def plain_rows(clauses: Iterable[Clause]) -> list[RowRule]:
    """Return the rules that hold of documents of every type."""
    return [
        RowRule(each.field, frozenset(each.values))
        for each in clauses
        if isinstance(each, Condition) and each.resource not in TYPES
    ]


def rows_of(clauses: Iterable[Clause]) -> tuple[tuple[Filters, ...], ...]:
    """Return for each other clause of a row filter the filters of which a document must satisfy one.

    A clause about profiles or tickets lets documents of other types through. What the index cannot tell, a field it
    has not or what a document lacks, lets nothing through.
    """
    others = (each for each in clauses if not isinstance(each, Condition) or each.resource in TYPES)
    return tuple(tuple(_choices(each)) for each in others)


def _choices(clause: Clause) -> Iterator[Filters]:
    if clause.resource in TYPES:
        yield {"type": frozenset(TYPES) - {clause.resource}}
    if isinstance(clause, Except):
        return
    alternatives = clause.alternatives if isinstance(clause, Either) else ((clause,),)
    own = frozenset({clause.resource} if clause.resource in TYPES else TYPES)
    for alternative in alternatives:
        narrowed = with_rows({}, own, [RowRule(each.field, frozenset(each.values)) for each in alternative])
        if all(narrowed.values()):
            yield narrowed
