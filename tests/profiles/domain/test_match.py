"""Who is whom: the rules that always hold, and the scores between them."""

from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from math import log2

import pytest

from services.profiles.domain.blocking import blocking_keys
from services.profiles.domain.callings import callings_among, means_one
from services.profiles.domain.comparison import LEVELS, levels_of, traits_of
from services.profiles.domain.match import SHARED_LIMIT, compare, decide
from services.profiles.domain.model import among, default_model, model_from_json, model_to_json
from services.profiles.domain.values import AssignmentKind, Band, Candidate
from services.profiles.resolution.people import resolve
from tests.profiles.domain.builders import NOW, OTHER_RESIDENT_ID, RESIDENT_ID, record

MODEL = default_model()
WANG = {"name": "王建国", "phone": "13912345671", "birth_date": "1990-01-02"}


def band(left: dict[str, str], right: dict[str, str]) -> Band:
    return compare(record("1", **left), record("2", **right), MODEL).band


def candidate(profile_id: str, *records, age_days: int = 1) -> Candidate:
    return Candidate(profile_id, NOW - timedelta(days=age_days), records)


def test_two_valid_resident_ids_never_join_whatever_else_agrees():
    left = record("1", **WANG, email="a@b.cn", resident_id=RESIDENT_ID)
    right = record("2", **WANG, email="a@b.cn", resident_id=OTHER_RESIDENT_ID)

    assert Band.APART is compare(left, right, MODEL).band
    assert AssignmentKind.NEW is decide(right, [candidate("p1", left)], MODEL).kind
    assert len(resolve([left, right], MODEL)) == 2


@pytest.mark.parametrize("other", ["王建国", "王建國先生", "建国王", "王健国", "Wang Jianguo"])
def test_one_person_is_found_under_every_form_of_the_name(other):
    right = {**WANG, "name": other}

    assert Band.MERGE is band(WANG, right)
    assert set(blocking_keys(record(**WANG))) & set(blocking_keys(record(**right)))


@pytest.mark.parametrize("shared", [{"phone": "13912345671"}, {"email": "home@b.cn"}])
def test_a_couple_on_one_phone_or_mailbox_is_never_merged(shared):
    address = {"address": "北京市朝阳区建国路1号"}

    assert Band.MERGE is not band({"name": "王伟", **shared, **address}, {"name": "李娜", **shared, **address})


def test_brothers_of_like_names_on_one_phone_and_address_are_asked_about_not_merged():
    home = {"phone": "13912345671", "address": "北京市朝阳区建国路1号"}

    assert Band.REVIEW is band({"name": "王建国", **home}, {"name": "王建民", **home})
    assert Band.MERGE is not band(
        {"name": "王建国", "birth_date": "1960-01-02", **home}, {"name": "王建民", "birth_date": "1963-08-09", **home}
    )


PHONE = {"phone": "13912345671"}


def called(*known, name="张先生", rejected=(), **fields):
    """Return what becomes of a record with an incomplete name on a phone that these records have, a profile each."""
    profiles = [candidate(f"p{at}", record(f"k{at}", **{**PHONE, **item})) for at, item in enumerate(known)]
    return decide(record("new", name=name, **{**PHONE, **fields}), profiles, MODEL, frozenset(rejected))


@pytest.mark.parametrize("known", [{}, {"gender": "女"}, {"birth_date": "1990-01-02"}])
def test_a_surname_with_a_title_on_a_known_phone_is_a_question_for_a_steward(known):
    """Whoever else of the family has the surname may have answered that phone (features P7)."""
    decision = called({"name": "张三", **known})

    assert decision.kind is AssignmentKind.REVIEW
    assert decision.review_profile_ids[0] == "p0"


@pytest.mark.parametrize(
    ("known", "fields"),
    [
        ({"gender": "男"}, {}),
        ({"name": "张三先生"}, {}),
        ({"gender": "女", "address": "北京市朝阳区"}, {"name": "张女士", "address": "北京市朝阳区"}),
        ({"name": "张小宝", "address": "北京市朝阳区建国路1号"}, {"name": "小宝", "address": "北京市朝阳区建国路1号"}),
        ({"birth_date": "1990-01-02"}, {"birth_date": "1990-01-22"}),
        ({"gender": "男", "name": "张小宝"}, {"name": "小宝", "gender": "男"}),
    ],
)
def test_whom_alone_one_may_call_so_on_a_phone_is_meant_where_sex_birth_or_a_nicknames_door_agree(known, fields):
    decision = called({"name": "张三", **known}, **fields)

    assert (decision.kind, decision.profile_id) == (AssignmentKind.MERGE, "p0")
    assert decision.scores["p0"].rule == "contact+called"


FATHER, SON = {"name": "张三", "gender": "男"}, {"name": "张小宝", "gender": "男"}


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ((FATHER, SON), {}),
        ((FATHER, SON), {"address": "北京市朝阳区"}),
        ((FATHER, {"name": "张小红", "gender": "女"}), {}),
        ((FATHER, {"name": "张女士"}), {}),
        (({**FATHER, "birth_date": "1960-01-02"},), {"birth_date": "1990-07-30"}),
        (({**FATHER, "gender": "女"},), {"address": "北京市朝阳区"}),
    ],
)
def test_a_title_on_a_phone_of_two_of_one_surname_or_of_somebody_else_is_a_question(family, fields):
    assert called(*({"address": "北京市朝阳区", **item} for item in family), **fields).kind is AssignmentKind.REVIEW


def test_another_spelling_of_the_same_person_is_no_second_person_on_the_phone():
    decision = called(FATHER, {**FATHER, "name": "Zhang San"})

    assert decision.kind is AssignmentKind.MERGE
    assert {decision.profile_id, *decision.merged_profile_ids} == {"p0", "p1"}


def test_whom_a_steward_ruled_out_still_counts_among_those_who_may_be_meant():
    assert called(FATHER, SON, rejected=["p0"]).kind is AssignmentKind.REVIEW
    assert called(FATHER, rejected=["p0"]).kind is AssignmentKind.NEW


def test_a_phone_of_too_many_people_tells_nobody_who_is_called_so():
    givens = "一二三四五六七"[: SHARED_LIMIT + 1]
    assert called(FATHER, *({"name": f"李{given}"} for given in givens)).kind is AssignmentKind.NEW


def test_a_surname_with_a_title_chains_no_father_and_son():
    father = record("1", name="张三", phone="13912345671", gender="男")
    unclear = record("2", name="张先生", phone="13912345671")
    son = record("3", name="张小宝", phone="13912345671", gender="男")

    for items in ([father, unclear, son], [son, unclear, father], [unclear, son, father]):
        assert len(resolve(items, MODEL)) == 3
    assert len(resolve([father, unclear], MODEL)) == 1
    assert AssignmentKind.MERGE is not decide(son, [candidate("p1", father, unclear)], MODEL).kind


def test_a_swapped_day_and_month_does_not_part_one_person():
    assert Band.MERGE is band(
        {"name": "王建国", "email": "w@b.cn", "birth_date": "1990-01-02"},
        {"name": "王建国", "email": "w@b.cn", "birth_date": "1990-02-01"},
    )


def test_a_name_and_a_city_alone_never_merge():
    place = {"address": "北京市朝阳区"}

    assert Band.MERGE is not band(
        {"name": "祝抒远", "phone": "13912345671", **place}, {"name": "祝抒远", "phone": "18612345672", **place}
    )


def test_a_rare_name_says_more_than_a_frequent_one():
    def weight(name: str) -> float:
        left, right = (
            {"name": name, "birth_date": "1990-01-02", "phone": phone} for phone in ("13912345671", "18698765432")
        )
        return compare(record("1", **left), record("2", **right), MODEL).weight

    assert weight("令狐抒远") > weight("王芳") + 2


def test_the_waterfall_adds_up_to_the_weight_and_names_each_comparison():
    score = compare(record("1", **WANG, gender="男"), record("2", **WANG, gender="男"), MODEL)

    assert score.weight == pytest.approx(sum(step.weight for step in score.steps))
    assert [step.comparison for step in score.steps] == ["prior", "name", "phone", "birth_date", "gender", "name"]
    assert ("phone+name", MODEL.version) == (score.rule, score.model_version)
    assert 0.999 < score.probability <= 1


def test_comparing_is_symmetric():
    left, right = record("1", **WANG, address="北京市朝阳区"), record("2", name="王健国", email="x@y.cn", gender="男")

    assert compare(left, right, MODEL).weight == pytest.approx(compare(right, left, MODEL).weight)


def test_a_phone_of_too_many_people_identifies_nobody():
    names = ("张三", "李四", "赵五", "钱六", "孙七", "周八")
    assert len(names) > SHARED_LIMIT
    crowd = [candidate(f"p{at}", record(str(at), name=name, phone="13912345671")) for at, name in enumerate(names)]

    assert AssignmentKind.MERGE is not decide(record("9", name="张三", phone="13912345671"), crowd, MODEL).kind
    few = decide(record("9", name="张三", phone="13912345671"), crowd[:SHARED_LIMIT], MODEL)
    assert (few.kind, few.profile_id) == (AssignmentKind.MERGE, "p0")


def test_a_record_that_links_two_profiles_merges_them_into_the_oldest():
    phone = record("1", name="王建国", phone="13912345671")
    mail = record("2", name="王建国", email="w@b.cn")
    both = record("3", name="王建国", phone="13912345671", email="w@b.cn")

    decision = decide(both, [candidate("young", phone, age_days=1), candidate("old", mail, age_days=9)], MODEL)

    assert (
        decision.kind, decision.profile_id, decision.merged_profile_ids
    ) == (AssignmentKind.MERGE, "old", ("young",))  # fmt: skip


def test_profiles_that_contradict_each_other_are_not_merged_by_a_record_that_fits_both():
    one = record("1", name="王建国", phone="13912345671", resident_id=RESIDENT_ID)
    two = record("2", name="王建国", email="w@b.cn", resident_id=OTHER_RESIDENT_ID)
    both = record("3", name="王建国", phone="13912345671", email="w@b.cn")

    decision = decide(both, [candidate("p1", one), candidate("p2", two)], MODEL)

    assert AssignmentKind.MERGE is decision.kind
    assert decision.merged_profile_ids == ()
    assert len(decision.review_profile_ids) == 1
    assert len(resolve([one, two, both], MODEL)) == 2


def test_no_chain_passes_a_weak_edge():
    wife = record("1", name="李娜", phone="13912345671", email="home@b.cn", gender="女")
    unclear = record("2", name="李女士", phone="13912345671", email="home@b.cn")
    husband = record("3", name="王伟", phone="13912345671", email="home@b.cn", gender="男")

    clusters = resolve([wife, unclear, husband], MODEL)

    assert all(not {wife.key, husband.key} <= set(cluster.keys) for cluster in clusters)


def test_a_source_that_promises_one_record_for_one_person_is_believed():
    left = record("1", **WANG, source_id="bank", is_unique=True)
    right = record("2", **WANG, source_id="bank", is_unique=True)

    decision = decide(right, [candidate("p1", left)], MODEL)

    assert (decision.kind, decision.review_profile_ids) == (AssignmentKind.REVIEW, ("p1",))
    assert len(resolve([left, right], MODEL)) == 2


def test_a_stewards_verdict_is_not_asked_again():
    known = candidate("p1", record("1", name="张三", phone="13912345671"))
    decision = decide(record("2", name="张先生", phone="13912345671"), [known], MODEL, rejected=frozenset(("p1",)))

    assert (decision.kind, decision.review_profile_ids) == (AssignmentKind.NEW, ())


def test_a_mailbox_named_after_a_phone_links_to_it():
    phone, mail = {"name": "王建国", "phone": "13912345671"}, {"name": "王建国", "email": "13912345671@qq.example"}

    assert Band.MERGE is band(phone, mail)
    assert set(blocking_keys(record(**phone))) & set(blocking_keys(record(**mail)))


def test_a_resident_id_with_a_contact_outweighs_a_mistyped_name_but_not_alone():
    known = {"name": "宋强", "resident_id": RESIDENT_ID}

    assert Band.MERGE is band({**known, "phone": "13912345671"}, {**known, "name": "宋新", "phone": "13912345671"})
    assert Band.REVIEW is band(known, {**known, "name": "宋新"})
    assert Band.REVIEW is band({**known, "phone": "13912345671"}, {**known, "name": "李娜", "phone": "13912345671"})


def test_one_slip_in_a_phone_does_not_part_people_of_one_name_but_neighbours_in_numbers_stay_two():
    known, slip = {"name": "邹心倩", "phone": "13679246244"}, {"name": "邹心倩", "phone": "13679246424"}

    assert Band.MERGE is band(known, slip)
    assert set(blocking_keys(record(**known))) & set(blocking_keys(record(**slip)))
    assert Band.MERGE is not band(known, {**slip, "name": "邹心怡"})


def test_neighbours_in_a_block_of_numbers_born_on_other_days_are_never_merged():
    one = {"name": "郭洋建", "phone": "13800002015", "email": "k2015@mail.example", "birth_date": "1955-08-18"}
    other = {"name": "杨建国", "phone": "13800002065", "email": "k2065@mail.example", "birth_date": "1955-06-08"}

    assert Band.MERGE is not band(one, other)
    assert Band.MERGE is not band({**one, "name": "杨建国"}, other)


DISTRICT, HOUSE = ({"address": f"北京市朝阳区{rest}"} for rest in ("", "建国路1号3栋501室"))


@pytest.mark.parametrize("place", [{}, DISTRICT, HOUSE, {**HOUSE, "email": "home@b.cn"}])
@pytest.mark.parametrize("title", ["张先生", "张女士"])
def test_a_title_on_the_phone_of_one_whose_sex_nobody_knows_is_a_question(place, title):
    """张先生 may be the father of 张丽: who shares a phone shares house, mailbox and district."""
    assert called({"name": "张丽", **place}, name=title, **place).kind is AssignmentKind.REVIEW
    asked = [record("1", name="张丽", **PHONE, **place), record("2", name=title, **PHONE, **place)]
    assert len(resolve(asked, MODEL)) == 2


def test_mr_and_mrs_of_one_surname_on_one_phone_and_house_stay_two():
    known = {"name": "向慕雪", "gender": "女", **HOUSE}

    assert called(known, name="向女士", **HOUSE).kind is AssignmentKind.MERGE
    assert called(known, name="向先生", **HOUSE).kind is AssignmentKind.REVIEW
    assert called({"name": "向女士", **HOUSE}, name="向先生", **HOUSE).kind is AssignmentKind.REVIEW


def test_two_who_are_called_alike_on_a_phone_stay_two_where_the_sex_of_the_whole_name_is_not_known():
    items = [record(str(at), name=name, **PHONE, **HOUSE) for at, name in enumerate(("张丽", "张先生", "张先生"))]

    assert len(resolve(items, MODEL)) == 3
    assert called({"name": "张丽"}, {"name": "张先生"}).kind is AssignmentKind.REVIEW


def test_whom_a_title_means_does_not_depend_on_the_order_of_those_known_on_the_phone():
    """王志强 sounds like Wang Zhiqiang, and Wong Zhi Qiang like 黄志强: alike in a row is not alike."""
    title = traits_of(record("0", name="王先生", **PHONE))
    for family, expected in (
        (("王志强", "Wang Zhiqiang", "Wong Zhi Qiang"), True),
        (("王志强", "王自强", "王子强"), False),
        (("王乐", "Wang Le", "王勒", "Wang Yue"), False),
        (("王建林", "王建玲"), False),
    ):
        known = [traits_of(record(str(at), name=name, **PHONE)) for at, name in enumerate(family, 1)]
        assert {means_one(title, order) for order in permutations([title, *known])} == {expected}, family


def test_what_a_name_means_is_told_only_of_phones_all_of_whose_holders_are_known():
    both = record("1", name="张先生", phone="13912345671 18698765432")
    known = [traits_of(item) for item in (both, record("2", name="张三", phone="13912345671 18698765432"))]

    assert {identifier for identifier, _ in callings_among(known)} == {"+8613912345671", "+8618698765432"}
    assert {identifier for identifier, _ in callings_among(known, frozenset(("+8613912345671",)))} == {"+8613912345671"}


SIBLINGS = [("王建林", "王建玲"), ("张明", "张敏"), ("李欣", "李星"), ("刘思", "刘诗"), ("王建国", "王建民")]


@pytest.mark.parametrize("names", SIBLINGS)
@pytest.mark.parametrize("place", [{}, DISTRICT, HOUSE, {**HOUSE, "email": "home@b.cn"}])
@pytest.mark.parametrize("genders", [("男", "女"), ("男", ""), ("", ""), ("男", "男"), ("女", "女")])
def test_siblings_of_like_names_on_the_phone_of_their_parents_stay_two_and_are_asked_about(names, place, genders):
    left, right = (
        {"name": name, **PHONE, **place, **({"gender": gender} if gender else {})}
        for name, gender in zip(names, genders, strict=True)
    )

    assert Band.MERGE is not band(left, right)
    assert "" == compare(record("1", **left), record("2", **right), MODEL).rule
    assert called(left, **right).kind is not AssignmentKind.MERGE
    assert len(resolve([record("1", **left), record("2", **right)], MODEL)) == 2
    if place and genders != ("男", "女"):
        assert Band.REVIEW is band(left, right)


@pytest.mark.parametrize("names", [*SIBLINGS, ("张伟", "张薇"), ("张明", "张强")])
@pytest.mark.parametrize("place", [{}, DISTRICT, {**HOUSE, "email": "home@b.cn"}])
def test_twins_who_are_brother_and_sister_stay_two(names, place):
    both = {**PHONE, **place, "birth_date": "2010-05-06"}
    left, right = ({**both, "name": name, "gender": gender} for name, gender in zip(names, "男女", strict=True))

    assert Band.REVIEW is band(left, right)
    assert called(left, **right).kind is AssignmentKind.REVIEW


def test_sisters_whose_names_sound_alike_stay_two_where_they_are_born_on_other_days():
    left, right = {"name": "李丽", **PHONE, **HOUSE}, {"name": "李莉", **PHONE, **HOUSE}

    assert Band.REVIEW is band({**left, "birth_date": "1990-01-02"}, {**right, "birth_date": "1993-08-14"})


@pytest.mark.parametrize(("one", "other"), [("王明", "王小明"), ("张三", "张小宝")])
def test_father_and_son_on_one_phone_and_at_one_door_stay_two(one, other):
    home = {**PHONE, **HOUSE, "gender": "男"}

    assert Band.MERGE is not band({"name": one, **home}, {"name": other, **home})
    assert Band.MERGE is not band({"name": one, **home, "email": "a@b.cn"}, {"name": other, **home, "email": "a@b.cn"})


def test_a_slip_in_a_name_is_one_person_by_the_birth_date_or_the_document():
    known, slip = {"name": "王建林", **PHONE}, {"name": "王建玲", **PHONE}

    assert Band.MERGE is band({**known, "birth_date": "1990-01-02"}, {**slip, "birth_date": "1990-01-02"})
    assert Band.MERGE is band({**known, "resident_id": RESIDENT_ID}, {**slip, "resident_id": RESIDENT_ID})


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("王志强", "Wong Zhi Qiang", "sound"),
        ("黄志强", "Zhiqiang Wong", "sound"),
        ("张峰", "Cheung Feng", "sound"),
        ("李俊", "Jun Lee", "sound"),
        ("蔡英", "Tsai Ying", "sound"),
        ("陈伟", "Tan Wei", "sound"),
        ("林志玲", "Lam Zhi Ling", "sound"),
        ("黄先生", "Mr Wong", "initial"),
        ("李志强", "Wong Zhi Qiang", "other"),
        ("Jenny Lee", "李珍妮", "other"),
        ("刘桂英", "刘桂音", "near"),
        ("刘晨", "牛晨", "near"),
        ("王志强", "王自强", "near"),
        ("刘洁", "刘浩", "near"),
        ("王丹", "玉丹", "near"),
        ("王国强", "王建国", "surname"),
        ("John Ng", "Johl Ng", "edit"),
    ],
)
def test_chinese_names_are_heard_in_other_spellings_and_dialects(one, other, expected):
    assert level("name", {"name": one, "phone": "13912345671"}, {"name": other, "phone": "13912345671"}) == expected


@pytest.mark.parametrize("name", ["Wong Zhi Qiang", "Zhiqiang Wong", "王自强", "王志强"])
def test_who_is_spelled_otherwise_is_met_by_name_and_birth_date(name):
    known = {"name": "王志强", "birth_date": "1990-01-02"}
    assert set(blocking_keys(record(**known))) & set(blocking_keys(record(**{**known, "name": name})))


def test_a_name_in_one_house_number_is_a_person_where_the_name_is_rare():
    whole, short = {"address": "北京市朝阳区建国路88号5栋503室"}, {"address": "北京市朝阳区建国路88号"}

    assert Band.MERGE is band({"name": "祝抒远", **whole}, {"name": "祝抒远", "phone": "13912345671", **short})
    assert Band.MERGE is not band({"name": "王伟", **whole}, {"name": "王伟", "phone": "13912345671", **short})
    assert set(blocking_keys(record(name="祝抒远", **whole))) & set(blocking_keys(record(name="祝抒远", **short)))


@pytest.mark.parametrize(
    ("people", "expected"), [(5_000, Band.MERGE), (1_000_000, Band.REVIEW), (30_000_000, Band.APART)]
)
def test_the_more_people_there_are_the_less_a_frequent_name_and_a_birth_date_tell(people, expected):
    born = {"name": "王伟", "birth_date": "1990-01-02", "gender": "男"}
    found = compare(record("1", **born), record("2", **born), among(MODEL, people))

    assert found.band is expected
    assert [step.weight for step in found.steps if step.comparison == "crowd"] == (
        [] if people == 5_000 else [-float(int(log2(people / MODEL.people)))]
    )


@pytest.mark.parametrize("own", [
    {"phone": "13912345671"}, {"email": "wei@b.cn"}, {"resident_id": RESIDENT_ID},
    {"address": "北京市朝阳区建国路88号5栋503室"},
])  # fmt: skip
def test_a_phone_mailbox_document_or_home_tells_the_same_among_any_number_of_people(own):
    left, right = record("1", name="王伟", **own), record("2", name="王玮", **own)

    assert compare(left, right, among(MODEL, 30_000_000)).weight == compare(left, right, MODEL).weight


def test_namesakes_in_two_flats_of_one_compound_are_not_merged_among_many_people():
    li, number = {"name": "李建华", "gender": "男"}, "北京市朝阳区建国路88号"
    left, right = record("1", **li, address=f"{number}5栋503室"), record("2", **li, address=f"{number}6栋301室")

    assert compare(left, right, among(MODEL, 30_000_000)).band is Band.APART


def test_a_model_is_as_strict_as_the_doublings_of_those_it_was_learnt_among():
    unknown = replace(MODEL, people=0)

    assert among(MODEL, 2 * MODEL.people - 1) is MODEL
    assert [among(MODEL, MODEL.people << n).crowd_weight for n in (1, 4)] == [-1.0, -4.0]
    assert among(among(MODEL, MODEL.people << 4), 10) == MODEL
    assert among(unknown, 10**9) is unknown


def test_a_model_survives_its_file_and_tells_what_it_was_learnt_from():
    assert {lesson["key"] for lesson in MODEL.report["lessons"]} >= {"phone", "resident_id", "name_birth"}
    for model in (MODEL, among(MODEL, 30_000_000)):
        read = model_from_json(model_to_json(model))
        assert model_to_json(read) == model_to_json(model)
        assert (read.people, read.crowd_weight) == (MODEL.people, model.crowd_weight)


def test_a_batch_in_any_order_gives_the_same_clusters():
    wife = {"name": "李娜", "phone": "13912345671"}
    records = [record("1", **WANG), record("2", **WANG), record("3", **wife)]
    records += [record("4", **wife, email="l@b.cn"), record("5", name="赵六", email="z@b.cn")]

    def clusters(items):
        return sorted(tuple(sorted(cluster.keys)) for cluster in resolve(items, MODEL))

    assert clusters(records) == clusters(records[::-1])
    assert sorted(map(len, clusters(records))) == [1, 2, 2]


def test_only_the_newest_version_of_a_record_counts():
    old = record("1", name="王建国", phone="13912345671", at=NOW - timedelta(days=400))
    new = record("1", name="王建国", phone="18698765432")
    other = record("2", name="王建国", phone="13912345671")

    assert len(resolve([new, old, other], MODEL)) == 2


def level(comparison: str, left: dict[str, str], right: dict[str, str]) -> str:
    found = levels_of(traits_of(record("1", **left)), traits_of(record("2", **right)))
    assert found == levels_of(traits_of(record("2", **right)), traits_of(record("1", **left)))
    return dict(zip(LEVELS, found, strict=True))[comparison]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("小明", "王建明", "nickname"),
        ("阿明", "王明轩", "nickname"),
        ("明明", "李明", "nickname"),
        ("明明", "王小明", "nickname"),
        ("小明", "李明", "initial"),
        ("老王", "王建明", "initial"),
        ("小王", "李建明", "other"),
        ("王小明", "王明", "nickname"),
        ("王小明", "李明", "other"),
        ("王小明", "王建国", "surname"),
        ("Bob Smith", "Robert Smith", "nickname"),
        ("Bob Smith", "Rob Smith", "edit"),
        ("Bobby Smith", "Rob Smith", "nickname"),
        ("Bob Smith", "Robert Jones", "other"),
        ("Bob", "Robert Smith", "nickname"),
        ("Sandra Brown", "Alexandra Brown", "nickname"),
        ("Bob Smith", "Richard Smith", "surname"),
        ("Christopher Smith", "Cristofer Smith", "grams"),
        ("John Smith", "Jane Smith", "surname"),
        ("欧阳娜娜", "欧阳震华", "surname"),
    ],
)
def test_nicknames_and_names_alike_are_levels_in_both_directions(one, other, expected):
    assert level("name", {"name": one, "phone": "13912345671"}, {"name": other, "phone": "13912345671"}) == expected


def test_a_nickname_needs_something_of_the_person_and_then_merges():
    known = {"name": "王建明", "phone": "13912345671"}

    assert Band.MERGE is not band(known, {**known, "name": "小明"})
    born = {**known, "birth_date": "1990-01-02"}
    assert Band.MERGE is band(born, {**born, "name": "小明"})
    assert Band.MERGE is not band(
        {**known, "birth_date": "1990-01-02"}, {**known, "name": "小明", "birth_date": "1962-05-06"}
    )


def test_two_valid_documents_of_one_kind_never_join_and_of_two_kinds_may():
    left = record("1", **WANG, resident_id="E12345678")
    right = record("2", **WANG, resident_id="G87654321")
    permit = record("3", **WANG, resident_id="H1234567801")

    assert Band.APART is compare(left, right, MODEL).band
    assert "DIFFERENT_RESIDENT_ID" in compare(left, right, MODEL).vetoes
    assert Band.MERGE is compare(left, permit, MODEL).band
    assert len(resolve([left, right], MODEL)) == 2


def test_one_passport_and_the_name_are_one_person_who_is_met_by_it_alone():
    left, right = ({"name": "王建国", "resident_id": number} for number in ("E12345678", "护照：E1234 5678"))

    assert compare(record("1", **left), record("2", **right), MODEL).rule == "document+name"
    assert set(blocking_keys(record(**left))) & set(blocking_keys(record(**right)))
    assert level("resident_id", {"resident_id": "H1234567801"}, {"resident_id": "H1234567802"}) == "document"


def test_a_companys_credit_code_is_nobodys_document():
    code = {"phone": "13912345671", "resident_id": "91350100M000100Y43"}
    assert record(**code).documents
    assert level("resident_id", code, {**code, "name": "李娜"}) == ""


def test_an_age_that_contradicts_a_birth_date_speaks_against_and_one_that_fits_says_nothing():
    born = {**WANG, "birth_date": "1990-01-02"}

    assert level("birth_date", born, {**WANG, "birth_date": "90后"}) == ""
    assert level("birth_date", born, {**WANG, "birth_date": "1954年"}) == "other"
    assert level("birth_date", {**WANG, "birth_date": "60后"}, {**WANG, "birth_date": "90后"}) == "other"
    assert level("birth_date", {**WANG, "birth_date": "80后"}, {**WANG, "birth_date": "90后"}) == ""
    known, loose = {"name": "王建国", "gender": "男"}, {"name": "小国", "gender": "男"}
    assert called({**known, "birth_date": "1990-01-02"}, **loose, birth_date="90后").kind is AssignmentKind.MERGE
    assert called({**known, "birth_date": "1990-01-02"}, **loose, birth_date="1954年").kind is AssignmentKind.NEW


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("建国路1号3号楼2单元501室", "建国路1号三栋2单元501", "room"),
        ("建国路1号3号楼2单元501室", "建国路1号3幢602室", "building"),
        ("建国路1号3号楼2单元501室", "建国路1号", "number"),
        ("建国路1号3号楼2单元501室", "建国路1号9栋", "number"),
        ("建国路1号3号楼2单元501室", "建国路88号", "street"),
        ("建国路1号3号楼2单元501室", "东三环中路1号3号楼2单元501室", "district"),
    ],
)
def test_addresses_are_compared_down_to_the_room_however_it_is_written(one, other, expected):
    left, right = ({"name": "王建国", "address": f"北京市朝阳区{text}"} for text in (one, other))
    assert level("address", left, right) == expected
