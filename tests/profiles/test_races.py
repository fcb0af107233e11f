"""Merges that others get in the way of: what was never compared is not joined, and no verdict is lost."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, pairwise

import pytest

from services.profiles.aliases import resolve
from services.profiles.errors import CandidateDecided
from services.profiles.folding import are_apart
from services.profiles.merging import Merger
from services.profiles.reviewing import Reviews
from services.profiles.vault import Vault
from tests.profiles.domain.builders import record
from tests.profiles.test_full_pass import House, split_apart

NAME, PHONE, OTHER_PHONE, EMAIL = "祝抒远", "13857120946", "13926408137", "zhu@example.com"
FIRST_ID, SECOND_ID = "110105199001023014", "33010619850606202X"
FIRST = record("4", name=NAME, phone=PHONE, email=EMAIL)
SECOND = record("5", name=NAME, phone=OTHER_PHONE, email=EMAIL)


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return Vault(tmp_path_factory.mktemp("keys"))


def three(vault: Vault, *, have_ids: bool = True) -> tuple[House, list[str]]:
    """Return a house with three profiles of one name, the first and last of which are two persons; and their ids."""
    house = House(vault)
    first, last = ({"resident_id": FIRST_ID}, {"resident_id": SECOND_ID}) if have_ids else ({}, {})
    house.take([record("1", name=NAME, phone=PHONE, **first)])
    house.take([record("2", name=NAME, email=EMAIL)])
    house.take([record("3", name=NAME, phone=OTHER_PHONE, **last)])
    ids = [house.home(f"till/{number}").profile_id for number in (1, 2, 3)]
    assert len(set(ids)) == 3
    if not have_ids:
        house.merger.keep_apart(ids[0], ids[2])
    return house, ids


def before_first(house: House, name: str, act: Callable[[], object]) -> None:
    """Let somebody else act once, just before the merger is called."""
    real, calls = getattr(house.merger, name), count()

    def acting(*args: object) -> object:
        if next(calls) == 0:
            act()
        return real(*args)

    setattr(house.merger, name, acting)


def are_two(house: House, one: str, other: str) -> bool:
    living = resolve(house.store, [one, other])
    return living[one].profile_id != living[other].profile_id


@pytest.mark.parametrize("have_ids", [True, False], ids=["two resident ids", "ruled apart"])
def test_two_records_of_one_batch_chain_nobody_together(vault: Vault, have_ids: bool) -> None:
    house, ids = three(vault, have_ids=have_ids)

    house.take([FIRST, SECOND], at_once=2)

    assert are_two(house, ids[0], ids[2])
    assert len(house.partition()) == 2
    assert have_ids or are_apart(*(resolve(house.store, ids)[item] for item in (ids[0], ids[2])))


@pytest.mark.parametrize("have_ids", [True, False], ids=["two resident ids", "ruled apart"])
def test_two_processes_chain_nobody_together(vault: Vault, have_ids: bool) -> None:
    house, ids = three(vault, have_ids=have_ids)
    before_first(house, "merge_all", lambda: None)
    merge, calls = house.taker._merge, count()

    def second_first(*args: object) -> object:
        if next(calls) == 0:
            house.take([SECOND])
        return merge(*args)

    house.taker._merge = second_first
    house.take([FIRST])

    assert are_two(house, ids[0], ids[2])
    assert len(house.partition()) == 2


def test_a_long_chain_in_one_batch_is_merged_to_its_end(vault: Vault) -> None:
    house = House(vault)
    contacts = [{"email": f"e{at}@example.com"} if at % 2 else {"phone": f"1385712{at * 823:04d}"} for at in range(12)]
    house.take([record(f"p{at}", name=NAME, **item) for at, item in enumerate(contacts)])
    assert len(house.partition()) == len(contacts)
    chained = [record(f"c{at}", name=NAME, **one, **other) for at, (one, other) in enumerate(pairwise(contacts))]

    house.take(chained, at_once=len(chained))

    assert len(house.partition()) == 1


def test_a_record_of_the_batch_that_speaks_against_a_merge_is_heard(vault: Vault) -> None:
    house, ids = three(vault)

    house.take([FIRST, record("6", name=NAME, email=EMAIL, resident_id=SECOND_ID)], at_once=2)

    assert are_two(house, house.home("till/6").profile_id, ids[0])


def test_a_verdict_between_the_look_and_the_merge_is_kept(vault: Vault) -> None:
    house, ids = three(vault)
    before_first(house, "merge_all", lambda: house.merger.keep_apart(ids[0], ids[1]))

    house.take([FIRST])

    assert are_two(house, ids[0], ids[1])
    assert are_apart(*(house.store.profiles(ids)[item] for item in ids[:2]))


def test_a_verdict_on_one_of_many_merges_that_are_written_together_is_kept(vault: Vault) -> None:
    house, ids = three(vault)
    house.take([record("7", name="李四方", phone="13857120001"), record("8", name="王五岳", phone="13857120002")])
    pairs = [tuple(ids[:2]), (house.home("till/7").profile_id, house.home("till/8").profile_id)]
    house.merger.keep_apart(*pairs[0])

    house.merger.merge_all(pairs)

    assert are_two(house, *pairs[0])
    assert not are_two(house, *pairs[1])


def test_a_verdict_while_the_full_pass_merges_is_kept(vault: Vault) -> None:
    house = House(vault)
    one, other = split_apart(house)
    before_first(house, "merge", lambda: house.merger.keep_apart(one, other))

    house.full_pass()

    assert are_two(house, one, other)


class Interrupted:
    """A view of a store that lets somebody else act just before its n-th write."""

    def __init__(self, store: object, writes: int, act: Callable[[], object]) -> None:
        self._store, self._left, self._act = store, writes, act

    def __getattr__(self, name: str) -> object:
        if name == "write_profiles":
            self._left -= 1
            if self._left == -1:
                self._act()
        return getattr(self._store, name)


@pytest.mark.parametrize("writes", range(4))
@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_a_verdict_and_a_merge_at_once_one_is_first(vault: Vault, writes: int, is_reversed: bool) -> None:
    house, ids = three(vault)
    told: list[bool] = []
    both = ids[1::-1] if is_reversed else ids[:2]
    store = Interrupted(house.store, writes, lambda: told.append(house.merger.keep_apart(*both)))
    merger = Merger(store, vault, house.taker.dictionary)  # type: ignore[arg-type]

    merger.merge(ids[:2])

    if told and told[0]:
        assert are_two(house, *both)
        assert are_apart(*house.store.profiles(both).values())
    else:
        assert not are_two(house, *both)


@pytest.mark.parametrize("writes", range(3))
@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_a_merge_within_a_verdict_one_is_first(vault: Vault, writes: int, is_reversed: bool) -> None:
    house, ids = three(vault)
    both = ids[1::-1] if is_reversed else ids[:2]
    store = Interrupted(house.store, writes, lambda: house.merger.merge(both))
    merger = Merger(store, vault, house.taker.dictionary)  # type: ignore[arg-type]

    assert merger.keep_apart(*both) is are_two(house, *both)


@pytest.mark.parametrize("is_at_once", [False, True])
def test_a_batch_written_at_the_same_moment_is_compared_with_all_records(vault: Vault, is_at_once: bool) -> None:
    house = House(vault)
    other = record("9", name=NAME, phone=PHONE, resident_id=SECOND_ID)
    write, calls = house.taker._write, count()

    def after_other(*args: object) -> object:
        if next(calls) == 0:
            house.take([other])
        return write(*args)

    if is_at_once:
        house.taker._write = after_other
    else:
        house.take([other])
    batch = [
        record("1", name=NAME, phone=PHONE, email=EMAIL),
        record("2", name=NAME, email=EMAIL, resident_id=FIRST_ID),
    ]
    house.take(batch, at_once=2)

    assert are_two(house, house.home("till/2").profile_id, house.home("till/9").profile_id)


def two_questions(vault: Vault) -> tuple[House, Reviews, Reviews]:
    """Return a house in which two open pairs are about the same two profiles, and two stewards."""
    house = House(vault)
    house.take([record("1", name="王建明", phone=PHONE, email="a@example.com")])
    house.take([record("2", name="王建明", email="b@example.com", birth_date="1980-01-02")])
    house.take([record("3", name="王建林", phone=PHONE, email="b@example.com")])
    house.take([record("4", name="王建明", phone=PHONE, email="b@example.com")])
    assert len(house.partition()) == 2
    found = [Reviews(house.store, house.merger, name, lambda _: True) for name in ("user:li", "user:wang")]
    return house, found[0], found[1]


def test_who_was_ruled_apart_is_not_asked_about_under_another_pair(vault: Vault) -> None:
    house, li, wang = two_questions(vault)
    first = li.next()
    assert first is not None
    li.decide(first, "rejected", "brothers")

    assert wang.next() is None
    assert {pair.state for pair in house.store.pairs.page({}, "", 9)} == {"rejected", "obsolete"}


def test_confirming_another_pair_merges_nobody_who_was_ruled_apart(vault: Vault) -> None:
    house, li, wang = two_questions(vault)
    claimed = wang.next()
    first = li.next()
    assert first is not None and claimed is not None
    li.decide(first, "rejected", "brothers")

    with pytest.raises(CandidateDecided):
        wang.decide(claimed, "confirmed", "looks alike")
    assert len(house.partition()) == 2
    assert all(profile.apart for profile in house.store.page_profiles("", 9, ()))
    assert {pair.state for pair in house.store.pairs.page({}, "", 9)} == {"rejected", "obsolete"}


def test_a_verdict_whose_process_died_before_it_was_noted_is_given_again(vault: Vault) -> None:
    house, li, _ = two_questions(vault)
    pair = li.next()
    assert pair is not None
    house.merger.keep_apart(pair.one, pair.other)

    assert li.decide(pair, "rejected", "brothers").state == "rejected"
