"""A phone that very many have identifies nobody, in whatever batches its holders come."""

from __future__ import annotations

from itertools import count

import pytest

from services.profiles.domain.match import SHARED_LIMIT
from services.profiles.resolution.planning import Plan
from services.profiles.store import Store
from services.profiles.store.protocol import MAX_PER_TOKEN
from services.profiles.vault import Vault
from tests.profiles.domain.builders import record
from tests.profiles.test_full_pass import House
from tests.profiles.test_store import mongo_store, profile, store, write
from tests.profiles.test_store import record as stored

__all__ = ["mongo_store", "store"]

SURNAMES = "赵钱孙李周吴郑冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜"
NAMES = [surname + given for surname in SURNAMES for given in ("建国", "海燕", "志强", "丽娟", "文博", "雅琴", "思远")]
SHOP = {"phone": "13800001111", "email": "counter@shop.cn"}


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return Vault(tmp_path_factory.mktemp("keys"))


@pytest.mark.parametrize("identifier", ["phone", "email"])
@pytest.mark.parametrize(("others", "at_once"), [(4, 1), (20, 1), (45, 50), (60, 1), (60, 50), (60, 100), (200, 50)])
def test_two_namesakes_on_the_phone_or_mailbox_of_a_shop_stay_two(vault, identifier, others, at_once) -> None:
    shared = {identifier: SHOP[identifier]}
    elder = {"birth_date": "1960-05-06", "address": "上海市浦东新区陆家嘴环路1000号", "phone": "13857120946", **shared}
    younger = {"birth_date": "1991-02-03", "address": "上海市徐汇区漕溪北路88号", "phone": "13911110946", **shared}
    crowd = [record(str(at), name=NAMES[at], address=f"上海市浦东新区世纪大道{at}号", **shared) for at in range(others)]
    two = [record(key, name="王伟", gender="男", **known) for key, known in (("1960", elder), ("1991", younger))]
    house = House(vault)
    house.take([two[0], *crowd, two[1]], at_once)

    is_one = house.home("till/1960").profile_id == house.home("till/1991").profile_id
    assert is_one == (others < SHARED_LIMIT)


@pytest.mark.parametrize("others", [0, 60])
def test_namesakes_on_the_phone_of_a_shop_stay_two_when_both_are_written_at_the_same_moment(vault, others) -> None:
    house, shop = House(vault), {"phone": SHOP["phone"]}
    house.take([record(str(at), name=NAMES[at], **shop) for at in range(others)], 100)
    same = {"name": "王伟", "gender": "男", **shop}
    elder = record("1960", birth_date="1960-05-06", address="上海市浦东新区陆家嘴环路1000号", **same)
    younger = record("1991", birth_date="1991-02-03", address="上海市徐汇区漕溪北路88号", **same)
    write, calls = house.taker._write, count()

    def after_other(*args: object) -> object:
        if next(calls) == 0:
            house.take([elder])
        return write(*args)

    house.taker._write = after_other
    house.take([younger])

    is_one = house.home("till/1960").profile_id == house.home("till/1991").profile_id
    assert is_one == (others == 0)


@pytest.mark.parametrize("others", [0, 1])
def test_what_the_pass_doubts_is_scored_without_the_phone_that_the_pass_left_out(vault, others) -> None:
    house, same = House(vault), {"name": "王伟", "gender": "男", "phone": SHOP["phone"]}
    elder = record("1960", birth_date="1960-05-06", address="上海市浦东新区陆家嘴环路1000号", **same)
    younger = record("1991", birth_date="1991-02-03", address="上海市徐汇区漕溪北路88号", **same)
    crowd = [record(str(at), name=NAMES[at], phone=SHOP["phone"]) for at in range(60)]
    house.take([elder, younger, *crowd], 100)
    house.merger.merge([house.home("till/1960").profile_id, house.home("till/1991").profile_id])
    for at in range(others):
        house.merger.merge([house.home("till/1960").profile_id, house.home(f"till/{at}").profile_id])
    assert house.full_pass().doubts == 1 + others

    doubts = [pair for pair in house.store.pairs.page({"state": "check"}, "", 9) if pair.is_doubt]
    assert all(step[0] != "phone" for pair in doubts for step in pair.steps)
    assert max(pair.probability for pair in doubts) < 0.5


def test_a_plan_keeps_no_phone(vault) -> None:
    store = House(vault).store
    plan = Plan(store, vault, "plan")
    item = {"kind": "merge", "profiles": ["a", "b"], "shared": [["phone", "+8613800001111"]]}

    assert list(plan.write([item])) == [1]
    assert [kept for _, kept in plan.read(1, 0)] == [{**item, "shared": [vault.token("phone", "+8613800001111")]}]


def test_the_store_tells_which_tokens_lead_to_too_many(store: Store) -> None:
    crowd = [profile(f"p{i}", stored(i), tokens=("common", f"own{i}")) for i in range(MAX_PER_TOKEN + 1)]
    write(store, *crowd)

    found, crowded = store.near(["common", "own3", "nobody's"])
    assert ([item.profile_id for item in found], crowded) == ([crowd[3].profile_id], {"common"})
    assert store.look([], ["common", "own3"]).crowded == {"common"}
    assert store.look([], ["own3"]).crowded == frozenset()


@pytest.mark.parametrize("count", [50, 51, 200])
def test_a_customer_with_very_many_equal_records_stays_one_in_the_full_pass(vault, count) -> None:
    house = House(vault)
    member = {"name": "祝抒远", "phone": "13857120946", "resident_id": "110105199001023014"}
    house.take([record(f"receipt-{at}", **member) for at in range(count)], 50)
    house.take([record("card", name="祝抒远", phone="13857120946", email="zhu@example.cn")])
    told = house.full_pass()

    assert len(house.partition()) == 1
    assert (told.clusters, told.doubts) == (1, 0)
