"""Whatever was merged can be split again, at any depth: every part, and the whole when merged anew, is as it was."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kehu.profiles.v1 import events_pb2

from services.chassis.records import new_id
from services.profiles.admission import Entry, settings_of
from services.profiles.aliases import resolve_one
from services.profiles.believed import believe, to_plain
from services.profiles.domain.overrides import read_override
from services.profiles.domain.values import ManualOverride
from services.profiles.folding import are_apart
from services.profiles.merging import Merger
from services.profiles.overriding import Overrider
from services.profiles.shaping import load
from services.profiles.store import MemoryStore, Store
from services.profiles.values import Profile, Source
from tests.profiles.people import Service, person

SOURCES = ("till", "shop", "crm")
START = datetime(2026, 1, 1, tzinfo=UTC)
FOREVER = datetime(2999, 1, 1, tzinfo=UTC)
SEQUENCES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
STEPS = st.lists(st.tuples(st.sampled_from("mmssuo"), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=12)


class World:
    """Some people in a store of their own, and what sources and stewards do to them."""

    def __init__(self, keys_dir: Path, store: Store | None = None) -> None:
        self.service = Service(keys_dir, store)
        self.store, self.merger = self.service.store, self.service.taker.merger
        self.overrider = Overrider(self.store, self.service.vault, self.service.tools.dictionary)
        self._ticks = count()

    def take(self, source: str, record_id: str, fields: dict[str, str]) -> str:
        """Take a record in and return its profile."""
        time = START + timedelta(minutes=next(self._ticks))
        entry = Entry(1, fields, False, record_id, time)
        return self.service.tools.admission().admit(settings_of(Source(source, "sales")), [entry])[0][0].profile_id

    def found(self, people: int, records_each: Sequence[int]) -> list[str]:
        """Found profiles of different people, each with so many records."""
        ids = []
        for number, size in zip(range(people), records_each, strict=False):
            made = [self.take(SOURCES[n], str(number), {**person(number), "tier": f"t{n}"}) for n in range(size)]
            assert len(set(made)) == 1
            ids.append(made[0])
        return ids

    def override(self, profile_id: str, phone: int) -> None:
        """Let a steward set the phone."""
        now = START + timedelta(minutes=next(self._ticks))
        made = read_override("phone", f"136{phone % 10**8:08d}", "user:li", now, "said so", FOREVER)
        assert isinstance(made, ManualOverride)
        anchor_key = self.overrider.anchor_of(resolve_one(self.store, profile_id), "phone")
        self.overrider.set(profile_id, made, new_id(), anchor_key)

    def living(self) -> list[Profile]:
        """Return all living profiles."""
        return self.store.page_profiles("", 1000, ())

    def state(self, profile_id: str) -> dict[str, object]:
        """Return all that is believed of a person and what it rests on, without names and times of profiles."""
        profile = resolve_one(self.store, profile_id)
        (working,), ciphers = load(self.store, self.service.vault, [profile])
        overrides = list(self.service.vault.open_overrides(profile, ciphers).values())
        golden = self.service.vault.open_golden(profile, ciphers)
        assert to_plain(golden) == to_plain(believe(list(working.records.values()), overrides=overrides))
        return {
            "records": {item.key: (item.number, item.content_hash, tuple(item.tokens)) for item in profile.records},
            "overrides": sorted((item.id, item.anchor) for item in profile.overrides),
            "believed": to_plain(golden) | {"s": sorted(golden.source_names)},
            "department": profile.owner_department,
            "tier": profile.tier,
        }

    def told(self, profile_id: str) -> events_pb2.ProfileChanged:
        """Return what the other services know last of a profile."""
        facts = [item.message for item in self.store.facts if isinstance(item.message, events_pb2.ProfileChanged)]
        return next(item for item in reversed(facts) if item.profile_id == profile_id)


@pytest.fixture(scope="module")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@SEQUENCES
@given(
    sizes=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    overridden=st.sets(st.integers(0, 3)),
    data=st.data(),
)
def test_merge_unmerge_merge_returns_to_the_same_state(keys_dir: Path, sizes, overridden, data) -> None:
    world = World(keys_dir)
    ids = world.found(len(sizes), sizes)
    for at in sorted(overridden & set(range(len(ids)))):
        world.override(ids[at], at)
    apart = {item: world.state(item) for item in ids}

    for item in data.draw(st.permutations(ids[1:])):
        world.merger.merge([ids[0], item])
    together = world.state(ids[0])
    parts = {}
    for item in data.draw(st.permutations(ids[1:])):
        _, parts[item] = world.merger.split(ids[0], sorted(apart[item]["records"]), new_id())

    assert parts == {item: item for item in ids[1:]}, "each is again who it was"
    assert world.state(ids[0]) == apart[ids[0]]
    assert {item: world.state(part) for item, part in parts.items()} == {item: apart[item] for item in ids[1:]}
    for part in data.draw(st.permutations(list(parts.values()))):
        world.merger.merge([part, ids[0]], "user:li")
    assert world.state(ids[0]) == together
    for name in (*ids, *parts.values()):
        assert resolve_one(world.store, name).profile_id == ids[0], "every name ever given answers"


@SEQUENCES
@given(sizes=st.lists(st.integers(1, 3), min_size=2, max_size=4), steps=STEPS)
def test_any_sequence_of_merges_splits_corrections_and_overrides_loses_nothing(keys_dir: Path, sizes, steps) -> None:
    world = World(keys_dir)
    names = world.found(len(sizes), sizes)
    groups = [set(world.store.profiles([item])[item].record_keys) for item in names]
    fields = {key: person(int(key.split("/")[1])) for group in groups for key in group}
    for kind, one, other in steps:
        group = groups[one % len(groups)]
        profile = world.store.by_record_keys([min(group)])[0]
        if kind == "m" and len(groups) > 1:
            second = groups[(one + 1 + other % (len(groups) - 1)) % len(groups)]
            other_id = world.store.by_record_keys([min(second)])[0].profile_id
            world.merger.merge([profile.profile_id, other_id], "user:li")
            group |= second
            groups.remove(second)
        elif kind == "s" and len(group) > 1:
            leaving = sorted(group)[: 1 + other % (len(group) - 1)]
            names.append(world.merger.split(profile.profile_id, leaving, new_id())[1])
            group -= set(leaving)
            groups.append(set(leaving))
        elif kind == "u":
            key = sorted(group)[other % len(group)]
            fields[key] = {**fields[key], "email": f"n{other}@example.cn"}
            world.take(*key.split("/"), fields[key])
        elif kind == "o":
            world.override(profile.profile_id, other)

    living = world.living()
    assert sorted(sorted(item.record_keys) for item in living) == sorted(map(sorted, groups))
    assert {resolve_one(world.store, name).profile_id for name in names} == {item.profile_id for item in living}
    for item in living:
        world.state(item.profile_id)
        told = world.told(item.profile_id)
        assert sorted(f"{link.source_id}/{link.source_record_id}" for link in told.links) == sorted(item.record_keys)
        assert world.store.by_tokens(item.tokens[:1])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(("s", [], ["t"]), ("t", [], []), True), (("s", ["p"], ["q"]), ("t", ["q"], ["p"]), True),
     (("s", ["p"], []), ("t", [], ["p"]), True), (("s", ["p"], ["x"]), ("t", ["q"], ["y"]), False)],
)  # fmt: skip
def test_two_persons_stay_two_under_the_names_they_were_merged_into(one, other, expected) -> None:
    profiles = [Profile(name, START, START, aliases=aliases, apart=apart) for name, aliases, apart in (one, other)]

    assert are_apart(*profiles) is are_apart(*reversed(profiles)) is expected


def test_parts_that_were_split_off_one_after_another_stay_apart(keys_dir: Path) -> None:
    world = World(keys_dir)
    (whole,) = world.found(1, (3,))
    parts = [world.merger.split(whole, [key], new_id())[1] for key in ("crm/0", "shop/0")]
    for source in SOURCES:
        world.take(source, "0", {**person(0), "email": "changed@example.cn"})

    assert sorted(item.profile_id for item in world.living()) == sorted([whole, *parts])


class Dies(Exception):
    """The process ends here."""


def dying_store(world: World, writes: int) -> MemoryStore:
    """Return a view of the store that dies at its n-th write from now on."""
    left = [writes]

    class Dying:
        def __getattr__(self, name: str) -> object:
            if name in ("write_profiles", "write_part"):
                if left[0] == 0:
                    raise Dies
                left[0] -= 1
            return getattr(world.store, name)

    return Dying()  # type: ignore[return-value]


@pytest.mark.parametrize("writes", range(7))
def test_a_split_that_was_begun_ends_whoever_finishes_it(keys_dir: Path, writes: int) -> None:
    world = World(keys_dir)
    ids = world.found(4, (2, 1, 2, 1))
    world.merger.merge([ids[2], ids[3]])
    world.merger.merge(ids[:3])
    apart = sorted(world.store.profiles([ids[0]])[ids[0]].record_keys)
    leaving = [key for key in apart if key.endswith(("/2", "/3"))]
    dying = Merger(dying_store(world, writes), world.service.vault, world.service.tools.dictionary)
    with suppress(Dies):
        dying.split(ids[0], leaving, new_id(), "user:li", "two persons")
    if writes == 1:  # the profile has not given the record up yet
        assert world.take("till", "2", {**person(2), "email": "later@example.cn"}) == ids[0]
    assert sum(len(item.record_keys) for item in world.living()) in (len(apart), len(apart) - len(leaving))

    world.merger.settle_abandoned(datetime.now(UTC) + timedelta(minutes=1))

    found = {item.profile_id: sorted(item.record_keys) for item in world.living()}
    whole = {ids[0]: apart}
    split = {ids[0]: [key for key in apart if key not in leaving], ids[2]: leaving}
    assert found == (split if writes else whole)
    assert [resolve_one(world.store, name).profile_id for name in ids] == [
        ids[0], ids[0], *([ids[2]] * 2 if writes else [ids[0]] * 2)
    ]  # fmt: skip
    assert writes != 1 or "later@example.cn" in str(world.state(ids[2])["believed"]), "no correction is lost on the way"
    told = [fact.message for fact in world.store.facts if isinstance(fact.message, events_pb2.ProfilesUnmerged)]
    assert [(item.profile_id, item.unmerged_profile_id, list(item.aliases)) for item in told] == (
        [(ids[0], ids[2], [ids[3]])] if writes else []
    )


def test_an_id_goes_where_its_own_records_go_at_any_depth(keys_dir: Path) -> None:
    world = World(keys_dir)
    a, b, c = world.found(3, (1, 1, 1))
    world.merger.merge([b, c])
    world.merger.merge([a, b])

    assert world.merger.split(a, ["till/1"], new_id()) == (a, b), "what was merged into it stays"
    assert resolve_one(world.store, c).profile_id == a
    world.merger.merge([a, b], "user:li")
    assert world.merger.split(a, ["till/2"], new_id()) == (a, c)
    world.merger.merge([a, c], "user:li")
    assert world.merger.split(a, ["till/0"], new_id()) == (b, a), "the profile keeps its id with its own records"
    assert [resolve_one(world.store, name).profile_id for name in (a, b, c)] == [a, b, b]


def test_a_record_that_never_was_a_profile_gets_a_new_id_and_says_since_when_it_was_there(keys_dir: Path) -> None:
    world = World(keys_dir)
    (whole,) = world.found(1, (2,))
    came = datetime.now(UTC)
    world.take("crm", "0", person(0))
    world.take("crm", "0", {**person(0), "email": "second@example.cn"})
    born = new_id()

    assert world.merger.split(whole, ["crm/0"], born) == (whole, born)
    (told,) = [fact.message for fact in world.store.facts if isinstance(fact.message, events_pb2.ProfilesUnmerged)]
    assert came <= told.together_since.ToDatetime(UTC) <= told.event_time.ToDatetime(UTC)
    assert [link.source_record_id for link in told.links] == ["0"]


def test_versions_of_an_id_order_its_merges_and_splits(keys_dir: Path) -> None:
    world = World(keys_dir)
    a, b = world.found(2, (1, 1))
    for _ in range(3):
        world.merger.merge([a, b], "user:li")
        world.merger.split(a, ["till/1"], new_id())
    told = [fact.message for fact in world.store.facts]
    of_b = [
        item.merged_profile_version if isinstance(item, events_pb2.ProfilesMerged) else item.version
        for item in told
        if isinstance(item, events_pb2.ProfilesMerged | events_pb2.ProfilesUnmerged)
    ]

    assert len(of_b) == 6 and of_b == sorted(set(of_b))
