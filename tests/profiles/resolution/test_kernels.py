"""Compiled comparisons agree with rapidfuzz and with the comparisons of single writes."""

from itertools import combinations, permutations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import OSA, JaroWinkler

from services.profiles.domain.callings import callings_among
from services.profiles.domain.comparison import LEVELS, levels_of, traits_of
from services.profiles.domain.match import SHARED_LIMIT, compare_traits
from services.profiles.domain.model import among, default_model
from services.profiles.domain.similarity import is_one_edit
from services.profiles.domain.values import Band
from services.profiles.resolution.columns import column_of, texts_of
from services.profiles.resolution.judging import APART, FORBIDS_MERGE, MERGE, REVIEW
from services.profiles.resolution.kernels import jaro_winkler, jaro_winkler_bound, lacks, within_one, within_two
from services.profiles.resolution.people import People, resolve
from tests.profiles.domain.builders import OTHER_RESIDENT_ID, RESIDENT_ID, record

MODEL = default_model()
NAMED = {APART: Band.APART, REVIEW: Band.REVIEW, MERGE: Band.MERGE}
WORDS = st.text("abc王伟9", max_size=12) | st.text("0123456789", max_size=12) | st.text("ab", max_size=60)


@settings(max_examples=300, deadline=None)
@given(WORDS, WORDS)
def test_texts_are_as_far_apart_and_as_alike_as_rapidfuzz_says(left, right):
    texts = texts_of([left, right])
    chars, (a, a_end, b_end) = texts.chars, texts.offsets
    place = (chars, a, a_end, a_end, b_end)
    distance, likeness = OSA.distance(left, right), JaroWinkler.similarity(left, right, prefix_weight=0.1)

    assert within_one(*place) == (distance <= 1) == (left == right or is_one_edit(left, right))
    assert within_two(*place) == (distance <= 2)
    assert max(lacks(*texts.masks), lacks(*texts.masks[::-1])) <= distance
    if left and right:
        assert jaro_winkler(*place) == pytest.approx(likeness)
        assert jaro_winkler_bound(len(left), len(right), *texts.masks) >= likeness - 1e-12


def test_a_column_keeps_its_characters_beyond_ascii_and_its_gaps():
    column = column_of(pa.chunked_array([["欧阳娜", None, "a𠮷"], ["欧阳娜", ""]]))
    texts = column.texts

    assert column.codes.tolist() == [0, -1, 1, 0, 2]
    assert np.diff(texts.offsets).tolist() == [3, 2, 0]
    assert column.frequencies().tolist() == [0.5, 0.25, 0.25]


NAMES = (
    "王建国",
    "建国王",
    "王健国",
    "王建",
    "王",
    "张先生",
    "Wang Jianguo",
    "欧阳娜娜",
    "欧阳娜",
    "古丽·买买提",
    "李王",
    "李总",
    "小国",
    "阿明",
    "明明",
    "王明",
    "王小明",
    "Bob Smith",
    "Robert Smith",
    "Robert Smythe",
    "bob",
    "Christopher Smith",
    "Cristofer Smith",
    "阿里木江·买买提艾力",
    "艾力木江·买买提艾力",
    "Wong Jian Guo",
    "Jianguo Wong",
    "Wong",
    "Cheung Feng",
    "张峰",
    "黄建国",
    "章丰",
    "Jenny Lee",
    "刘林",
    "牛琳",
    "刘玲",
    "",
)
FIELDS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(NAMES),
        "phone": st.sampled_from(("", "13912345671", "13912345617", "18612345672", "13912345671 18698765432")),
        "email": st.sampled_from(("", "13912345671@qq.example", "wang@b.cn", "wamg@b.cn")),
        "birth_date": st.sampled_from(
            ("", "1990-01-02", "1990-02-01", "1990-11-02", "1990-07-30", "1955-05-05", "35岁", "90后", "1954年")
        ),
        "resident_id": st.sampled_from(
            ("", RESIDENT_ID, OTHER_RESIDENT_ID, "E12345678", "G87654321", "H1234567801", "H1234567802", "W12345678")
        ),
        "gender": st.sampled_from(("", "男", "女")),
        "address": st.sampled_from(
            (
                "",
                "北京市朝阳区建国路1号",
                "北京市朝阳区",
                "北京市海淀区建国路1号",
                "北京市朝阳区建国路1号3号楼2单元501室",
                "北京市朝阳区建国路1号三栋2单元501",
                "北京市朝阳区建国路1号3幢602室",
                "北京市朝阳区建国路88号",
                "北京市朝阳区建国路1号9号楼",
                "浙江省杭州市",
                "浙江省杭州市西湖区文三路2号",
                "浙江省宁波市海曙区",
            )
        ),
    }
)


@settings(max_examples=600, deadline=None)
@given(FIELDS, FIELDS)
def test_two_records_reach_the_levels_of_a_single_write(left, right):
    records = [record("1", **left), record("2", **right)]
    people = People(records)
    pattern = people.comparisons.compare(np.array([0], np.int32), np.array([1], np.int32))
    digits = people.comparisons.digits(pattern)[0]
    found = tuple(["", *part.levels][digit] for part, digit in zip(people.comparisons.parts, digits, strict=True))

    assert found == levels_of(*map(traits_of, records))


HOLDERS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(("王建国", "王健国", "王小明", "王先生", "王女士", "小明", "Wong", "Wang Jianguo")),
            "phone": st.sampled_from(("13912345671", "13912345671 18698765432", "18698765432", "")),
            "email": st.sampled_from(("", "", "13912345671@qq.example", "wang@b.cn")),
            "gender": st.sampled_from(("", "男", "女")),
            "address": st.sampled_from(("", "北京市朝阳区建国路1号", "浙江省宁波市海曙区")),
        }
    ),
    min_size=2, max_size=SHARED_LIMIT,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(HOLDERS, st.sampled_from((MODEL, among(MODEL, 30_000_000))))
def test_a_batch_decides_whom_a_title_means_as_a_single_write_does(holders, model):
    made = [record(str(at), **fields) for at, fields in enumerate(holders)]
    records = [item for item in made if not item.is_rejected]
    pairs = np.array(list(combinations(range(len(records)), 2)), np.int32).reshape(-1, 2)
    found = People(records).judge(model).judge(*np.ascontiguousarray(pairs.T))
    traits = [traits_of(item) for item in records]
    callings = callings_among(traits)
    expected = [compare_traits(traits[a], traits[b], model, callings) for a, b in pairs.tolist()]

    assert found.weights.tolist() == [score.weight for score in expected]
    assert [NAMED[band] for band in found.bands.tolist()] == [score.band for score in expected]
    assert [bool(flag & FORBIDS_MERGE) for flag in found.flags.tolist()] == [bool(score.vetoes) for score in expected]


def test_a_phone_under_too_many_names_is_no_evidence_and_one_under_few_is():
    def level(most):
        givens = enumerate("一二三四五六"[:most])
        people = People([record(str(at), name=f"王{given}", phone="13912345671") for at, given in givens])
        pattern = people.comparisons.compare(np.array([0], np.int32), np.array([1], np.int32))
        return people.comparisons.digits(pattern)[0, list(LEVELS).index("phone")]

    assert (level(5), level(6)) == (1, 0)


def test_the_clusters_do_not_depend_on_the_order_in_which_records_are_read():
    same = {"name": "王建国", "phone": "13912345671"}
    twins = [record(str(at), source_id=f"s{at % 2}", is_unique=True, **same) for at in range(4)]

    def clusters(order):
        return frozenset(frozenset(item.keys) for item in resolve(order, default_model()))

    assert len({clusters(order) for order in permutations(twins)}) == 1
