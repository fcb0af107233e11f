"""Common forms are read a shorter way; it gives what the long way gives, on texts near its borders too."""

import random
from collections.abc import Callable

import pytest

from services.profiles.domain import addresses, names, phones, places
from services.profiles.domain.beginnings import Beginnings
from services.profiles.domain.divisions import city_code_of, division_table, level_of
from services.profiles.domain.phones import parse_phones
from services.profiles.domain.places import read_place

AREAS = ["10", "21", "571", "512", "20", "28", "755", "898", "400", "800", "95", "12", "13", "179", "30", "851", "431"]
WORDS_TEXT = """
路 街 大道 解放 人民 南京 和平 西 中山 朝阳 12号 3栋 区 市 县 镇 乡 小区 开发区 新区 花园 - / 市辖区 自治 大
省直辖县级行政区划 A座 城区 城 南 北 东 1 公园 村 海淀 广场
"""
WORDS = WORDS_TEXT.split()
SPECIAL = (
    "学院路街大道镇乡村里号栋幢座单元门室楼层花园家小区苑城广场东南西北中一二三十甲解放建设和平湾龙湖香樟金色锦绣丽景"
    "办事处开发经济新城心公寓馆厦庭期支组队附之弄巷胡同步行马科技工业"
)
Draw = random.Random


class Never:
    """A pattern that nothing matches: leaves the long way only."""

    def fullmatch(self, _: str) -> None:
        """Match nothing."""


def beginning_and_more(draw: Draw, counties: list[str], every_name: list[str]) -> str:
    """Return divisions in some of their forms, or any names, and what may follow them."""
    by_code = division_table().by_code
    code = draw.choice(counties)
    province, city = by_code[f"{code[:2]}0000"], by_code.get(city_code_of(code))
    parts = [draw.choice(("", *province.names)), draw.choice(("", *city.names)) if city else ""]
    parts.append(draw.choice(by_code[code].names))
    if draw.random() < 0.2:
        parts = [draw.choice(every_name) for _ in range(draw.randint(1, 3))]
    parts += [draw.choice(WORDS if draw.random() < 0.85 else every_name) for _ in range(draw.randint(0, 4))]
    return "".join(parts)


@pytest.mark.parametrize("seed", range(3))
def test_a_learnt_beginning_of_an_address_is_read_as_the_whole_text_would_be(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, table, known = Draw(seed), division_table(), Beginnings(division_table())
    monkeypatch.setattr(addresses, "beginnings", lambda: known)
    counties = draw.sample([code for code in table.by_code if level_of(code) == 6], 60)
    every_name = [name for found in table.starts.values() for name in found]
    short = 0
    for text in (beginning_and_more(draw, counties, every_name) for _ in range(12_000)):
        short += known.county_at(text) is not None
        assert addresses._located(text) == addresses._locate(text, table), text
    assert short > 1_000


def detail(draw: Draw, letters: str) -> str:
    """Return what follows a county: street, number, and some of building, unit and room, sometimes disturbed."""

    def word(least: int, most: int) -> str:
        return "".join(draw.choice(letters) for _ in range(draw.randint(least, most)))

    text = f"{word(1, 8)}{draw.choice('路路街道巷')}{draw.randint(1, 99_999)}号{word(0, 6)}"
    text += draw.choice(("", "花园", "家园", "小区", "苑", "城", "名城"))
    text += f"{draw.randint(1, 9_999)}{draw.choice(('栋', '幢', '座', '号楼', '期', ''))}"
    text += draw.choice(("", "", f"{draw.randint(1, 12)}单元")) + draw.choice(("", f"{draw.randint(1, 99_999)}室"))
    if draw.random() < 0.2:
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice(SPECIAL + "0123456789-A#") + text[at:]
    return text


@pytest.mark.parametrize("seed", range(2))
def test_a_common_street_building_and_room_are_the_parts_that_the_long_way_reads(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Draw(seed)
    plain = "".join(chr(draw.randint(0x4E00, 0x9FFF)) for _ in range(60))
    texts = [detail(draw, SPECIAL if draw.random() < 0.3 else plain + "西湖东风科技花园建设") for _ in range(12_000)]
    common = [text for text in texts if places._COMMON.fullmatch(text)]
    short = [read_place(text) for text in common]
    monkeypatch.setattr(places, "_COMMON", Never())
    assert short == [read_place(text) for text in common]
    assert len(common) > 500


def test_a_landline_with_its_trunk_zero_is_what_phonenumbers_says_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Draw(5)

    def number() -> str:
        area = draw.choice([*AREAS, str(draw.randint(10, 999))])
        return f"0{area}{''.join(draw.choice('0123456789') for _ in range(draw.choice((6, 7, 7, 8, 8, 9))))}"

    numbers = [number() for _ in range(6_000)]
    short = list(map(parse_phones, numbers))
    monkeypatch.setattr(phones, "_is_landline", lambda _: False)
    assert short == list(map(parse_phones, numbers))
    assert sum(bool(found) for found, _ in short) > 1_000


def test_a_name_of_two_or_three_characters_is_what_the_long_way_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Draw(7)
    letters = "张王李欧阳司马诸葛國張偉先生女士小姐总某没有测试顾客老阿小" + "".join(map(chr, range(0x4E00, 0x4F00)))
    texts = ["".join(draw.choice(letters) for _ in range(draw.randint(2, 3))) for _ in range(20_000)]
    reading: Callable[[str], object] = names.parse_name
    short = list(map(reading, texts))
    monkeypatch.setattr(names, "_PLAIN", Never())
    assert short == list(map(reading, texts))
