"""Compare two records field by field: each comparison reaches one of a few named levels."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from services.profiles.domain.similarity import is_one_edit, sounds_of_name
from services.profiles.domain.values import Address, PersonName, StandardRecord

MISSING = ""  # the level of a comparison that lacks a value on either side; it weighs nothing
EXACT = "exact"
SAME = "same"
OTHER = "other"

LEVELS: dict[str, tuple[str, ...]] = {
    "name": (EXACT, "swapped", "sound", "edit", "initial", "surname", OTHER),
    "phone": (SAME, "near", OTHER),
    "email": (SAME, "near", OTHER),
    "resident_id": (SAME, OTHER),
    "birth_date": (SAME, "swapped", "near", "year", OTHER),
    "address": ("detail", "district", "city", "other_district", "province", OTHER),
    "gender": (SAME, OTHER),
}


@dataclass(frozen=True, slots=True)
class Traits:
    """What of a record takes part in a comparison, prepared once; phones and e-mails that many share are left out."""

    key: tuple[str, str]
    name: PersonName | None
    full_name: str
    sounds: tuple[str, str]
    phones: frozenset[str]
    implied_phones: frozenset[str]
    emails: frozenset[str]
    resident_id: str
    birth_date: str
    address: Address | None
    gender: str
    is_unique_in_source: bool


def traits_of(record: StandardRecord) -> Traits:
    """Return the record's traits."""
    name = record.name
    return Traits(
        record.key,
        name,
        name.full if name else "",
        sounds_of_name(name) if name else ("", ""),
        frozenset(phone.number for phone in record.phones),
        frozenset(implied_phones(record.emails)),
        frozenset(record.emails),
        record.resident_id,
        record.birth_date,
        record.address,
        record.gender,
        record.is_unique_in_source,
    )


def implied_phones(emails: Iterable[str]) -> Iterator[str]:
    """Yield the mobiles that Chinese mailboxes are named after: 13912345670@… belongs to who has that number."""
    for email in emails:
        local = email.partition("@")[0]
        if len(local) == 11 and local[0] == "1" and local.isdigit():
            yield f"+86{local}"


def without_identifiers(traits: Traits, shared: frozenset[str]) -> Traits:
    """Return the traits without phones and e-mails that too many people share."""
    if not shared or shared.isdisjoint((*traits.phones, *traits.emails, *traits.implied_phones)):
        return traits
    return replace(
        traits,
        phones=traits.phones - shared,
        implied_phones=traits.implied_phones - shared,
        emails=traits.emails - shared,
    )


def levels_of(left: Traits, right: Traits) -> tuple[str, ...]:
    """Return the level of each comparison in the order of LEVELS; MISSING where a value is unknown."""
    return tuple(compare(left, right) for compare in _COMPARISONS)


def _name_level(left: Traits, right: Traits) -> str:
    a, b = left.name, right.name
    if a is None or b is None:
        return MISSING
    if not (a.is_complete and b.is_complete):
        return _incomplete_level(left, right)
    if left.full_name == right.full_name:
        return EXACT
    if a.style == b.style and left.full_name in _rotations(right.full_name):
        return "swapped"
    if not _sound_orders(left).isdisjoint(_sound_orders(right)):
        return "sound"
    if min(len(left.full_name), len(right.full_name)) > 2 and is_one_edit(left.full_name, right.full_name):
        return "edit"
    if a.surname == b.surname and len(left.full_name) != len(right.full_name):
        return "edit" if a.given.startswith(b.given) or b.given.startswith(a.given) else "surname"
    return "surname" if a.surname == b.surname else OTHER


def _incomplete_level(left: Traits, right: Traits) -> str:
    """Return "initial" when the one word of an incomplete name is the other's surname or given name."""
    a, b = left.name, right.name
    if a is None or b is None:
        return MISSING
    if not (a.surname and b.surname):
        return OTHER
    if a.surname == b.surname:
        return "initial"
    shorter, longer = (left, right) if a.is_complete < b.is_complete else (right, left)
    return "initial" if shorter.sounds[0] in longer.sounds else OTHER


def _sound_orders(traits: Traits) -> set[str]:
    surname, given = traits.sounds
    return {surname + given, given + surname}


def _rotations(text: str) -> tuple[str, ...]:
    """Return the text with its first one or two characters moved to the end, or its last ones to the front."""
    return text[1:] + text[:1], text[2:] + text[:2], text[-1:] + text[:-1], text[-2:] + text[:-2]


def _identifier_level(left: frozenset[str], right: frozenset[str]) -> str:
    if not left or not right:
        return MISSING
    if left & right:
        return SAME
    return "near" if any(is_one_edit(a, b) for a in left for b in right) else OTHER


def _phone_level(left: Traits, right: Traits) -> str:
    """Compare phones; a mailbox named after the other's number counts as knowing it."""
    if not left.phones.isdisjoint(right.implied_phones) or not right.phones.isdisjoint(left.implied_phones):
        return SAME
    return _identifier_level(left.phones, right.phones)


def _resident_id_level(left: Traits, right: Traits) -> str:
    if not left.resident_id or not right.resident_id:
        return MISSING
    return SAME if left.resident_id == right.resident_id else OTHER


def _birth_level(left: Traits, right: Traits) -> str:
    a, b = left.birth_date, right.birth_date
    if not a or not b:
        return MISSING
    if a == b:
        return SAME
    if a[:4] == b[:4] and a[5:7] == b[8:] and a[8:] == b[5:7]:
        return "swapped"
    if is_one_edit(a, b):
        return "near"
    return "year" if a[:4] == b[:4] else OTHER


def _address_level(left: Traits, right: Traits) -> str:
    a, b = left.address, right.address
    if a is None or b is None or not (a.province_code and b.province_code):
        return MISSING
    if a.detail and a.detail == b.detail and a.city_code == b.city_code:
        return "detail"
    if a.district_code and a.district_code == b.district_code:
        return "district"
    if a.city_code and a.city_code == b.city_code:
        return "other_district" if a.district_code and b.district_code else "city"
    return "province" if a.province_code == b.province_code else OTHER


def _gender_level(left: Traits, right: Traits) -> str:
    if not left.gender or not right.gender:
        return MISSING
    return SAME if left.gender == right.gender else OTHER


_COMPARISONS: tuple[Callable[[Traits, Traits], str], ...] = (
    _name_level,
    _phone_level,
    lambda left, right: _identifier_level(left.emails, right.emails),
    _resident_id_level,
    _birth_level,
    _address_level,
    _gender_level,
)
