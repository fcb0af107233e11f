"""The terms under which a record is found; the index holds each of them as a keyed token only.

A term is a kind and a value. The kind goes into the token's key, so equal values of different kinds do not meet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.search.domain import words

LONGEST_PREFIX = 16  # characters of a pinyin spelling or a Latin word that can be typed before it must be whole
MAX_TERMS = 5000  # per field of a record; a description of 10,000 characters yields about 4,000
_DIVISIONS = re.compile("[省市区县州盟旗]|自治")
_TICKET_NUMBER = re.compile(r"t(\d{8})-?(\d{6,})")


class Term(NamedTuple):
    """One thing a record can be found by."""

    kind: str
    value: str


Keyed = Callable[[str, str], str]
Terms = Mapping[str, Sequence[Term]]


@dataclass(frozen=True, slots=True)
class ProfileText:
    """The identifiers of a profile, as its golden record has them."""

    names: tuple[str, ...]
    phones: tuple[str, ...]
    emails: tuple[str, ...]
    resident_id: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class TicketText:
    """The words of a ticket."""

    number: str
    subject: str
    description: str


def profile_terms(text: ProfileText) -> dict[str, list[Term]]:
    """Return the terms of a profile by field: name, contact, document, address."""
    return {
        "name": _limited(term for name in text.names for term in name_terms(name)),
        "contact": _limited(
            [term for phone in text.phones for term in phone_terms(phone)]
            + [Term("email", words.normalized(email).strip()) for email in text.emails if email]
        ),
        "document": _limited(resident_id_terms(text.resident_id)),
        "address": _limited(address_terms(text.address)),
    }


def ticket_terms(text: TicketText) -> dict[str, list[Term]]:
    """Return the terms of a ticket by field: number, content."""
    return {
        "number": _limited(number_terms(text.number)),
        "content": _limited(content_terms(f"{text.subject}\n{text.description}")),
    }


def _limited(terms: Iterable[Term]) -> list[Term]:
    return list(dict.fromkeys(term for term in terms if term.value))[:MAX_TERMS]


def sealed(terms: Terms, keyed: Keyed) -> dict[str, tuple[str, ...]]:
    """Return each field's terms as keyed tokens."""
    return {field: tuple(keyed(kind, value) for kind, value in found) for field, found in terms.items() if found}


def name_terms(name: str) -> Iterator[Term]:
    """Yield whole name, characters, pairs, pinyin and initials of a Chinese name; prefixes of Latin words."""
    plain = words.without_title(words.normalized(name).strip())
    parts = words.runs(plain)
    han = "".join(part for part in parts if words.is_han(part))
    if han:
        yield Term("name", han)
        yield from (Term("name_part", part) for part in parts if len(parts) > 1 and words.is_han(part))
        yield from (Term("name_1", character) for character in han)
        yield from (Term("name_2", pair) for pair in pairs(han))
        yield from _pinyin_terms(han)
    for part in parts:
        if not words.is_han(part):
            yield Term("name_word", part)
            yield from (Term("name_prefix", prefix) for prefix in prefixes(part, 1))


def pairs(run: str) -> list[str]:
    """Return each two characters that stand together."""
    return [run[place : place + 2] for place in range(len(run) - 1)]


def prefixes(word: str, shortest: int) -> list[str]:
    """Return the beginnings of a word from `shortest` to 16 characters."""
    return [word[:length] for length in range(shortest, min(len(word), LONGEST_PREFIX) + 1)]


def _pinyin_terms(han: str) -> Iterator[Term]:
    """Yield spellings and initials, for the whole name and without its first one or two characters."""
    for syllables in words.readings(han[:8]):
        yield Term("pinyin_whole", "".join(syllables))
        for start in range(min(len(syllables), 3)):
            yield from (Term("pinyin", prefix) for prefix in prefixes("".join(syllables[start:]), 1))
        initials = "".join(syllable[0] for syllable in syllables)
        yield from (Term("initials", prefix) for prefix in prefixes(initials, 2))


def phone_digits(phone: str) -> str:
    """Return the digits of a number as it is dialled within China: without +86, 0086 and the trunk 0."""
    digits = re.sub(r"\D", "", words.normalized(phone))
    for prefix in ("0086", "86"):
        if digits.startswith(prefix) and len(digits) - len(prefix) >= 10:
            digits = digits.removeprefix(prefix)
    return digits.removeprefix("0")


def phone_terms(phone: str) -> Iterator[Term]:
    """Yield the whole number and its last four and eight digits."""
    digits = phone_digits(phone)
    yield Term("phone", digits)
    if len(digits) > 8:
        yield Term("phone_last_8", digits[-8:])
    if len(digits) > 4:
        yield Term("phone_last_4", digits[-4:])


def resident_id_terms(number: str) -> Iterator[Term]:
    """Yield the whole resident id and its last eight and four characters."""
    plain = words.normalized(number).strip()
    if len(plain) == 18:
        yield Term("resident_id", plain)
        yield Term("resident_id_last_8", plain[-8:])
        yield Term("resident_id_last_4", plain[-4:])


def address_terms(address: str) -> Iterator[Term]:
    """Yield pairs of characters, with and without 省, 市, 区, 县 and the like between them, and numbers.

    北京朝阳 thereby finds 北京市朝阳区; no dictionary of words is needed for an address.
    """
    for part in words.runs(words.normalized(address)):
        if words.is_han(part):
            yield from (Term("address_2", pair) for pair in pairs(part))
            yield from (Term("address_2", pair) for pair in pairs(_DIVISIONS.sub("", part)))
        else:
            yield Term("address_word", part)


def number_terms(number: str) -> Iterator[Term]:
    """Yield the ticket number without its hyphen, and its counter without zeros before it."""
    found = _TICKET_NUMBER.fullmatch(words.normalized(number).strip())
    if found:
        yield Term("number", found[1] + found[2])
        yield Term("number_day", found[1])
        yield Term("number_counter", found[2].lstrip("0"))


def content_terms(text: str) -> Iterator[Term]:
    """Yield words, single characters and pairs of Chinese text; words of others and their beginnings."""
    for run in words.runs(words.normalized(text)):
        if words.is_han(run):
            yield from (Term("text_word", word) for word in words.cut(run))
            yield from (Term("text_1", character) for character in run)
            yield from (Term("text_2", pair) for pair in pairs(run))
        else:
            yield Term("text_word", run)
            yield from (Term("text_prefix", prefix) for prefix in prefixes(run, 2))
