"""Names of persons."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.profiles.domain.names import parse_name
from services.profiles.domain.similarity import sound_keys


@pytest.mark.parametrize(
    ("text", "surname", "given", "title"),
    [
        ("张三", "张", "三", ""),
        ("張三先生", "张", "三", "先生"),
        ("张　三", "张", "三", ""),
        ("歐陽娜娜女士", "欧阳", "娜娜", "女士"),
        ("欧阳", "欧阳", "", ""),
        ("张总", "张", "", "总"),
        ("王建国总", "王", "建国", "总"),
        ("陈 老师", "陈", "", "老师"),
        ("老王", "王", "", "老"),
        ("张**", "张", "", ""),
        ("张三(已转接)", "张", "三", ""),
        ("迪丽热巴·迪力木拉提", "迪力木拉提", "迪丽热巴", ""),
        ("迪丽热巴•迪力木拉提", "迪力木拉提", "迪丽热巴", ""),
        ("Mr. John Smith", "Smith", "John", "Mr"),
        ("SMITH, John Paul", "Smith", "John Paul", ""),
        ("O'NEIL, Mary", "O'Neil", "Mary", ""),
        ("SMITH John", "Smith", "John", ""),
        ("Ludwig van Beethoven", "van Beethoven", "Ludwig", ""),
        ("de la Cruz, Maria", "de la Cruz", "Maria", ""),
        ("Jean-Luc Picard, PhD", "Picard", "Jean-Luc", "Phd"),
        ("Ｊｏｈｎ　Ｓｍｉｔｈ", "Smith", "John", ""),
        ("爱新觉罗溥仪", "爱新觉罗", "溥仪", ""),
        ("买买提·吐尔逊先生", "吐尔逊", "买买提", "先生"),
        ("麦克尔．乔丹", "乔丹", "麦克尔", ""),
        ("Mr. 李", "李", "", "Mr"),
        ("王姐", "王", "", "姐"),
        ("尊敬的司马光老师", "司马", "光", "老师"),
        ("姓名：王\u200b伟", "王", "伟", ""),
        ("蕭薔", "萧", "蔷", ""),
        ("沈默", "沈", "默", ""),
    ],
)
def test_surname_given_name_and_title_are_told_apart(text, surname, given, title):
    name, reason = parse_name(text)

    assert (surname, given, title, "") == (name.surname, name.given, name.title, reason)


@pytest.mark.parametrize(
    ("text", "surname", "title"),
    [
        ("李*明", "李", ""), ("李＊明", "李", ""), ("李×明", "李", ""), ("李x明", "李", ""), ("李明*", "李", ""),
        ("李?明", "李", ""), ("李□明", "李", ""), ("李某明", "李", ""), ("王某某先生", "王", "先生"),
        ("欧阳*娜", "欧阳", ""), ("李**先生", "李", "先生"), ("王\ue81f明", "王", ""),
        ("王明\ue863", "王", ""), ("龚\ufffd", "龚", ""),
    ],
)  # fmt: skip
def test_of_a_name_with_a_hidden_character_the_surname_is_known_and_no_shorter_name_made(text, surname, title):
    name, reason = parse_name(text)

    assert (name.surname, name.given, name.title, reason) == (surname, "", title, "")


@pytest.mark.parametrize("text", ["*明", "**明", "*三", "*小明", "阿依*·买买提江", "某某"])
def test_a_name_whose_surname_is_hidden_is_none(text):
    assert parse_name(text) == (None, "NAME_UNREADABLE")


def test_a_latin_x_and_a_character_newer_than_our_tables_are_no_hidden_ones():
    assert parse_name("Max李明")[0].full == "李明"
    assert parse_name("李\U0002ebf0明")[0].full == "李\U0002ebf0明"


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("Wang Xiaoming", "Wang Xiaoming"),
        ("Xiaoming WANG", "Wang Xiaoming"),
        ("WANG, Xiao-Ming", "Wang Xiao-Ming"),
        ("Xiaoming Wang", "Wang Xiaoming"),
        ("OUYANG NANA", "Ouyang Nana"),
        ("Zhang San Feng", "Zhang San Feng"),
        ("John Song", "John Song"),
    ],
)
def test_a_chinese_name_in_latin_letters_has_its_surname_first_whatever_order_it_came_in(text, full):
    assert parse_name(text)[0].full == full


@pytest.mark.parametrize(
    "text", ["张三、李四", "张三/李四", "张三,李四", "李女士 王先生", "李女士和王先生", "李先生、王太太"]
)
def test_a_cell_with_two_people_is_not_one_name(text):
    assert parse_name(text) == (None, "NAME_SEVERAL")


@pytest.mark.parametrize("text", ["李 女士", "和珅先生", "李医生 主任医生", "张经理 先生"])
def test_a_person_with_a_title_apart_or_with_two_is_one(text):
    assert parse_name(text)[1] == ""


def test_a_comma_may_part_surname_and_given_name():
    assert parse_name("欧阳,娜娜")[0].full == "欧阳娜娜"


@pytest.mark.parametrize("text", ["测试", "null", "先生", "顾客", "无", "散客"])
def test_a_placeholder_is_no_name(text):
    assert parse_name(text) == (None, "NAME_BLOCKED")


@pytest.mark.parametrize("text", ["12345", "***", "？？"])
def test_a_name_without_letters_is_refused(text):
    assert parse_name(text) == (None, "NAME_UNREADABLE")


_LATIN_WORDS = (
    "Li",
    "LI",
    "Wang",
    "SAN",
    "de",
    "van",
    "Bo",
    "E",
    "Ae",
    "John",
    "SMITH",
    ",",
    "O'Neil",
    "Mr",
    "Xiao-Ming",
)


@given(st.lists(st.sampled_from(_LATIN_WORDS), max_size=5))
@settings(deadline=None)
def test_a_latin_name_read_again_from_its_own_text_is_the_same(words):
    name, _ = parse_name(" ".join(words))
    again = parse_name(name.full)[0] if name else None

    assert not name or not name.is_complete or (again.surname, again.given) == (name.surname, name.given)


def test_one_sound_in_any_order_and_script_has_one_blocking_key():
    keys = {sound_keys(parse_name(text)[0]) for text in ("王伟", "伟王", "王玮", "Wang Wei", "WEI, Wang", "王偉")}

    assert len(keys) == 1
