"""Claims about terms, queries, filters and highlights."""

from __future__ import annotations

import pytest

from services.search.domain import words
from services.search.domain.filters import (
    FilterDenied,
    FilterInvalid,
    RowRule,
    TypeUnknown,
    check_filter,
    check_types,
    parse_filter,
    visible_facets,
    with_rows,
)
from services.search.domain.highlights import name_matches, snippet, text_matches
from services.search.domain.queries import parts_of, plan
from services.search.domain.terms import ProfileText, TicketText, profile_terms, sealed, ticket_terms


def plain_key(kind: str, value: str) -> str:
    return f"{kind}:{value}"


def everything(classification: str, group: str) -> bool:
    return True


def matches(query: str, terms, may_search=everything) -> bool:
    """Match as an engine does: each clause by one match, all tokens in its field."""
    tokens = sealed(terms, plain_key)
    clauses = plan(query, may_search, everything, plain_key).clauses
    return all(any(set(match.tokens) <= set(tokens.get(match.field, ())) for match in clause) for clause in clauses)


def profile(*names: str, phones=("+8613812348000",), emails=("Zhang.Wei@Example.cn",), resident_id=""):
    return profile_terms(ProfileText(tuple(names), tuple(phones), tuple(emails), resident_id))


@pytest.mark.parametrize(
    "query",
    ["张伟明", "张伟", "伟明", "张", "明", "zhangweiming", "zhangw", "weiming", "ming", "zwm", "zw", "ZHANG", "張偉明",
     "张先生", "张伟明女士", "zhang 8000", "8000", "12348000", "13812348000", "138 1234 8000", "138-1234-8000",
     "+86 138 1234 8000", "zhang.wei@example.cn", "ＺＨＡＮＧ"],
)  # fmt: skip
def test_a_customer_is_found_by_name_pinyin_initials_and_number(query):
    assert matches(query, profile("张伟明"))


@pytest.mark.parametrize("query", ["李", "张明", "zhangwm", "8001", "2348", "wz", "zhang.wei@example.com", "张伟明 李"])
def test_a_customer_is_not_found_by_what_is_not_theirs(query):
    assert not matches(query, profile("张伟明"))


@pytest.mark.parametrize(
    ("query", "name"),
    [("zengguofan", "曾国藩"), ("cengguofan", "曾国藩"), ("shanxiongxin", "单雄信"), ("lvbu", "吕布"),
     ("阿依古丽", "阿依古丽·买买提"), ("买买提", "阿依古丽·买买提"), ("ouyang", "歐陽娜娜"), ("smith", "John Smith"),
     ("joh", "John Smith"), ("欧阳", "欧阳娜娜")],
)  # fmt: skip
def test_surnames_of_several_readings_and_other_names_are_found(query, name):
    assert matches(query, profile(name))


def test_the_usual_title_of_a_source_name_does_not_hide_it():
    assert matches("张伟", profile("张伟先生"))


def test_landlines_are_found_with_and_without_their_trunk_zero():
    terms = profile("李雷", phones=["+861062345678"])

    assert all(matches(query, terms) for query in ("010-62345678", "1062345678", "+861062345678", "62345678"))


def test_a_resident_id_is_found_whole_and_by_its_end():
    terms = profile("李雷", resident_id="11010119900101123X")

    assert all(matches(query, terms) for query in ("11010119900101123x", "123X", "0101123X"))
    assert not matches("1101", terms)


@pytest.mark.parametrize("query", ["北京", "北京朝阳", "朝阳区", "北京市朝阳区", "建国路", "88", "北京 建国"])
def test_an_address_is_found_with_and_without_its_divisions(query):
    text = ProfileText(("李雷",), (), (), "", "北京市朝阳区建国路88号")

    assert matches(query, profile_terms(text))
    assert not matches("海淀", profile_terms(text))


TICKET = ticket_terms(TicketText("T20261121-000042", "包装易破损", "客户投诉 iPhone15 的包装盒破裂，要求退款"))


@pytest.mark.parametrize(
    "query",
    ["包装", "破损", "包装破损", "易破", "损", "退款", "iphone15", "ipho", "T20261121-000042", "t20261121", "42",
     "000042", "投诉 退款", "要求退款", "iPhone 破裂"],
)  # fmt: skip
def test_a_ticket_is_found_by_words_characters_and_number(query):
    assert matches(query, TICKET)


@pytest.mark.parametrize("query", ["换货", "T20261121-000043", "装包", "phone15", "043"])
def test_a_ticket_is_not_found_by_other_words(query):
    assert not matches(query, TICKET)


def test_groups_the_caller_may_not_search_match_nothing_and_are_named():
    def names_only(classification: str, group: str) -> bool:
        return (classification, group) in {("personal", "name"), ("internal", "")}

    found = plan("13812348000", names_only, everything, plain_key)

    assert not matches("13812348000", profile("张伟明"), names_only)
    assert matches("张伟", profile("张伟明"), names_only)
    assert "personal/contact" in found.left_out


def test_without_any_right_a_query_matches_nothing_rather_than_everything():
    for query in ("张伟", "!!!", "13812348000", "a@b.cn"):
        clauses = plan(query, lambda classification, group: False, everything, plain_key).clauses
        assert clauses and not any(clauses)


def test_no_query_matches_everything():
    assert plan("  ", everything, everything, plain_key).clauses == ()


def test_no_term_of_a_record_is_left_in_the_clear():
    tokens = sealed(profile("张伟明"), lambda kind, value: "x" * 22)

    assert {"x" * 22} == {token for found in tokens.values() for token in found}


def test_equal_values_of_different_kinds_do_not_meet():
    assert not matches("8000", profile("张伟", phones=["+8680001234567"]))


def test_query_operators_are_only_words():
    assert parts_of("name:张伟 OR *") == ["name:张伟", "or", "*"]
    assert not matches("name:* OR 张", profile("李雷"))


def test_the_common_reading_of_each_character_comes_first():
    assert words.readings("张伟")[0] == ("zhang", "wei")
    assert words.readings("A") == []


def test_each_match_is_marked_by_itself_and_not_the_whole_run():
    assert text_matches("包装 损", "包装易破损的包装盒") == [(0, 2), (4, 5), (6, 8)]
    assert name_matches("zhangw", "张伟明") == [(0, 2)]
    assert name_matches("zw", "张伟明") == [(0, 2)]
    assert name_matches("weim", "张伟明") == [(1, 3)]
    assert text_matches("ＩPhone", "我的iPhone坏了") == [(2, 8)]
    assert text_matches("李", "张伟明") == []


def test_a_snippet_surrounds_the_first_match():
    text = "开头" * 100 + "包装破损" + "结尾" * 100

    assert "包装破损" in snippet("破损", text)
    assert len(snippet("破损", text)) == 80


def test_filters_are_typed():
    assert parse_filter('province_code=110000 AND tier=(gold OR "silver")') == {
        "province_code": frozenset({"110000"}),
        "tier": frozenset({"gold", "silver"}),
    }
    assert parse_filter("tier=gold AND tier=silver") == {"tier": frozenset()}
    assert parse_filter(" ") == {}


@pytest.mark.parametrize(
    "text", ["tier", "tier=", "tier=gold OR tier=silver", "nope=1", "tier=gold AND", "tier=(gold silver)", "a=(b OR )"]
)
def test_filters_that_cannot_be_read_are_refused(text):
    with pytest.raises(FilterInvalid):
        parse_filter(text)


def test_hidden_fields_are_neither_filtered_nor_counted():
    with pytest.raises(FilterDenied):
        check_filter(["province_code"], {})
    check_filter(["province_code", "tier"], {("personal", "address"): True})
    assert "province_code" not in visible_facets({})
    assert "tier" in visible_facets({})


def test_row_rules_narrow_and_unknown_ones_let_nothing_through():
    types = check_types([])
    wanted = {"department": frozenset({"service", "sales"})}

    assert with_rows(wanted, types, [RowRule("owner_department", frozenset({"sales"}))])["department"] == {"sales"}
    assert with_rows({}, types, [RowRule("province_code", frozenset({"110000"}))])["province_code"] == {"110000"}
    assert with_rows({}, types, [RowRule("type", frozenset({"profiles"}))])["type"] == {"profiles"}
    assert with_rows({}, types, [RowRule("birth_year", frozenset({"1990"}))])["type"] == frozenset()


def test_unknown_types_are_refused():
    with pytest.raises(TypeUnknown):
        check_types(["orders"])
