"""Names of persons."""

import pytest

from services.profiles.domain.names import parse_name
from services.profiles.domain.similarity import sound_key


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
        ("O'Neil, Mary", "O'neil", "Mary", ""),
    ],
)
def test_surname_given_name_and_title_are_told_apart(text, surname, given, title):
    name, reason = parse_name(text)

    assert (surname, given, title, "") == (name.surname, name.given, name.title, reason)


@pytest.mark.parametrize("text", ["测试", "null", "先生", "顾客", "无", "散客"])
def test_a_placeholder_is_no_name(text):
    assert parse_name(text) == (None, "NAME_BLOCKED")


@pytest.mark.parametrize("text", ["12345", "***", "？？"])
def test_a_name_without_letters_is_refused(text):
    assert parse_name(text) == (None, "NAME_UNREADABLE")


def test_one_sound_in_any_order_and_script_has_one_blocking_key():
    keys = {sound_key(parse_name(text)[0]) for text in ("王伟", "伟王", "王玮", "Wang Wei", "WEI, Wang", "王偉")}

    assert len(keys) == 1
