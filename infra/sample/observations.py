"""What each source knows of each person: which fields, how stale, how wrong; then formatted as its columns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from random import Random

from pypinyin import lazy_pinyin

from infra.sample import noise
from infra.sample.people import Person

LATEST = datetime(2026, 10, 31, 20, 0, 0)  # the sources were exported on the evening before the reference date


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a source's file; `broken` names why it should be set apart, or is empty."""

    source_id: str
    source_record_id: str
    person_id: str
    columns: Mapping[str, str]
    broken: str = ""


@dataclass(frozen=True, slots=True)
class SourceHabits:
    """How often a source knows a field and how often it gets it wrong; all are chances of 0 to 1."""

    knows_phone: float
    knows_email: float
    knows_birth: float
    knows_resident_id: float
    knows_address: float
    stale: float
    mistyped_name: float
    mistyped_phone: float
    traditional: float
    date_formats: tuple[str, ...]
    swapped_name: float = 0.0
    latin_name: float = 0.0
    surname_only: float = 0.0
    titles: float = 0.0


TILL = SourceHabits(
    0.95, 0.0, 0.74, 0.30, 0.80, 0.07, 0.045, 0.008, 0.03, ("%Y-%m-%d", "%Y%m%d", "slash", "chinese", "short")
)
SHOP = SourceHabits(0.95, 0.88, 0.66, 0.0, 0.86, 0.06, 0.02, 0.004, 0.03, ("%Y-%m-%d",), 0.025, 0.03)
CALLS = SourceHabits(
    0.93, 0.42, 0.55, 0.32, 0.68, 0.06, 0.05, 0.012, 0.02, ("day first", "day first", "chinese", "%Y-%m-%d"),
    surname_only=0.02, titles=0.45,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sight:
    """A person as one source sees them, before formatting; empty means not known."""

    name: str
    phone: str = ""
    email: str = ""
    birth: str = ""
    resident_id: str = ""
    place: tuple[str, str, str] = ("", "", "")
    street: str = ""
    updated: datetime = LATEST
    extra: Mapping[str, str] = field(default_factory=dict)


def look(person: Person, habits: SourceHabits, random: Random, latest: datetime = LATEST) -> Sight:
    """Return what a source with these habits has written down of a person until then."""
    knows = random.random
    is_stale = knows() < habits.stale
    old_phone, old_address = random.choices(((True, False), (False, True), (True, True)), (35, 50, 15))[0]
    phone = person.old_phone if is_stale and old_phone else person.phone
    old_home = is_stale and old_address
    division, street = (person.old_place, person.old_street) if old_home else (person.place, person.street)
    if knows() < habits.mistyped_phone:
        phone = noise.mistype_digits(phone, random)
    phone = noise.write_phone(phone, random) if knows() < habits.knows_phone else ""
    if phone and knows() < 0.012:
        phone = random.choice(noise.BLOCKED_PHONES)
    place = noise.write_place(division, random) if knows() < habits.knows_address else ("", "", "")
    resident_id = _write_resident_id(person, random) if knows() < habits.knows_resident_id else ""
    birth = _write_birth(person.birth_date, habits, random) if knows() < habits.knows_birth else ""
    if not (phone or birth or resident_id or any(place)):
        phone = person.phone
    days_ago = random.randrange(900, 1500) if is_stale else random.randrange(0, 700)
    return Sight(
        _write_name(person, habits, random),
        phone,
        person.email if knows() < habits.knows_email else "",
        birth,
        resident_id,
        place,
        street if any(place) and knows() < 0.9 else "",
        latest - timedelta(days=days_ago, seconds=random.randrange(40_000)),
    )


def _write_resident_id(person: Person, random: Random) -> str:
    """Return the number, one time in fifty mistyped, one in twenty in the form of before 1999."""
    number = person.resident_id
    if random.random() < 0.02:
        number = noise.mistype_digits(number[:17], random) + number[17]
    if number[6:8] == "19" and random.random() < 0.05:
        return number[:6] + number[8:17]
    return number


def _write_birth(day: date, habits: SourceHabits, random: Random) -> str:
    chance = random.random()
    if chance < 0.01:
        return random.choice(("1900-01-01", "1970-01-01"))
    if chance < 0.02:
        return f"农历{day.month}月初{random.choice('一二三四五六七八九')}"
    if chance < 0.035 and day.day <= 12:
        day = date(day.year, day.day, day.month)
    elif chance < 0.05:
        day = day + timedelta(days=random.choice((-10, -1, 1, 10, 365)))
    return noise.write_date(day, [random.choice(habits.date_formats)])


def _write_name(person: Person, habits: SourceHabits, random: Random) -> str:
    name, chance = person.name, random.random()
    is_han = "·" not in name
    if is_han and chance < habits.surname_only:
        return person.surname + _title(person, random)
    if random.random() < habits.mistyped_name and is_han:
        name = noise.mistype_name(name, random)
    if is_han and random.random() < habits.swapped_name:
        name = person.given + person.surname
    elif is_han and random.random() < habits.latin_name:
        sounds = "".join(lazy_pinyin(person.given)).capitalize()
        return f"{''.join(lazy_pinyin(person.surname)).capitalize()} {sounds}"
    if random.random() < habits.traditional:
        name = noise.to_traditional(name)
    if random.random() < 0.03 and is_han:
        name = f"{name[:1]}\u3000{name[1:]}"
    return name + (_title(person, random) if is_han and random.random() < habits.titles else "")


def _title(person: Person, random: Random) -> str:
    polite = "先生" if person.gender == "male" else "女士"
    return random.choices((polite, "老师", "总", "小姐" if person.gender == "female" else "先生"), (80, 7, 5, 8))[0]


def till_columns(card: str, person: Person, sight: Sight, random: Random) -> dict[str, str]:
    """Return the till's columns; its address is one text."""
    gender = {"male": "男", "female": "女"}[person.gender]
    address = "".join(sight.place) + sight.street
    return {
        "会员卡号": card,
        "姓名": sight.name,
        "性别": random.choices((gender, "", "未知"), (80, 15, 5))[0],
        "手机号": sight.phone,
        "出生日期": sight.birth,
        "身份证号": sight.resident_id,
        "住址": noise.to_traditional(address) if random.random() < 0.03 else address,
        "更新时间": sight.updated.strftime("%Y-%m-%d %H:%M:%S"),
    }


def shop_columns(user: str, person: Person, sight: Sight, random: Random) -> dict[str, str]:
    """Return the shop's fields; birth dates are ISO, genders letters, addresses in levels."""
    gender = {"male": "M", "female": "F"}[person.gender]
    columns = {
        "user_id": user,
        "real_name": sight.name,
        "gender": random.choices((gender, "0"), (70, 30))[0],
        "mobile": sight.phone,
        "email": sight.email.upper() if random.random() < 0.04 else sight.email,
        "birthday": sight.birth,
        "province": sight.place[0],
        "city": sight.place[1],
        "district": sight.place[2],
        "address": sight.street,
        "updated_at": sight.updated.strftime("%Y-%m-%dT%H:%M:%S+08:00"),
    }
    return {key: value for key, value in columns.items() if value}


def call_columns(number: str, person: Person, sight: Sight, random: Random) -> dict[str, str]:
    """Return the call centre's columns; a cell may hold two phones."""
    phone = sight.phone
    if phone and random.random() < 0.1:
        phone = random.choice(
            (f"{phone}、{person.landline}", f"{person.landline} / {phone}", f"{phone};{person.landline}")
        )
    elif random.random() < 0.02:
        phone = f"{person.landline}转{random.randrange(100, 999)}"
    return {
        "客户编号": number,
        "客户名称": sight.name,
        "联系电话": phone,
        "电子邮箱": sight.email,
        "证件号码": sight.resident_id,
        "出生日期": sight.birth,
        "联系地址": " ".join(part for part in (*sight.place, sight.street) if part),
        "最后联系时间": sight.updated.strftime("%Y/%m/%d %H:%M"),
    }


_FORMATTERS = {"till": till_columns, "shop": shop_columns, "callcentre": call_columns}
_HABITS = {"till": TILL, "shop": SHOP, "callcentre": CALLS}
_PREFIX = {"till": "K", "shop": "U", "callcentre": "C"}


def observe(person: Person, source_id: str, serial: int, random: Random, latest: datetime = LATEST) -> Row:
    """Return one row of a source for a person, changed at `latest` or before."""
    sight = look(person, _HABITS[source_id], random, latest)
    record_id = f"{_PREFIX[source_id]}{serial:06d}"
    columns = _FORMATTERS[source_id](record_id, person, sight, random)
    return Row(source_id, record_id, person.person_id, columns)


def stale_copy(row: Row, person: Person, random: Random) -> Row:
    """Return an older version of a row, with the old phone and an earlier time of change."""
    columns = dict(row.columns)
    key = {"till": "手机号", "shop": "mobile", "callcentre": "联系电话"}[row.source_id]
    stamp = {"till": "更新时间", "shop": "updated_at", "callcentre": "最后联系时间"}[row.source_id]
    columns[key] = person.old_phone
    columns[stamp] = columns[stamp].replace(columns[stamp][:4], str(random.randrange(2019, 2022)), 1)
    return replace(row, columns=columns)


def broken_copies(rows: list[Row], random: Random) -> Iterator[Row]:
    """Yield rows spoilt beyond use: rounded phones, impossible dates, nothing that identifies."""
    for row in rows:
        columns = dict(row.columns)
        phone = {"till": "手机号", "shop": "mobile", "callcentre": "联系电话"}[row.source_id]
        birth = {"till": "出生日期", "shop": "birthday", "callcentre": "出生日期"}[row.source_id]
        kind = random.choice(("PHONE_DIGITS_LOST", "DATE_IMPOSSIBLE", "IDENTIFIER_MISSING"))
        if kind == "PHONE_DIGITS_LOST":
            columns[phone] = f"1.{random.randrange(30, 99)}E+10"
        elif kind == "DATE_IMPOSSIBLE":
            columns[birth] = f"19{random.randrange(50, 99)}-{random.choice(('02-30', '13-05', '04-31', '00-12'))}"
        else:
            keep = {
                "会员卡号",
                "user_id",
                "客户编号",
                "姓名",
                "real_name",
                "客户名称",
                "更新时间",
                "updated_at",
                "最后联系时间",
            }
            columns = {key: value if key in keep else "" for key, value in columns.items()}
        yield replace(row, columns=columns, broken=kind)
