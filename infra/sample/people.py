"""The true persons behind the households: who they are before any source writes them down."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from random import Random

from pypinyin import lazy_pinyin
from stdnum.cn.ric import calc_check_digit

from infra.sample import vocabulary
from services.profiles.domain.divisions import Division, division_table, level_of

REFERENCE_YEAR = 2026
AGE_BANDS = {
    "19-24": (19, 24), "25-34": (25, 34), "35-44": (35, 44), "45-54": (45, 54), "55-64": (55, 64), "65+": (65, 82),
}  # fmt: skip
_UNKNOWN_AGE = ((25, 34, 25), (35, 44, 30), (45, 54, 25), (55, 64, 12), (65, 80, 8))


@dataclass(frozen=True, slots=True)
class Person:
    """One true person; `old_phone` and `old_address` are what stale rows still hold."""

    person_id: str
    household_id: int
    surname: str
    given: str
    gender: str
    birth_date: date
    resident_id: str
    phone: str
    old_phone: str
    landline: str
    email: str
    place: Division
    street: str
    old_place: Division
    old_street: str

    @property
    def name(self) -> str:
        """Return the name in simplified characters; minority names have the own name first and a dot."""
        return f"{self.given}·{self.surname}" if len(self.surname) > 2 else self.surname + self.given


@dataclass(frozen=True, slots=True)
class Household:
    """What the demographics table knows of a household; empty strings where it knows nothing."""

    household_id: int
    age: str = ""
    composition: str = ""


def make_people(households: Iterable[Household], seed: int) -> list[Person]:
    """Return one person for each household and, for some households of two adults, a second one."""
    people: list[Person] = []
    for household in households:
        random = Random(f"{seed}/person/{household.household_id}")
        first = _make_person(household, "a", random, random.choice(("male", "female")))
        people.append(first)
        second_chance = {"2 Adults No Kids": 0.32, "2 Adults Kids": 0.32, "": 0.08}.get(household.composition, 0.0)
        if random.random() < second_chance:
            people.append(_make_relative(first, household, random))
    return people


def _make_person(household: Household, suffix: str, random: Random, gender: str) -> Person:
    birth_date = _birth_date(household.age, random)
    surname, given = _name(gender, birth_date.year, random)
    place, old_place = _place(random), _place(random)
    phone = _mobile(random)
    return Person(
        f"H{household.household_id:04d}{suffix}", household.household_id, surname, given, gender, birth_date,
        _resident_id(birth_date, gender, place, random), phone, _mobile(random), _landline(place, random),
        _email(surname, given, birth_date, phone, random), place, _street(random), old_place, _street(random),
    )  # fmt: skip


def _make_relative(first: Person, household: Household, random: Random) -> Person:
    """Return a spouse (other gender, other surname) or, one time in five, a brother or sister of a like name."""
    is_sibling = random.random() < 0.2
    gender = first.gender if is_sibling else {"male": "female", "female": "male"}[first.gender]
    other = _make_person(household, "b", random, gender)
    surname, given = other.surname, other.given
    if is_sibling and len(first.given) == 2 and len(first.surname) <= 2:
        surname, given = (
            first.surname,
            first.given[0] + random.choice("军民林英兰平海涛红玲芳杰".replace(first.given[1], "")),
        )
    phone = first.phone if random.random() < 0.45 else other.phone
    email = first.email if random.random() < 0.15 else _email(surname, given, other.birth_date, phone, random)
    return Person(
        other.person_id, other.household_id, surname, given, gender, other.birth_date, other.resident_id, phone,
        other.old_phone, first.landline, email, first.place, first.street, first.old_place, first.old_street,
    )  # fmt: skip


def _birth_date(age_band: str, random: Random) -> date:
    low, high = (
        AGE_BANDS.get(age_band)
        or random.choices([band[:2] for band in _UNKNOWN_AGE], [band[2] for band in _UNKNOWN_AGE])[0]
    )
    start = date(REFERENCE_YEAR - high, 1, 1)
    days = (date(REFERENCE_YEAR - low, 10, 31) - start).days
    found = start + timedelta(days=random.randrange(days))
    return date(1970, 1, 2) if found == date(1970, 1, 1) else found  # a system's default, never a birthday


def _name(gender: str, year: int, random: Random) -> tuple[str, str]:
    chance = random.random()
    if chance < 0.008:
        return random.choice(vocabulary.MINORITY_FAMILY), random.choice(vocabulary.MINORITY_GIVEN)
    surname = _surname(random) if chance > 0.02 else random.choice(vocabulary.COMPOUND_SURNAMES)
    males, females = next(item[1:] for item in vocabulary.GENERATIONS if year < item[0])
    names = (males if gender == "male" else females).split()
    weights = [1.0 / (rank + 6) for rank in range(len(names))]
    if random.random() < 0.25:  # a less common name: two characters of the generation's names
        letters = "".join(names)
        return surname, random.choice(letters) + random.choice(letters)
    return surname, random.choices(names, weights)[0]


def _surname(random: Random) -> str:
    shares = vocabulary.SURNAME_SHARES
    if random.randrange(1000) < sum(shares.values()):
        return random.choices(list(shares), list(shares.values()))[0]
    return random.choice(vocabulary.RARE_SURNAMES)


def _place(random: Random) -> Division:
    city = random.choices([item[0] for item in vocabulary.CITIES], [item[1] for item in vocabulary.CITIES])[0]
    return random.choice(_counties()[city])


@lru_cache(maxsize=1)
def _counties() -> Mapping[str, tuple[Division, ...]]:
    table = division_table()
    prefixes = {code: code[:2] if code[:2] in ("11", "31", "50") else code[:4] for code, _ in vocabulary.CITIES}
    return {
        city: tuple(
            item for code, item in sorted(table.by_code.items()) if code.startswith(prefix) and level_of(code) == 6
        )
        for city, prefix in prefixes.items()
    }


def _resident_id(birth_date: date, gender: str, place: Division, random: Random) -> str:
    sequence = random.randrange(100) * 10 + random.randrange(0, 10, 2) + (gender == "male")
    body = f"{place.code}{birth_date:%Y%m%d}{sequence:03d}"
    return body + calc_check_digit(body + "0")


def _mobile(random: Random) -> str:
    return random.choice(vocabulary.MOBILE_PREFIXES) + f"{random.randrange(2_000_000, 99_000_000):08d}"


def _landline(place: Division, random: Random) -> str:
    area = {"11": "010", "31": "021", "50": "023", "44": "020", "42": "027", "51": "028", "61": "029"}.get(
        place.code[:2]
    )
    return f"{area or '025'}-{random.randrange(5, 9)}{random.randrange(1_000_000, 9_999_999)}"


def _email(surname: str, given: str, birth_date: date, phone: str, random: Random) -> str:
    domains = dict(vocabulary.MAIL_DOMAINS)
    domain = random.choices(list(domains), list(domains.values()))[0]
    sounds = "".join(lazy_pinyin(surname + given))
    forms = (
        str(random.randrange(10_000_000, 3_000_000_000)),
        f"{sounds}{birth_date:%y%m}",
        f"{sounds}{random.randrange(999)}",
        phone,
        f"{sounds[0]}.{''.join(lazy_pinyin(given))}{random.randrange(99)}",
    )
    return f"{random.choice(forms)}@{domain}"


def _street(random: Random) -> str:
    road = f"{random.choice(vocabulary.STREETS)}{random.randrange(1, 400)}号"
    flat = f"{random.randrange(1, 20)}栋{random.randrange(1, 31)}{random.randrange(1, 5):02d}室"
    return road + (random.choice(vocabulary.ESTATES) if random.random() < 0.5 else "") + flat
