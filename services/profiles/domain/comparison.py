"""Compare two records field by field: each comparison reaches one of a few named levels."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from services.profiles.domain.nicknames import NONE, Callings, are_nicknames, callings_of
from services.profiles.domain.places import places_of
from services.profiles.domain.similarity import SILENT, Sounds, grams_of, is_alike, is_one_edit, sounds_of_name
from services.profiles.domain.values import Address, Document, PersonName, StandardRecord

MISSING = ""  # the level of a comparison that lacks a value on either side; it weighs nothing
EXACT = "exact"
SAME = "same"
OTHER = "other"

LEVELS: dict[str, tuple[str, ...]] = {
    "name": (EXACT, "swapped", "sound", "near", "edit", "initial", "nickname", "grams", "surname", OTHER),
    "phone": (SAME, "near", OTHER),
    "email": (SAME, "near", OTHER),
    "resident_id": (SAME, "document", OTHER),
    "birth_date": (SAME, "swapped", "near", "year", OTHER),
    "address": (
        "detail",
        "room",
        "building",
        "number",
        "street",
        "district",
        "city",
        "other_district",
        "province",
        OTHER,
    ),
    "gender": (SAME, OTHER),
}
NESTED = {"address": ("detail", "room", "building", "number", "street", "district", "city")}  # each lies in the next

_PLACES = ("room", "building", "number", "street")


@dataclass(frozen=True)
class Traits:
    """What of a record takes part in a comparison; phones and e-mails that many share are left out.

    What few pairs need, such as how a name sounds, is prepared once at the first question.
    """

    key: tuple[str, str]
    name: PersonName | None
    full_name: str
    phones: frozenset[str]
    implied_phones: frozenset[str]
    emails: frozenset[str]
    resident_id: str
    birth_date: str
    address: Address | None
    gender: str
    is_unique_in_source: bool
    papers: tuple[Document, ...] = ()
    birth_years: tuple[int, int] | None = None

    @cached_property
    def identifiers(self) -> frozenset[str]:
        """Return the phones and e-mails, and the phones that mailboxes are named after."""
        return self.phones | self.implied_phones | self.emails

    @cached_property
    def sounds(self) -> Sounds:
        """Return how the name may be read."""
        return sounds_of_name(self.name) if self.name else SILENT

    @cached_property
    def callings(self) -> Callings:
        """Return what the person may be called."""
        return callings_of(self.name) if self.name else NONE

    @cached_property
    def grams(self) -> tuple[str, ...]:
        """Return the pairs of neighbouring characters of the name."""
        return grams_of(self.full_name)

    @cached_property
    def documents(self) -> Mapping[str, frozenset[str]]:
        """Return the numbers of documents by kind."""
        return documents_of(self.papers)

    @cached_property
    def places(self) -> tuple[str, str, str, str]:
        """Return names for room, building, house number and street."""
        return places_of(self.address)


def traits_of(record: StandardRecord) -> Traits:
    """Return the record's traits."""
    name = record.name
    return Traits(
        record.key,
        name,
        name.full if name else "",
        frozenset([phone.number for phone in record.phones]),
        frozenset(implied_phones(record.emails)),
        frozenset(record.emails),
        record.resident_id,
        record.birth_date,
        record.address,
        record.gender,
        record.is_unique_in_source,
        record.documents,
        birth_years_of(record),
    )


def documents_of(papers: Iterable[Document]) -> dict[str, frozenset[str]]:
    """Return the numbers of a person's documents by kind, without what changes when one is issued anew."""
    found: dict[str, set[str]] = {}
    for item in papers:
        if item.kind != "credit_code":  # a company's
            number = item.number[:9] if item.kind == "hk_macao_permit" else item.number
            found.setdefault(item.kind, set()).add(number)
    return {kind: frozenset(numbers) for kind, numbers in found.items()}


def birth_years_of(record: StandardRecord) -> tuple[int, int] | None:
    """Return the first and last year in which the person may be born."""
    if record.birth_date:
        return int(record.birth_date[:4]), int(record.birth_date[:4])
    return record.birth_years


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


def named(name: PersonName, gender: str = "") -> Traits:
    """Return the traits of a record that has a name and perhaps a gender only."""
    none: frozenset[str] = frozenset()
    return Traits(("", ""), name, name.full, none, none, none, "", "", None, gender, is_unique_in_source=False)


def level_of_names(left: Traits, right: Traits) -> str:
    """Return the level of the names of two records alone."""
    a, b = left.name, right.name
    if a is None or b is None:
        return MISSING
    level = _complete_level(left, right) if a.is_complete and b.is_complete else _incomplete_level(left, right)
    if level not in ("surname", OTHER):
        return level
    if are_nicknames(left.callings, right.callings, same_surname=a.surname == b.surname):
        return "nickname"
    return "grams" if a.style == b.style and is_alike(left.grams, right.grams) else level


def _complete_level(left: Traits, right: Traits) -> str:
    a, b = left.name, right.name
    if a is None or b is None:
        return MISSING
    if left.full_name == right.full_name:
        return EXACT
    if a.style == b.style and left.full_name in _rotations(right.full_name):
        return "swapped"
    if not left.sounds.whole.isdisjoint(right.sounds.whole):
        return "sound"
    if not left.sounds.near.isdisjoint(right.sounds.near):
        return "near"
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
    return OTHER if shorter.sounds.surnames.isdisjoint(longer.sounds.words) else "initial"


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
    """Compare resident IDs; without both of them other documents of the same kind."""
    if left.resident_id and right.resident_id:
        return SAME if left.resident_id == right.resident_id else OTHER
    if not left.papers or not right.papers:
        return MISSING
    kinds = [kind for kind in left.documents if kind in right.documents]
    if any(not left.documents[kind].isdisjoint(right.documents[kind]) for kind in kinds):
        return "document"
    return OTHER if kinds else MISSING


def _birth_level(left: Traits, right: Traits) -> str:
    a, b = left.birth_date, right.birth_date
    if not a or not b:
        return OTHER if _are_years_apart(left.birth_years, right.birth_years) else MISSING
    if a == b:
        return SAME
    if a[:4] == b[:4] and a[5:7] == b[8:] and a[8:] == b[5:7]:
        return "swapped"
    if is_one_edit(a, b):
        return "near"
    return "year" if a[:4] == b[:4] else OTHER


def _are_years_apart(left: tuple[int, int] | None, right: tuple[int, int] | None) -> bool:
    """Say whether years of birth exclude each other; ages are often a year off."""
    return left is not None and right is not None and (left[0] > right[1] + 1 or right[0] > left[1] + 1)


def _address_level(left: Traits, right: Traits) -> str:
    a, b = left.address, right.address
    if a is None or b is None or not (a.province_code and b.province_code):
        return MISSING
    if a.detail and a.detail == b.detail and a.city_code == b.city_code:
        return "detail"
    for level, one, other in zip(_PLACES, left.places, right.places, strict=True):
        if one and one == other:
            return level
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
    level_of_names,
    _phone_level,
    lambda left, right: _identifier_level(left.emails, right.emails),
    _resident_id_level,
    _birth_level,
    _address_level,
    _gender_level,
)
