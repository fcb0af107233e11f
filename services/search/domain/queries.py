"""What a query may match: typed clauses made of the same terms as the documents, never a query language.

Every part of the text between spaces must match, by one of its alternatives; an alternative whose field group
the caller may not search by is left out, and a part without alternatives matches nothing. Of a group that
the caller does not read in full only whole values match: parts would spell out, search by search, what a mask hides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.search.domain import words
from services.search.domain.terms import Keyed, Term, number_terms, pairs, phone_digits

MAX_PARTS = 20  # parts of a query that are looked at; each costs a clause
GROUPS = {
    "name": ("personal", "name"),
    "contact": ("personal", "contact"),
    "document": ("sensitive", "document"),
    "address": ("personal", "address"),
    "content": ("personal", "content"),
    "number": ("internal", ""),
}
_DIGIT_GAPS = re.compile(r"(?<=\d)[ \-\u2010-\u2015]+(?=\d)")
_PHONE = re.compile(r"(?:\+|00)?\d{7,17}")
_RESIDENT_ID = re.compile(r"\d{17}[\dx]")

WHOLE = frozenset(("number", "resident_id", "phone", "email", "name"))

MaySearch = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way for a part to match: all the terms in this field; a heavier one ranks higher."""

    field: str
    terms: tuple[Term, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class Match:
    """An alternative as the engine sees it: keyed tokens that must all be in the field."""

    field: str
    tokens: tuple[str, ...]
    weight: float


Clause = tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The clauses of a query, all of which must match, and the field groups that were left out."""

    clauses: tuple[Clause, ...]
    left_out: tuple[str, ...]


def parts_of(text: str) -> list[str]:
    """Return the normalized parts of a query; digits in groups, such as 138 1234 8000, are one part."""
    joined = _DIGIT_GAPS.sub("", words.normalized(text))
    return joined.split()[:MAX_PARTS]


def alternatives(part: str, with_words: bool = True) -> list[list[Alternative]]:
    """Return the pieces of a part, each with its alternatives: one piece, or one per run of a script.

    Without `with_words` Chinese text is not cut into words, which spares loading the dictionary.
    """
    if "@" in part and not part.startswith("@"):
        return [[Alternative("contact", (Term("email", part),), 9.0)]]
    whole = [*_number(part), *_document(part), *_phone(part)]
    pieces = words.runs(part)
    if whole:
        if part.isdigit():
            whole += _letters_or_digits(part)
        return [whole]
    return [list(_of_run(run, with_words)) for run in pieces]


def _number(part: str) -> Iterator[Alternative]:
    found = dict(number_terms(part))
    if "number" in found:
        yield Alternative("number", (Term("number", found["number"]),), 10.0)
    elif re.fullmatch(r"t\d{8}", part):
        yield Alternative("number", (Term("number_day", part[1:]),), 4.0)
    elif part.isdigit() and len(part) <= 8:
        yield Alternative("number", (Term("number_counter", part.lstrip("0")),), 2.0)


def _document(part: str) -> Iterator[Alternative]:
    if _RESIDENT_ID.fullmatch(part):
        yield Alternative("document", (Term("resident_id", part),), 9.0)
    elif re.fullmatch(r"\d{7}[\dx]", part):
        yield Alternative("document", (Term("resident_id_last_8", part),), 4.0)
    elif re.fullmatch(r"\d{3}[\dx]", part):
        yield Alternative("document", (Term("resident_id_last_4", part),), 3.0)


def _phone(part: str) -> Iterator[Alternative]:
    if _PHONE.fullmatch(part):
        yield Alternative("contact", (Term("phone", phone_digits(part)),), 9.0)
    if part.isdigit() and len(part) in (4, 8):
        yield Alternative("contact", (Term(f"phone_last_{len(part)}", part),), 5.0)


def _of_run(run: str, with_words: bool) -> Iterator[Alternative]:
    if words.is_han(run):
        yield from _of_han(run, with_words)
    else:
        yield from _letters_or_digits(run)


def _of_han(run: str, with_words: bool) -> Iterator[Alternative]:
    if len(run) == 1:
        yield Alternative("name", (Term("name_1", run),), 2.0)
        yield Alternative("content", (Term("text_1", run),), 1.0)
        return
    name = words.without_title(run)
    yield Alternative("name", (Term("name", name),), 8.0)
    yield Alternative("name", (Term("name_part", name),), 6.0)
    if len(name) > 1:
        yield Alternative("name", tuple(Term("name_2", pair) for pair in pairs(name)), 5.0)
    else:
        yield Alternative("name", (Term("name_1", name),), 2.0)
    yield Alternative("content", tuple(Term("text_2", pair) for pair in pairs(run)), 3.0)
    yield Alternative("address", tuple(Term("address_2", pair) for pair in pairs(run)), 2.0)
    found = tuple(dict.fromkeys(Term("text_word", word) for word in words.cut(run))) if with_words else ()
    if found:
        yield Alternative("content", found, 2.0)


def _letters_or_digits(run: str) -> Iterator[Alternative]:
    if not run.isdigit():
        yield Alternative("name", (Term("name_word", run),), 8.0)
        yield Alternative("name", (Term("pinyin_whole", run),), 6.0)
        yield Alternative("name", (Term("name_prefix", run),), 4.0)
        yield Alternative("name", (Term("pinyin", run),), 4.0)
        yield Alternative("name", (Term("initials", run),), 3.0)
    yield Alternative("content", (Term("text_word", run),), 3.0)
    yield Alternative("address", (Term("address_word", run),), 1.0)
    if len(run) > 1:
        yield Alternative("content", (Term("text_prefix", run),), 2.0)


def plan(text: str, may_search: MaySearch, shows: MaySearch, keyed: Keyed) -> Plan:
    """Return what the engine is to match for this caller, who reads in full what `shows` says."""
    clauses: list[Clause] = []
    left_out: set[str] = set()
    with_words = may_search(*GROUPS["content"])
    for part in parts_of(text):
        for piece in alternatives(part, with_words):
            matches = []
            for choice in piece:
                classification, group = GROUPS[choice.field]
                is_whole = all(kind in WHOLE for kind, _ in choice.terms)
                if may_search(classification, group) and (is_whole or shows(classification, group)):
                    tokens = tuple(keyed(kind, value) for kind, value in choice.terms)
                    matches.append(Match(choice.field, tokens, choice.weight))
                else:
                    left_out.add(f"{classification}/{group}")
            clauses.append(tuple(matches))
    if text.strip() and not clauses:
        clauses.append(())
    return Plan(tuple(clauses), tuple(sorted(left_out)))
