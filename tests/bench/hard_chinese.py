"""Chinese customers written down by an error model that shares nothing with the sample's.

The people are of the sample's kind of households, of other seeds. Their errors are of other sorts: shapes and fuzzy
sounds taken for one another (wubi; zh/z, n/l, ing/in), Cantonese spellings, forms of address, birthdays by the lunar
calendar or moved to New Year's Day, telephone numbers that were given up and belong to somebody else now, numbers of a
spouse or of a shop, missing parts of addresses, resident IDs with a slip. Every share was set before anything was
measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from random import Random

import numpy as np
from pypinyin import lazy_pinyin

from infra.sample.journey import demographics_of_households
from infra.sample.people import Person, make_people
from services.profiles.domain.divisions import city_code_of, division_table
from services.profiles.domain.sources import ColumnMapping, SourceSettings
from services.profiles.domain.standardize import standardize
from services.profiles.domain.values import Cluster, RawRecord, StandardRecord
from tests.bench.table_people import pair_quality

RECORDS = (0.35, 0.3, 0.2, 0.1, 0.05)  # of the people have one to five records
KNOWN = {"phone": 0.92, "email": 0.4, "birth_date": 0.6, "resident_id": 0.2, "address": 0.75, "gender": 0.5}
SHAPE, FUZZY, CANTONESE, ADDRESSED, SHORTENED = 0.015, 0.02, 0.01, 0.03, 0.01
OLD_PHONE, PHONE_OF_SPOUSE, PHONE_OF_SHOP, PHONE_SLIP = 0.05, 0.02, 0.005, 0.01
LUNAR, NEW_YEAR, YEAR_OLDER = 0.03, 0.02, 0.02
ID_SLIP, OLD_HOME = 0.01, 0.07
_SHAPES = tuple(
    [
        "末未",
        "己已",
        "日曰",
        "士土",
        "人入",
        "刀力",
        "王玉",
        "木本",
        "大太",
        "天夫",
        "田由",
        "今令",
        "志忐",
        "辛幸",
        "冶治",
        "佳桂",
        "洁浩",
        "晓烧",
        "萍莎",
        "鹏朋",
        "娟捐",
        "莉荊",
        "琳淋",
        "涛寿",
        "伟纬",
    ]
)
_FUZZY = tuple(
    [
        "林玲灵",
        "英音",
        "宁林",
        "兰南",
        "新星",
        "珍贞征",
        "春村",
        "昌仓",
        "斌冰",
        "金京",
        "琴晴",
        "民明",
        "陈程",
        "成辰",
        "山三",
        "志字",
        "莲年",
        "刘牛",
        "丽妮",
    ]
)
_CANTONESE = dict(
    zip(
        "王李张陈黄林周吴郑梁何罗谢许郭刘杨徐",
        (
            "Wong", "Lee", "Cheung", "Chan", "Wong", "Lam", "Chow", "Ng", "Cheng", "Leung", "Ho", "Law", "Tse", "Hui",
            "Kwok", "Lau", "Yeung", "Tsui",
        ),
        strict=True,
    )
)  # fmt: skip
_SHOPS = tuple(f"186{number:08d}" for number in (55_501_234, 55_509_876, 66_600_012))


def make_customers(seed: int, households: int = 2_000) -> tuple[list[StandardRecord], dict[tuple[str, str], str]]:
    """Return the accepted records of so many households, and the person behind each."""
    dice = Random(f"hard/{seed}")
    people = make_people(list(demographics_of_households())[:households], seed)
    at_home = {person.person_id: person for person in people}
    former = [person.phone for person in people]
    records, truth = [], {}
    for person in people:
        spouse = at_home.get(person.person_id[:-1] + ("b" if person.person_id.endswith("a") else "a"))
        for number in range(dice.choices(range(1, 6), RECORDS)[0]):
            source = f"desk{dice.randrange(4)}"
            fields = _written(person, spouse, former, dice)
            key = f"{person.person_id}-{number}"
            settings = SourceSettings(source, tuple(ColumnMapping(name, name) for name in fields))
            raw = RawRecord(source, key, datetime(2026, 1, 1 + number, tzinfo=UTC), fields)
            made = standardize(raw, settings)
            if not made.is_rejected:
                records.append(made)
                truth[made.key] = person.person_id
    dice.shuffle(records)
    return records, truth


def _written(person: Person, spouse: Person | None, former: list[str], dice: Random) -> dict[str, str]:
    chance = dice.random
    old_home = chance() < OLD_HOME
    place, street = (person.old_place, person.old_street) if old_home else (person.place, person.street)
    found = {
        "name": _name(person, dice),
        "phone": _phone(person, spouse, former, dice),
        "email": person.email,
        "birth_date": _birthday(person.birth_date, dice),
        "resident_id": _resident_id(person.resident_id, dice),
        "address": _address(place.code, place.name, street, dice),
        "gender": {"male": "男", "female": "女"}[person.gender],
    }
    return {name: value for name, value in found.items() if value and (name == "name" or chance() < KNOWN[name])}


def _name(person: Person, dice: Random) -> str:
    kind, name = dice.random(), person.name
    if "·" in name:
        return name
    for share, make in (
        (SHAPE, lambda: _other_of(name, _SHAPES, dice)),
        (FUZZY, lambda: _other_of(name, _FUZZY, dice)),
        (CANTONESE, lambda: _latin(person, dice)),
        (ADDRESSED, lambda: person.surname + {"male": "先生", "female": "女士"}[person.gender]),
        (SHORTENED, lambda: dice.choice("小阿老") + (person.given[-1] if person.given[1:] else person.surname)),
    ):
        if kind < share:
            return make()
        kind -= share
    return name


def _other_of(name: str, groups: Iterable[str], dice: Random) -> str:
    places = [(at, group) for at, char in enumerate(name) for group in groups if char in group]
    if not places:
        return name
    at, group = dice.choice(places)
    return name[:at] + dice.choice(group.replace(name[at], "")) + name[at + 1 :]


def _latin(person: Person, dice: Random) -> str:
    given = " ".join(word.capitalize() for word in lazy_pinyin(person.given))
    surname = _CANTONESE.get(person.surname, "".join(lazy_pinyin(person.surname)).capitalize())
    return f"{given} {surname}" if dice.random() < 0.5 else f"{surname} {given}"


def _phone(person: Person, spouse: Person | None, former: list[str], dice: Random) -> str:
    kind = dice.random()
    if kind < OLD_PHONE:
        return dice.choice(former) if dice.random() < 0.1 else person.old_phone
    if kind < OLD_PHONE + PHONE_OF_SPOUSE and spouse:
        return spouse.phone
    if kind > 1 - PHONE_OF_SHOP:
        return dice.choice(_SHOPS)
    if kind > 1 - PHONE_OF_SHOP - PHONE_SLIP:
        at = dice.randrange(3, 11)
        return person.phone[:at] + str(dice.randrange(10)) + person.phone[at + 1 :]
    return person.phone


def _birthday(born: date, dice: Random) -> str:
    kind = dice.random()
    if kind < LUNAR:
        born -= timedelta(days=dice.randrange(20, 50))
    elif kind < LUNAR + NEW_YEAR:
        born = born.replace(month=1, day=1)
    elif kind < LUNAR + NEW_YEAR + YEAR_OLDER and (born.month, born.day) != (2, 29):
        born = born.replace(year=born.year - 1)
    return born.isoformat() if dice.random() < 0.6 else f"{born.year}年{born.month}月{born.day}日"


def _resident_id(number: str, dice: Random) -> str:
    if dice.random() < ID_SLIP:
        at = dice.randrange(6, 17)
        return number[:at] + str(dice.randrange(10)) + number[at + 1 :]
    return number


def _address(code: str, county: str, street: str, dice: Random) -> str:
    table = division_table().by_code
    province, city = table[f"{code[:2]}0000"].name, table[city_code_of(code)].name
    kind = dice.random()
    if kind < 0.5:
        return f"{province}{city if city != province else ''}{county}{street}"
    if kind < 0.75:
        return f"{city}{county}{street}"
    if kind < 0.9:
        return f"{city}{county}{street.partition('号')[0]}号"
    return f"{city}{county}"


def quality_of(truth: Mapping[tuple[str, str], str], clusters: Iterable[Cluster]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of pairs."""
    found = {key: at for at, cluster in enumerate(clusters) for key in cluster.keys}
    people: dict[str, int] = {}
    keys = list(truth)
    ours = np.array([found[key] for key in keys])
    true = np.array([people.setdefault(truth[key], len(people)) for key in keys])
    return pair_quality(true, ours)


def answered(truth: Mapping[tuple[str, str], str], clusters: Iterable[Cluster]) -> tuple[list[Cluster], int]:
    """Return the clusters after a steward answered each question about two of them rightly, and how many there were."""
    clusters = list(clusters)
    of = {key: at for at, cluster in enumerate(clusters) for key in cluster.keys}
    person = {at: truth[cluster.keys[0]] for at, cluster in enumerate(clusters)}
    asked = {tuple(sorted((at, of[key]))) for at, cluster in enumerate(clusters) for key in cluster.review_keys}
    groups = {at: {at} for at in of.values()}
    for left, right in asked:
        if person[left] == person[right] and groups[left] is not groups[right]:
            groups[left] |= groups[right]
            for at in groups[right]:
                groups[at] = groups[left]
    whole = {id(group): group for group in groups.values()}.values()
    return [Cluster(tuple(key for at in group for key in clusters[at].keys)) for group in whole], len(asked)
