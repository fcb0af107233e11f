"""What each dimension counts, and what it leaves out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.profiles.domain.quality import (
    MATCH,
    PERSON,
    RECORD,
    STANDARD,
    Dimension,
    Finding,
    Person,
    Scope,
    SourceScope,
    findings,
    reject_findings,
)
from services.profiles.domain.sources import deleted_record
from services.profiles.domain.values import RawRecord, StandardRecord
from tests.profiles.domain.builders import NOW, OTHER_RESIDENT_ID, RESIDENT_ID, record, source

SCOPE = Scope((*STANDARD, "level"), {}, NOW)
GOOD = {
    "name": "张三", "phone": "13812345670", "email": "z@example.cn", "gender": "男", "birth_date": "1990-01-02",
    "resident_id": RESIDENT_ID, "address": "浙江省杭州市西湖区文三路1号", "level": "gold",
}  # fmt: skip


def judge(*records: StandardRecord, scope: Scope = SCOPE, **person: object) -> list[Finding]:
    held = {f"{item.source_id}/{item.source_record_id}": item for item in records}
    return list(findings(Person(held, **person), scope))  # type: ignore[arg-type]


def passed(found: list[Finding], dimension: Dimension, field: str) -> dict[str, bool]:
    """Return what was found of a field, by record."""
    return {item.key: item.passed for item in found if (item.dimension, item.field) == (dimension, field)}


def test_a_good_record_passes_in_every_dimension_that_is_measured_of_it() -> None:
    found = judge(record(**GOOD))

    assert all(item.passed for item in found)
    assert {item.dimension for item in found} == set(Dimension)
    assert {item.field for item in found} == {*SCOPE.fields, RECORD, PERSON}


@pytest.mark.parametrize("text", ["", "   ", "无", "不详", "-"])
def test_nothing_and_words_for_nothing_are_not_complete_and_not_judged_further(text: str) -> None:
    found = [item for item in judge(record(**{**GOOD, "name": text})) if item.field == "name"]

    assert [(item.dimension, item.passed) for item in found] == [(Dimension.COMPLETENESS, False)]


def test_a_placeholder_is_not_complete_and_says_nothing_of_validity() -> None:
    found = judge(record(**{**GOOD, "phone": "13800000000"}))

    assert passed(found, Dimension.COMPLETENESS, "phone") == {"till/1": False}
    assert passed(found, Dimension.VALIDITY, "phone") == {}
    assert passed(found, Dimension.VALIDITY, RECORD) == {"till/1": True}


@pytest.mark.parametrize(
    ("field", "text"),
    [("phone", "1381234"), ("email", "nobody"), ("birth_date", "1990-02-31"), ("gender", "perhaps"),
     ("resident_id", RESIDENT_ID[:-1] + "9"), ("address", "somewhere")],
)  # fmt: skip
def test_what_cannot_be_read_is_complete_but_not_valid_and_nor_is_its_record(field: str, text: str) -> None:
    found = judge(record(**{**GOOD, field: text}))

    assert passed(found, Dimension.COMPLETENESS, field) == {"till/1": True}
    assert passed(found, Dimension.VALIDITY, field) == {"till/1": False}
    assert passed(found, Dimension.VALIDITY, RECORD) == {"till/1": False}


def test_a_passport_in_the_column_of_resident_ids_is_a_document() -> None:
    found = judge(record(**{**GOOD, "resident_id": "E12345678"}))

    assert passed(found, Dimension.COMPLETENESS, "resident_id") == {"till/1": True}
    assert passed(found, Dimension.VALIDITY, "resident_id") == {"till/1": True}
    assert passed(found, Dimension.ACCURACY, "resident_id") == {}


def test_a_field_that_the_sources_mapping_does_not_feed_is_not_missed() -> None:
    scope = replace(SCOPE, sources={"till": SourceScope(frozenset(("name", "phone")))})
    found = judge(record(name="张三", phone="13812345670"), scope=scope)

    assert {item.field for item in found if item.dimension == Dimension.COMPLETENESS} == {"name", "phone"}


def test_a_contradiction_is_a_matter_of_consistency_and_not_of_validity() -> None:
    found = judge(record(**{**GOOD, "birth_date": "1991-03-04"}))

    assert passed(found, Dimension.CONSISTENCY, "birth_date") == {"till/1": False}
    assert passed(found, Dimension.VALIDITY, "birth_date") == {"till/1": True}
    assert passed(found, Dimension.ACCURACY, "birth_date") == {"till/1": False}, "the ID is checked, the date not"


def test_a_birth_date_that_comes_from_the_resident_id_alone_is_no_evidence() -> None:
    found = judge(record(**{key: text for key, text in GOOD.items() if key not in ("birth_date", "gender")}))

    for field in ("birth_date", "gender"):
        assert passed(found, Dimension.CONSISTENCY, field) == {}
        assert passed(found, Dimension.ACCURACY, field) == {}
        assert passed(found, Dimension.COMPLETENESS, field) == {"till/1": True}


def two_more(**fields: str) -> list[StandardRecord]:
    return [record("1", source_id="shop", **fields), record("1", source_id="app", **fields)]


def test_one_source_against_one_is_a_contradiction_that_accuracy_does_not_decide() -> None:
    found = judge(record(name="张三"), record(name="张珊", source_id="shop"))

    assert passed(found, Dimension.CONSISTENCY, "name") == {"till/1": False, "shop/1": False}
    assert passed(found, Dimension.ACCURACY, "name") == {}


def test_what_most_sources_say_is_evidence_against_the_one_that_differs() -> None:
    found = judge(record(name="张珊", phone="13812345670"), *two_more(name="张三", phone="13812345670"))

    expected = {"till/1": False, "shop/1": True, "app/1": True}
    assert passed(found, Dimension.ACCURACY, "name") == expected
    assert passed(found, Dimension.CONSISTENCY, "name") == expected


def test_many_records_of_one_source_are_one_voice() -> None:
    crowd = [record(str(number), name="张珊") for number in range(5)]
    found = judge(*crowd, record(name="张三", source_id="shop"), record(name="张三", source_id="app"))

    assert set(passed(found, Dimension.ACCURACY, "name").items()) >= {("till/0", False), ("shop/1", True)}


def test_one_of_several_phones_agrees_when_any_is_shared() -> None:
    found = judge(record(phone="13812345670, 13912345670"), *two_more(phone="13912345670"))

    assert passed(found, Dimension.CONSISTENCY, "phone")["till/1"]


def test_a_stewards_word_outweighs_all_other_evidence() -> None:
    records = [record(name="张珊"), *two_more(name="张三")]
    found = judge(*records, overrides={"name": "张珊"})

    assert passed(found, Dimension.ACCURACY, "name") == {"till/1": True, "shop/1": False, "app/1": False}


def test_only_the_first_record_of_a_source_is_no_duplicate() -> None:
    found = judge(record("1", name="张三"), record("2", name="张三"), record("9", name="张三", source_id="shop"))

    assert passed(found, Dimension.UNIQUENESS, RECORD) == {"till/1": True, "till/2": False, "shop/9": True}


def test_an_identifier_that_another_person_holds_is_not_unique() -> None:
    found = judge(record(**GOOD), shared=frozenset((("phone", "+8613812345670"),)))

    assert passed(found, Dimension.UNIQUENESS, "phone") == {"till/1": False}
    assert passed(found, Dimension.UNIQUENESS, "email") == {"till/1": True}
    assert passed(found, Dimension.UNIQUENESS, "name") == {}


def test_a_zombie_is_who_has_shown_no_sign_of_life_in_the_days_of_its_source() -> None:
    scope = replace(SCOPE, sources={"till": SourceScope(None, 30)})
    old = record(name="张三", at=NOW - timedelta(days=31))
    found = judge(old, scope=scope)
    assert passed(found, Dimension.TIMELINESS, RECORD) == {"till/1": False}
    assert passed(found, Dimension.TIMELINESS, "name") == {"till/1": False}
    assert passed(found, Dimension.TIMELINESS, PERSON) == {"till/1": False}

    last = record(name="张三", at=NOW - timedelta(days=30))
    assert passed(judge(last, scope=scope), Dimension.TIMELINESS, RECORD) == {"till/1": True}
    both = judge(old, record(name="张三", source_id="shop", at=NOW - timedelta(days=200)), scope=scope)
    assert passed(both, Dimension.TIMELINESS, PERSON) == {"till/1": True}, "a person lives while any record does"
    assert [item.source_id for item in both if item.field == PERSON] == [""]


def test_a_record_that_its_source_deleted_is_left_out() -> None:
    deleted = deleted_record(RawRecord("till", "1", NOW, {"record_deleted": "true"}), source())

    assert judge(deleted) == []


def test_what_retention_took_is_neither_missed_nor_judged() -> None:
    taken = record(**{**GOOD, "resident_id": ""})
    found = judge(taken, retired={"till/1": frozenset(("resident_id",))})
    assert [item for item in found if item.field == "resident_id"] == []
    assert passed(found, Dimension.COMPLETENESS, "name") == {"till/1": True}

    assert judge(taken, retired={"till/1": frozenset(("*",))}) == []


def test_a_set_apart_row_counts_once_for_its_record_and_for_each_field_at_fault() -> None:
    found = reject_findings(("phone", "phone", "city", "", "编号"), "till", "rejects/r", SCOPE)

    assert [(item.field, item.passed) for item in found] == [(RECORD, False), ("phone", False), ("address", False)]
    assert {item.dimension for item in found} == {Dimension.VALIDITY}
    assert MATCH not in {item.field for item in found}


@given(st.dictionaries(st.sampled_from((*STANDARD, "level")), st.text(max_size=20)), st.integers(0, 3))
def test_no_text_makes_judging_fail_and_every_record_is_judged(fields: dict[str, str], others: int) -> None:
    records = [record(**{"name": "张三", **fields}), *(two_more(resident_id=OTHER_RESIDENT_ID) * others)[:others]]
    found = judge(*records)

    assert set(passed(found, Dimension.VALIDITY, RECORD)) == {f"{r.source_id}/{r.source_record_id}" for r in records}
    assert len({(item.dimension, item.field, item.key) for item in found}) == len(found)
