"""Claims about what a service knows of the ids of profiles, in memory and in MongoDB alike."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import permutations

import mongoengine
import pytest

from services.chassis.identities import Identities, MemoryIdentities, MongoIdentities, one_living

TIME = datetime(2026, 11, 22, 1, 2, 3, 456789, tzinfo=UTC)


@pytest.fixture(params=["memory", pytest.param("mongo", marks=pytest.mark.mongo)])
def identities(request) -> Iterator[Identities]:
    if request.param == "memory":
        yield MemoryIdentities()
        return
    connection = mongoengine.connect(
        db="kehu_identities", alias="identities", host=request.getfixturevalue("mongo_uri"), tz_aware=True
    )
    for name in connection["kehu_identities"].list_collection_names():
        connection["kehu_identities"].drop_collection(name)
    made = MongoIdentities("identities")
    made.ensure_indexes()
    yield made
    mongoengine.disconnect(alias="identities")


FACTS = [("c", "b", 2), ("b", "a", 3), ("b", "", 5), ("b", "a", 7), ("b", "", 9)]


@pytest.mark.parametrize("order", list(permutations(range(5)))[::7])
def test_facts_in_any_order_and_twice_end_in_the_same_state(identities: Identities, order) -> None:
    for index in (*order, *order):
        identities.lead(*FACTS[index])

    assert identities.living(["a", "b", "c", "d"]) == {"c": "b"}
    assert identities.family(["a", "b"]) == {"c": "b"}


def test_a_chain_leads_to_its_end_and_an_id_in_its_middle_may_live_again(identities: Identities) -> None:
    assert identities.lead("c", "b", 2) and identities.lead("b", "a", 2)
    assert identities.living(["c", "b"]) == {"c": "a", "b": "a"}
    assert identities.family(["a"]) == {"b": "a", "c": "a"}

    assert identities.lead("b", "", 4) and not identities.lead("b", "a", 2)
    assert identities.knows("b", 4) and not identities.knows("b", 5) and not identities.knows("x", 0)
    assert identities.living(["c", "b"]) == {"c": "b"}
    assert (identities.family(["a"]), one_living(identities, "c")) == ({}, "b")


def test_two_ids_that_lead_to_each_other_mean_one_until_the_late_fact_comes(identities: Identities) -> None:
    identities.lead("b", "a", 2)
    identities.lead("a", "b", 2)
    assert {one_living(identities, item) for item in "ab"} == {"a"}

    identities.lead("b", "", 4)
    assert {one_living(identities, item) for item in "ab"} == {"b"}


def test_a_moved_record_belongs_to_whom_the_latest_split_gave_it(identities: Identities) -> None:
    identities.move(["shop/1", "shop/2"], "n2", TIME + timedelta(seconds=1))
    identities.move(["shop/1"], "n1", TIME)
    identities.move(["shop/1"], "n2", TIME + timedelta(seconds=1))
    identities.lead("n2", "a", 3)

    assert identities.owners(["shop/1", "shop/2", "shop/3"]) == {"shop/1": "a", "shop/2": "a"}
    identities.lead("n2", "", 5)
    assert identities.owners(["shop/1"]) == {"shop/1": "n2"}


def test_more_ids_than_fit_one_query_are_all_found(identities: Identities) -> None:
    for number in range(70):
        identities.lead(f"p{number}", "a", 1)

    assert len(identities.living([f"p{n}" for n in range(70)])) == len(identities.family(["a"])) == 70
