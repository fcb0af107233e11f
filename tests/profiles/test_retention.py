"""Retention: what is due is taken, what is held stays, nothing comes back, and a receipt proves it."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.longrunning import operations_pb2
from hypothesis import given
from hypothesis import strategies as st
from kehu.profiles.v1 import export_pb2, profiles_pb2, relations_pb2, resources_pb2
from kehu.profiles.v1 import retention_pb2 as pb

from services.chassis.errors import Unavailable
from services.chassis.jobs import Worker
from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.ageing import transactions
from services.profiles.ageing.holding import held_now, holds_on
from services.profiles.ageing.receipts import Receipts
from services.profiles.ageing.retaining import Keeper
from services.profiles.ageing.transactions import Month
from services.profiles.domain import merkle
from services.profiles.domain.retention import WHOLE, Action, RecordType, RetentionRule, due_rules, without
from services.profiles.domain.sources import SourceSettings
from services.profiles.domain.standardize import standardize
from services.profiles.domain.values import RawRecord
from services.profiles.exporting import Exporter
from services.profiles.relations.suggesting import Suggester
from services.profiles.store import Store
from services.profiles.values import HISTORY_AT_HAND, Ageing, StoredHold, StoredReceipt, record_key
from tests.profiles.conftest import Desk, reason_of
from tests.profiles.people import Service, person, source_request
from tests.profiles.test_store import mongo_store, profile, record, store, write

__all__ = ["mongo_store", "store"]
NOW = datetime(2026, 6, 1, tzinfo=UTC)
OLD, FRESH = "2019-01-02T03:04:05Z", "2035-01-01T00:00:00Z"
LAW = "PIPL art. 19; contract ended"
RECORDS = pb.RetentionRule.RECORD_TYPE_SOURCE_RECORDS
DELETE, GENERALIZE = pb.RetentionRule.ACTION_DELETE, pb.RetentionRule.ACTION_GENERALIZE


# --- the rules themselves -------------------------------------------------------------------------------------------


def standard(**fields: str):  # noqa: ANN201
    raw = RawRecord("till", "1", NOW - timedelta(days=1000), {**person(3), "level": "gold", **fields})
    return standardize(raw, SourceSettings("till", ()))


def rule(field: str = WHOLE, action: Action = Action.DELETE, days: int = 365, **more: object) -> RetentionRule:
    return RetentionRule(f"r_{field}_{action}", 1, RecordType.SOURCE_RECORDS, days, action, field, **more)  # type: ignore[arg-type]


def test_a_record_is_due_when_its_days_are_over_and_not_a_moment_before() -> None:
    changed = NOW - timedelta(days=365)
    assert rule().is_due(changed, NOW, NOW)
    assert not rule().is_due(changed + timedelta(microseconds=1), NOW, NOW)
    assert not rule(counts_received=True).is_due(changed, NOW, NOW)


def test_a_whole_record_leaves_nothing_but_its_name_and_owner() -> None:
    left = without(standard(), ["*:delete"])
    assert left.name is None
    assert (left.phones, left.emails, left.birth_date, left.address, left.originals) == ((), (), "", None, {})
    assert left.key == ("till", "1")


@pytest.mark.parametrize("field", ["name", "phone", "email", "birth_date", "address", "level"])
def test_a_deleted_field_is_nowhere_in_the_record_and_the_others_stay(field: str) -> None:
    before, left = standard(), without(standard(), [f"{field}:delete"])
    assert field not in left.originals
    assert left.originals == {name: text for name, text in before.originals.items() if name != field}
    assert before.originals[field] not in repr(left)


def test_a_generalized_field_says_less_and_nothing_new() -> None:
    left = without(standard(), ["name:generalize", "birth_date:generalize", "address:generalize"])
    assert left.name is not None and left.address is not None
    assert (left.name.surname, left.name.given) == (standard().name.surname, "")  # type: ignore[union-attr]
    assert (left.birth_date, left.birth_years) == ("", (1953, 1953))
    assert (left.address.text, left.address.district_code) == ("浙江省杭州市", "")
    assert "文三路" not in repr(left)
    assert without(left, ["address:generalize"]) == left


def test_the_gravest_rule_is_taken_for_each_field_and_what_was_done_is_not_done_again() -> None:
    rules = [rule("address", Action.GENERALIZE), rule("address"), rule("phone"), rule("level", days=4000)]
    found = due_rules(rules, standard(), NOW, [], NOW)
    assert [item.mark for item in found] == ["address:delete", "phone:delete"]
    assert [item.mark for item in due_rules([*rules, rule()], standard(), NOW, [], NOW)] == ["*:delete"]
    assert due_rules(rules, standard(), NOW, ["*:delete"], NOW) == []
    assert [i.mark for i in due_rules(rules, standard(), NOW, ["address:generalize", "phone:delete"], NOW)] == [
        "address:delete"
    ]


def test_a_rule_that_finds_nothing_to_take_is_not_counted() -> None:
    assert due_rules([rule("resident_id"), rule("unheard_of")], standard(), NOW, [], NOW) == []


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70), st.data())
def test_every_entry_of_a_tree_is_proven_and_no_other_is(entries: list[bytes], data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(item) for item in entries]
    at = data.draw(st.integers(0, len(leaves) - 1))
    traced = merkle.trace(iter(leaves), leaves[at])
    path, found = traced.path, traced.root
    assert (leaves[traced.index], traced.count) == (leaves[at], len(leaves))
    assert merkle.root_by_path(leaves[at], traced.index, len(leaves), path) == found
    other = merkle.leaf_hash(b"another entry")
    assert merkle.root_by_path(other, traced.index, len(leaves), path) != found


def test_the_tree_is_that_of_rfc_9162() -> None:
    """The root of seven entries as section 2.1.1 defines it, written out; and that of none."""
    d = [merkle.leaf_hash(bytes([i])) for i in range(7)]
    node = merkle.node_hash
    assert merkle.trace(d, b"").root == node(node(node(d[0], d[1]), node(d[2], d[3])), node(node(d[4], d[5]), d[6]))
    assert merkle.trace([], b"").root.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(ValueError, match="another place"):
        merkle.root_by_path(d[0], 0, 7, merkle.trace(d, d[0]).path[:-1])


# --- the stores -----------------------------------------------------------------------------------------------------


def test_things_that_age_are_listed_by_id_and_removed_one_by_one(store: Store) -> None:
    person_ = profile("a", record(1))
    store.archive([(record(1, number), person_.profile_id) for number in (1, 2)])
    store.keep_past([replace(person_, version=3), replace(person_, version=12)])
    store.add_chunk("u1", 0, b"part")

    superseded = store.ageing(RecordType.SUPERSEDED_VERSIONS, "", 10)
    assert superseded == [Ageing(f"till/1/{n}", record(1).received_time, "till", person_.profile_id) for n in (1, 2)]
    past = store.ageing(RecordType.PAST_PROFILES, "", 10)
    assert [(item.id[-3:], item.profile_id, item.time) for item in past] == [
        ("003", person_.profile_id, person_.since), ("012", person_.profile_id, person_.since)
    ]  # fmt: skip
    (part,) = store.ageing(RecordType.UPLOADS, "", 10)
    assert part.id == "u1/0" and datetime.now(UTC) - part.time < timedelta(minutes=1)
    assert store.ageing(RecordType.SUPERSEDED_VERSIONS, "till/1/1", 10) == superseded[1:]
    assert store.ageing(RecordType.SUPERSEDED_VERSIONS, "", 1) == superseded[:1]

    for kind, item in ((RecordType.SUPERSEDED_VERSIONS, superseded[0]), (RecordType.PAST_PROFILES, past[0])):
        store.drop_aged(kind, [item.id, "never/there/1"])
        assert store.aged(kind, [item.id]) == []
        assert len(store.ageing(kind, "", 10)) == 1
    store.drop_aged(RecordType.UPLOADS, ["u1/0"])
    assert store.chunk("u1", 0) is None


def test_versions_go_with_their_record_and_past_with_its_profile_and_others_stay(store: Store) -> None:
    mine, other = profile("a", record(1)), profile("b", record(2))
    store.archive([(record(1), mine.profile_id), (record(2), other.profile_id)])
    store.keep_past([replace(mine, version=1), replace(other, version=1)])

    store.drop_versions(["till/1"], [mine.profile_id])

    assert store.archived("till", "1") == []
    assert [(item.golden, item.record_keys) for item in store.past_versions(mine.profile_id, 9, 9)] == [
        (b"", ["till/1"])
    ]
    assert len(store.archived("till", "2")) == 1
    assert [item.golden for item in store.past_versions(other.profile_id, 9, 9)] == [b"golden"]


def test_the_marks_of_retention_are_kept_with_a_record(store: Store) -> None:
    marked = replace(record(1), retired=["phone:delete"], barred=["phone:delete"])
    write(store, profile("a", marked, record(2)))
    found = {item.key: item for item in store.by_record_keys(["till/1"])[0].records}
    assert (found["till/1"].retired, found["till/1"].barred) == (["phone:delete"], ["phone:delete"])
    assert not found["till/2"].retired and not found["till/2"].barred


# --- runs -----------------------------------------------------------------------------------------------------------


class MemoryInteractions:
    """Interactions as (month, profile id); tests/analytics/test_retention.py claims the same of a lake."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def months(self, kept_ids: Sequence[str]) -> list[Month]:
        """Return the months that have interactions."""
        counts = Counter(month for month, _ in self.rows)
        kept = Counter(month for month, owner in self.rows if owner in kept_ids)
        return [Month(month, count, kept[month]) for month, count in sorted(counts.items())]

    def delete(self, months: Sequence[str], kept_ids: Sequence[str]) -> None:
        """Delete the interactions of months."""
        self.rows = [(month, owner) for month, owner in self.rows if month not in months or owner in kept_ids]


class Archive:
    """A desk with retention: rules made, tried, used; runs run."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.call = desk, desk.call
        self.store, self.vault = desk.service.store, desk.service.vault
        self.lake = MemoryInteractions()
        self.keeper = Keeper(self.store, self.vault, desk.service.tools.dictionary, self.lake, page=2)

    def rule(self, rule_id: str, *, use: bool = True, **fields: object) -> str:
        wanted = {"record_type": RECORDS, "days": 365, "action": DELETE, "basis": LAW, **fields}
        request = pb.CreateRetentionRuleRequest(retention_rule_id=rule_id, retention_rule=pb.RetentionRule(**wanted))
        name = self.call("CreateRetentionRule", request).name
        if use:
            self.run(rule=name, dry_run=True)
            self.call("ActivateRetentionRule", pb.ActivateRetentionRuleRequest(name=name, revision=1))
        return name

    def operation(self, **request: object) -> operations_pb2.Operation:
        started = self.call("RunRetention", pb.RunRetentionRequest(**request))
        self.work()
        return self.desk.service.jobs.get(started.name, "data-office")

    def run(self, **request: object) -> pb.RetentionRun:
        run = pb.RetentionRun()
        operation = self.operation(**request)
        assert operation.response.Unpack(run), operation
        return run

    def work(self) -> bool:
        return Worker("profiles", self.keeper.handlers(), self.desk.service.operations).run_one()

    def hold(self, **scope: object) -> pb.LegalHold:
        request = pb.CreateLegalHoldRequest(legal_hold=pb.LegalHold(reason="case 17", **scope))
        return self.call("CreateLegalHold", request)

    def receipts(self) -> list[pb.RetentionReceipt]:
        return list(self.call("ListRetentionReceipts", pb.ListRetentionReceiptsRequest()).retention_receipts)

    def everything_stored(self) -> str:
        """Return all that is known of anybody, opened: profiles, records, former versions, past."""
        found = []
        for item in self.store.page_profiles("", 1000, ()):
            ciphers = self.vault.ciphers(self.store, [item])
            found += [self.vault.open_golden(item, ciphers), self.vault.open_overrides(item, ciphers)]
            found += [self.vault.open_record(stored, ciphers) for stored in item.records]
            for past in self.store.past_versions(item.profile_id, 10**9, 100):
                found += [self.vault.open_golden(past, ciphers)] if past.golden else []
            for stored in item.records:
                former = self.store.archived(stored.source_id, stored.source_record_id)
                found += [self.vault.open_record(old, ciphers) for old in former]
        return repr(found)


@pytest.fixture
def archive(desk: Desk) -> Archive:
    return Archive(desk)


def done(run: pb.RetentionRun) -> dict[str, tuple[int, int, int]]:
    return {item.rule.rpartition("/")[2]: (item.due_count, item.done_count, item.held_count) for item in run.counts}


def test_a_dry_run_counts_names_and_changes_nothing(archive: Archive) -> None:
    for number in range(5):
        archive.desk.upsert("till", f"T-{number}", person(number), OLD if number < 3 else FRESH)
    before = archive.everything_stored(), len(archive.store.facts)
    name = archive.rule("stale", use=False)

    run = archive.run(rule=name, dry_run=True)

    assert done(run) == {"stale": (3, 0, 0)}
    assert sorted(run.counts[0].samples) == [f"sources/till/records/T-{n}" for n in range(3)]
    assert (archive.everything_stored(), len(archive.store.facts)) == before
    assert archive.receipts() == []
    assert archive.call("GetRetentionRule", pb.GetRetentionRuleRequest(name=name)).trial.due_count == 3


def test_a_rule_is_used_only_after_its_revision_had_a_dry_run(archive: Archive) -> None:
    name = archive.rule("stale", use=False)
    activate = pb.ActivateRetentionRuleRequest(name=name, revision=1)
    assert archive.desk.refused("ActivateRetentionRule", activate) == "RULE_NOT_TRIED"
    archive.run(rule=name, dry_run=True)
    archive.call("ActivateRetentionRule", activate)
    change = pb.UpdateRetentionRuleRequest(retention_rule=pb.RetentionRule(name=name, days=100))
    changed = archive.call("UpdateRetentionRule", change)
    assert (changed.revision, changed.active_revision) == (2, 1)
    activate.revision = 2
    assert archive.desk.refused("ActivateRetentionRule", activate) == "RULE_NOT_TRIED"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"action": GENERALIZE, "field": "phone"}, "action"),
        ({"action": GENERALIZE}, "action"),
        ({"field": "unheard_of"}, "field"),
        ({"field": "province_code"}, "field"),
        ({"record_type": pb.RetentionRule.RECORD_TYPE_REJECTS, "field": "phone"}, "field"),
        ({"record_type": pb.RetentionRule.RECORD_TYPE_UPLOADS, "source": "sources/till"}, "source"),
        ({"source": "sources/nowhere"}, "source"),
        ({"field": "phone", "days": 5000}, "days"),
        ({"record_type": pb.RetentionRule.RECORD_TYPE_REJECTS, "bars_newer_versions": True}, "bars_newer_versions"),
        (
            {
                "record_type": pb.RetentionRule.RECORD_TYPE_REJECTS,
                "measured_from": pb.RetentionRule.CLOCK_RECEIVED,
            },
            "measured_from",
        ),
    ],
)
def test_a_rule_that_cannot_be_is_refused(archive: Archive, fields: dict[str, object], wrong: str) -> None:
    wanted = pb.RetentionRule(**{"record_type": RECORDS, "days": 365, "action": DELETE, "basis": LAW, **fields})
    request = pb.CreateRetentionRuleRequest(retention_rule_id="x", retention_rule=wanted)
    assert archive.desk.refused("CreateRetentionRule", request) == "RULE_INVALID"
    assert archive.store.retention_rules.page({}, "", 9) == []
    assert wrong


def test_what_a_run_took_is_nowhere_and_its_row_does_not_bring_it_back(archive: Archive) -> None:
    desk, old = archive.desk, person(1)
    first = desk.upsert("till", "T-1", {**old, "phone": "13711112222"}, "2018-01-01T00:00:00Z")
    name = desk.upsert("till", "T-1", old, OLD)
    other = desk.upsert("shop", "S-9", person(9), FRESH)
    assert first == name != other
    archive.rule("stale")
    facts = len(archive.store.facts)

    assert done(archive.run()) == {"stale": (1, 1, 0)}

    stored = archive.everything_stored()
    assert old["phone"] not in stored and "13711112222" not in stored and old["email"] not in stored
    assert person(9)["phone"][-8:] in stored
    assert desk.profile(name).display_name == ""
    assert not archive.call("LookupProfiles", profiles_pb2.LookupProfilesRequest(phone=old["phone"])).profiles
    (told,) = archive.store.facts[facts:]
    identity = profiles_identity(archive, told.message.sealed_identity)
    assert (told.message.profile_id, identity) == (name.rpartition("/")[2], "")
    past = profiles_pb2.GetProfileRequest(name=name)
    past.as_of.FromDatetime(archive.store.profiles([name.rpartition("/")[2]])[name.rpartition("/")[2]].create_time)
    assert desk.refused("GetProfile", past) == "HISTORY_NOT_KEPT"
    assert desk.history(name)[0].kind == resources_pb2.ProfileRevision.KIND_RETENTION

    desk.upsert("till", "T-1", old, OLD)
    desk.upsert("till", "T-1", old, FRESH)
    assert old["phone"] not in archive.everything_stored()
    assert done(archive.run()) == {"stale": (0, 0, 0)}


def profiles_identity(archive: Archive, sealed: bytes) -> str:
    from kehu.profiles.v1 import events_pb2

    found = events_pb2.ProfileIdentity.FromString(archive.vault.events.open(sealed))
    return found.display_name + "".join(found.phones) + "".join(found.source_names)


def test_a_newer_version_is_a_sign_of_life_unless_the_rule_bars_it(archive: Archive) -> None:
    desk, old = archive.desk, person(1)
    name = desk.upsert("till", "T-1", old, OLD)
    archive.rule("phones", field="phone")
    archive.rule("mails", field="email", bars_newer_versions=True)
    assert done(archive.run()) == {"phones": (1, 1, 0), "mails": (1, 1, 0)}
    taken = desk.profile(name)
    assert (list(taken.phones), list(taken.emails)) == ([], [])
    assert taken.display_name

    again = desk.upsert("till", "T-1", {**old, "phone": "13700001111"}, FRESH)

    assert again == name
    alive = desk.profile(name)
    assert (list(alive.phones), list(alive.emails)) == (["+8613700001111"], [])
    assert old["email"] not in archive.everything_stored()
    assert not archive.call("LookupProfiles", profiles_pb2.LookupProfilesRequest(email=old["email"])).profiles
    assert done(archive.run()) == {"phones": (0, 0, 0), "mails": (0, 0, 0)}


def test_of_a_generalized_field_less_is_believed(archive: Archive) -> None:
    name = archive.desk.upsert("till", "T-1", person(1), OLD)
    archive.rule("places", field="address", action=GENERALIZE)
    archive.run()
    found = archive.desk.profile(name).address
    assert (found.text, found.city_code, found.district_code) == ("浙江省杭州市", "330100", "")
    assert "文三路" not in archive.everything_stored()


def test_only_records_of_the_rules_source_are_taken_and_the_profile_keeps_the_others(archive: Archive) -> None:
    name = archive.desk.upsert("till", "T-1", person(1), OLD)
    assert archive.desk.upsert("shop", "S-1", {**person(1), "address": "北京市海淀区中关村大街1号"}, OLD) == name
    archive.rule("till_only", source="sources/till")

    assert done(archive.run()) == {"till_only": (1, 1, 0)}

    found = archive.desk.profile(name)
    assert found.address.province_code == "110000"
    assert found.source_count == 2
    assert "文三路" not in archive.everything_stored()


@pytest.mark.parametrize("scope", ["profile", "source", "rule", "everything", "merged"])
def test_what_is_held_is_skipped_and_counted_until_it_is_released(archive: Archive, scope: str) -> None:
    desk = archive.desk
    name = desk.upsert("till", "T-1", person(1), OLD)
    if scope == "merged":
        gone = desk.upsert("shop", "S-1", person(2), OLD)
        desk.service.taker.merger.merge([name.rpartition("/")[2], gone.rpartition("/")[2]])
    archive.rule("stale", source="sources/till")
    values = {
        "profile": {"profile": name}, "source": {"source": "sources/till"}, "rule": {"rule": "retentionRules/stale"},
        "everything": {"everything": True}, "merged": {"profile": ""},
    }  # fmt: skip
    if scope == "merged":
        values["merged"] = {"profile": gone}
    hold = archive.hold(**values[scope])

    assert done(archive.run()) == {"stale": (0, 0, 1)}
    assert person(1)["email"] in archive.everything_stored()
    assert archive.receipts()[-1].counts[0].held_count == 1

    released = archive.call("ReleaseLegalHold", pb.ReleaseLegalHoldRequest(name=hold.name))
    assert released.HasField("release_time") and released.released_by == released.set_by != ""
    assert done(archive.run()) == {"stale": (1, 1, 0)}
    assert person(1)["email"] not in archive.everything_stored()


def test_a_hold_follows_a_person_who_is_split(archive: Archive) -> None:
    desk = archive.desk
    name = desk.upsert("till", "T-1", person(1), OLD)
    assert desk.upsert("shop", "S-1", person(1), OLD) == name
    archive.hold(profile=name)
    record_name = resources_pb2.SourceRecordName(source="sources/shop", source_record_id="S-1")
    desk.call(
        "UnmergeProfile",
        profiles_pb2.UnmergeProfileRequest(name=name, source_records=[record_name], reason="two people"),
    )
    archive.rule("stale")

    assert done(archive.run()) == {"stale": (0, 0, 2)}


def split_off(archive: Archive, name: str, record_id: str) -> str:
    """Split a record of the shop out of a profile and return the name of whom it is now."""
    record_name = resources_pb2.SourceRecordName(source="sources/shop", source_record_id=record_id)
    request = profiles_pb2.UnmergeProfileRequest(name=name, source_records=[record_name], reason="two people")
    return archive.desk.call("UnmergeProfile", request).new_profile.name


def test_a_hold_is_kept_by_both_sides_of_a_split_that_each_merge_into_another(archive: Archive) -> None:
    desk, merger = archive.desk, archive.desk.service.taker.merger
    older = [desk.upsert("till", f"T-{number}", person(number), OLD) for number in (5, 6)]
    name = desk.upsert("till", "T-1", person(1), OLD)
    desk.upsert("shop", "S-1", person(1), OLD)
    hold = archive.hold(profile=name)
    ids = [item.rpartition("/")[2] for item in (*older, name, split_off(archive, name, "S-1"))]
    for survivor, gone in ((ids[0], ids[3]), (ids[1], ids[2])):
        assert merger.merge([survivor, gone]) == survivor
    archive.rule("stale")

    living = archive.store.profiles(ids[:2])
    assert [holds_on(archive.store, living[item], datetime.now(UTC)) for item in ids[:2]] == [[hold.name]] * 2
    assert done(archive.run()) == {"stale": (0, 0, 4)}


def test_a_hold_is_kept_by_whoever_is_split_from_one_who_was_split(archive: Archive) -> None:
    desk = archive.desk
    name = desk.upsert("till", "T-1", person(1), OLD)
    for record_id in ("S-1", "S-2"):
        assert desk.upsert("shop", record_id, person(1), OLD) == name
    stranger = desk.upsert("till", "T-2", person(2), OLD)
    hold = archive.hold(profile=name)
    keys = [record_key("shop", "S-1"), record_key("shop", "S-2")]
    _, out = desk.service.taker.merger.split(name.rpartition("/")[2], keys, "0" * 32)
    last = split_off(archive, f"profiles/{out}", "S-2").rpartition("/")[2]
    archive.rule("stale")

    found = archive.store.profiles([last, stranger.rpartition("/")[2]])
    assert holds_on(archive.store, found[last], datetime.now(UTC)) == [hold.name]
    assert holds_on(archive.store, found[stranger.rpartition("/")[2]], datetime.now(UTC)) == []
    assert done(archive.run()) == {"stale": (1, 1, 3)}


def test_a_split_is_not_forgotten_by_a_hold_after_many_changes_and_history_is_whole(archive: Archive) -> None:
    desk = archive.desk
    name = desk.upsert("till", "T-1", person(1), OLD)
    desk.upsert("shop", "S-1", person(1), OLD)
    archive.hold(profile=name)
    out = split_off(archive, name, "S-1")
    for day in range(HISTORY_AT_HAND + 5):
        time = (datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=day)).isoformat().replace("+00:00", "Z")
        for source_id, record_id, at in (("till", "T-1", name), ("shop", "S-1", out)):
            assert desk.upsert(source_id, record_id, {**person(1), "email": f"new{day}@example.cn"}, time) == at

    assert out.rpartition("/")[2] in held_now(archive.store, datetime.now(UTC)).profiles
    pages = paged(desk, name)
    versions = [item.version for item in pages]
    assert versions == list(range(versions[0], 0, -1))


def paged(desk: Desk, name: str) -> list[resources_pb2.ProfileRevision]:
    """Return the whole history of a profile, in pages."""
    found, token = [], ""
    while True:
        request = profiles_pb2.GetProfileHistoryRequest(name=name, page_size=60, page_token=token)
        page = desk.call("GetProfileHistory", request)
        found, token = [*found, *page.revisions], page.next_page_token
        if not token:
            return found


def test_a_hold_set_while_a_run_is_under_way_still_holds(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        archive.desk.upsert("till", f"T-{number}", person(number), OLD)
    archive.rule("stale")
    find, seen = archive.keeper._retirer.due, []

    def hold_after_the_first_page(*args: object):  # noqa: ANN202
        found = find(*args)  # type: ignore[arg-type]
        seen.append(found.last)
        if len(seen) == 1:
            archive.hold(everything=True)
        return found

    monkeypatch.setattr(archive.keeper._retirer, "due", hold_after_the_first_page)
    run = archive.run()
    assert run.counts[0].done_count == 0
    assert run.counts[0].held_count == 4


def test_a_hold_that_is_over_and_a_hold_on_nobody_are_refused(archive: Archive) -> None:
    for scope, reason in (
        ({"profile": "profiles/" + "0" * 32}, "PROFILE_NOT_FOUND"),
        ({"source": "sources/nowhere"}, "SOURCE_NOT_FOUND"),
        ({"rule": "retentionRules/none"}, "RULE_NOT_FOUND"),
    ):
        assert reason_of(lambda scope=scope: archive.hold(**scope)) == reason
    past = pb.LegalHold(everything=True, reason="x")
    past.expire_time.FromJsonString(OLD)
    refused = archive.desk.refused("CreateLegalHold", pb.CreateLegalHoldRequest(legal_hold=past))
    assert refused == "RETENTION_REFUSED"


def test_an_expected_count_that_is_wrong_changes_nothing_and_the_right_one_runs(archive: Archive) -> None:
    for number in range(3):
        archive.desk.upsert("till", f"T-{number}", person(number), OLD)
    archive.rule("stale")
    before = archive.everything_stored()

    failed = archive.operation(expected_count=2)

    assert failed.error.code and "another number" in failed.error.message
    assert archive.everything_stored() == before
    assert archive.receipts() == []
    assert done(archive.run(expected_count=3)) == {"stale": (3, 3, 0)}


def test_superseded_versions_past_rejects_and_uploads_are_removed_by_rules_of_their_own(archive: Archive) -> None:
    desk, store = archive.desk, archive.store
    for phone in ("13711112222", "13733334444", "13755556666"):
        desk.upsert("till", "T-1", {**person(1), "phone": phone}, FRESH)
    desk.upsert("till", "T-2", {**person(2), "phone": "1.38E+10"})
    store.add_chunk("abandoned", 0, b"part")
    kinds = {
        "versions": pb.RetentionRule.RECORD_TYPE_SUPERSEDED_VERSIONS,
        "past": pb.RetentionRule.RECORD_TYPE_PAST_PROFILES,
        "rejects": pb.RetentionRule.RECORD_TYPE_REJECTS, "uploads": pb.RetentionRule.RECORD_TYPE_UPLOADS,
    }  # fmt: skip
    for rule_id, kind in kinds.items():
        archive.rule(rule_id, record_type=kind, days=1)
    assert {name: found[0] for name, found in done(archive.run()).items()} == dict.fromkeys(kinds, 0)

    age(archive, timedelta(days=2))
    counts = done(archive.run())

    assert counts == {"versions": (2, 2, 0), "past": (2, 2, 0), "rejects": (1, 1, 0), "uploads": (1, 1, 0)}
    assert store.archived("till", "T-1") == [] and store.chunk("abandoned", 0) is None
    assert store.rejects.page({}, "", 9) == []
    assert "13711112222" not in archive.everything_stored()
    assert archive.receipts()[-1].item_count == 6


def age(archive: Archive, by: timedelta) -> None:
    """Let the things in the memory store be older."""
    store = archive.store
    store._archive = {  # type: ignore[attr-defined]
        key: (replace(found, received_time=found.received_time - by), owner)
        for key, (found, owner) in store._archive.items()  # type: ignore[attr-defined]
    }
    for versions in store._past.values():  # type: ignore[attr-defined]
        for number, item in versions.items():
            last = replace(item.revisions[-1], time=item.revisions[-1].time - by)
            versions[number] = replace(item, revisions=[last])
    for key, item in store.rejects._items.items():  # type: ignore[attr-defined]
        store.rejects._items[key] = replace(item, create_time=item.create_time - by)  # type: ignore[attr-defined]
    store._chunks = {key: (part, time - by) for key, (part, time) in store._chunks.items()}  # type: ignore[attr-defined]


def test_a_receipt_proves_one_item_to_whoever_holds_no_key_and_shows_no_other(archive: Archive) -> None:
    for number in range(5):
        archive.desk.upsert("till", f"T-{number}", person(number), OLD)
    archive.rule("stale")
    run = archive.run()
    (receipt,) = archive.receipts()
    assert (receipt.name, receipt.item_count, receipt.is_genuine) == (run.receipt, 5, True)
    assert (receipt.counts[0].rule, receipt.counts[0].revision, receipt.counts[0].basis) == (
        "retentionRules/stale", 1, LAW
    )  # fmt: skip

    request = pb.ProveRetentionRequest(name=receipt.name, item="sources/till/records/T-3")
    proof = archive.call("ProveRetention", request)

    leaf = hashlib.sha256(b"\0" + (proof.nonce + proof.item).encode()).digest()
    path = [bytes.fromhex(item) for item in proof.path]
    found = merkle.root_by_path(leaf, proof.leaf_index, proof.item_count, path)
    assert found.hex() == receipt.merkle_root
    assert not any(
        merkle.leaf_hash(f"{proof.nonce}sources/till/records/T-{n}".encode()) in path for n in range(5) if n != 3
    )
    request.item = "sources/till/records/T-9"
    assert archive.desk.refused("ProveRetention", request) == "RECEIPT_NOT_FOUND"
    assert "T-3" not in repr(archive.store.receipts.page({}, "", 9)) + repr(archive.store.leaves.page({}, "", 9))


def test_receipts_are_chained_and_a_changed_one_is_told(archive: Archive) -> None:
    archive.rule("stale")
    for number in range(3):
        archive.desk.upsert("till", f"T-{number}", person(number), OLD)
        archive.run()
    receipts = archive.receipts()
    assert [item.name[-1] for item in receipts] == ["1", "2", "3"]
    assert [item.previous_seal for item in receipts] == ["", receipts[0].seal, receipts[1].seal]
    stored = archive.store.receipts.get("00000002")
    assert stored is not None
    forged = replace(stored, content=stored.content.replace('"1"', '"0"'))
    assert forged.content != stored.content
    assert not Receipts(archive.store, archive.vault).message(forged).is_genuine


def test_a_schedule_comes_back_and_leaves_a_receipt_each_time(archive: Archive) -> None:
    archive.desk.upsert("till", "T-1", person(1), OLD)
    archive.rule("stale")
    operation = archive.operation(every_hours=24)
    assert not operation.done and len(archive.receipts()) == 1
    jobs = archive.desk.service.operations
    document = jobs.get(operation.name)
    assert document is not None
    assert timedelta(hours=23) < document["wake_at"] - datetime.now(UTC) <= timedelta(hours=24)  # type: ignore[operator]
    archive.desk.upsert("till", "T-2", person(2), OLD)
    jobs.update(operation.name, str(document["lease"]), {"wake_at": datetime.now(UTC)})
    archive.work()
    first, second = archive.receipts()
    assert (first.item_count, second.item_count) == (1, 1)
    assert first.run != second.run
    for wrong in ({"dry_run": True}, {"expected_count": 1}):
        request = pb.RunRetentionRequest(every_hours=1, **wrong)
        assert archive.desk.refused("RunRetention", request) == "RETENTION_REFUSED"


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("dies_at", range(1, 33))
def test_killed_at_any_write_and_run_again_is_the_same_state_and_one_receipt(
    tmp_path: Path, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(tmp_path / "keys")
    with service.serving() as harness:
        desk = Desk(service, harness)
        desk.call("CreateSource", source_request("till"))
        archive = Archive(desk)
        for number in range(5):
            desk.upsert("till", f"T-{number}", {**person(number), "phone": ""}, OLD)
            desk.upsert("till", f"T-{number}", person(number), OLD.replace("02T", "03T"))
        for number in (5, 6, 7):
            desk.upsert("till", f"T-{number}", {**person(number), "email": "", "phone": ""}, FRESH)
            desk.upsert("till", f"T-{number}", {**person(number), "email": ""}, FRESH)
        archive.rule("mails", field="email", days=10)
        archive.rule("versions", record_type=pb.RetentionRule.RECORD_TYPE_SUPERSEDED_VERSIONS, days=1)
        age(archive, timedelta(days=2))
        started = archive.call("RunRetention", pb.RunRetentionRequest())
        left = [dies_at]

        def mortal(owner: object, name: str) -> None:
            do = getattr(owner, name)

            def write_(*args: object, **kwargs: object) -> object:
                left[0] -= 1
                if left[0] == 0:
                    raise Died
                found = do(*args, **kwargs)
                left[0] -= 1
                if left[0] == 0:
                    raise Died
                return found

            monkeypatch.setattr(owner, name, write_)

        for owner, name in (
            (archive.store, "write_profiles"), (archive.store, "drop_versions"), (archive.store, "drop_aged"),
            (archive.store.leaves, "insert"), (archive.store.receipts, "insert"),
        ):  # fmt: skip
            mortal(owner, name)
        try:
            archive.work()
            died = False
        except Died:
            died = True
        document = service.operations.get(started.name)
        assert document is not None and died != document["done"]
        service.operations.update(started.name, str(document["lease"]), {"wake_at": datetime.now(UTC)})
        archive.work()

        run = pb.RetentionRun()
        assert service.jobs.get(started.name, "data-office").response.Unpack(run)
        counts = done(run)
        assert counts == {"mails": (5, 5, 0), "versions": (3, 3, 0)}
        (receipt,) = archive.receipts()
        assert receipt.item_count == 8
        assert "@mail" not in archive.everything_stored()
        for number in range(5):
            request = pb.ProveRetentionRequest(name=receipt.name, item=f"sources/till/records/T-{number}#email")
            assert archive.call("ProveRetention", request).item_count == receipt.item_count
        assert archive.store.ageing(RecordType.SUPERSEDED_VERSIONS, "", 9) == []


def test_of_ten_thousand_records_none_is_taken_early_none_is_left_late_and_no_held_one_goes(archive: Archive) -> None:
    """Ages lie around the limit, many of them exactly on a day; every tenth record's person is held."""
    store, count = archive.store, 10_000
    source = store.sources.get("till")
    assert source is not None
    dice, started = random.Random(33), datetime.now(UTC)
    ages = [
        timedelta(days=365, seconds=dice.choice((-3600, 3600, dice.randint(-(10**7), 10**7)))) for _ in range(count)
    ]
    admission = Admission(store, archive.vault, archive.desk.service.taker)
    entries = [
        Entry(n, {"name": f"客户{n}", "email": f"keep{n}@mail.cn"}, False, f"K-{n}", started - ages[n])
        for n in range(count)
    ]
    admission.admit(settings_of(source), entries)
    archive.keeper = Keeper(store, archive.vault, archive.desk.service.tools.dictionary, archive.lake, page=500)
    archive.rule("old")
    kept = store.page_profiles("", count, ())[::10]
    held = {item.record_keys[0] for item in kept}
    for item in kept:
        store.holds.insert(StoredHold(item.profile_id, "profile", item.profile_id, "case 17", "user:test", None))

    run = archive.run()

    limit = run.start_time.ToDatetime(tzinfo=UTC) - timedelta(days=365)
    records = {item.key: item for one in store.page_profiles("", count, ()) for item in one.records}
    taken = {key for key, item in records.items() if item.retired}
    due = {key for key, item in records.items() if item.updated_time <= limit}
    assert len(records) == count and len(due) > 3000 and len(due & held) > 300
    assert taken == due - held
    assert done(run) == {"old": (len(due - held), len(taken), len(due & held))}


# --- interactions of the lake ---------------------------------------------------------------------------------------

INTERACTIONS = pb.RetentionRule.RECORD_TYPE_INTERACTIONS


def test_months_whose_last_day_is_due_go_and_no_other_and_the_receipt_names_them(archive: Archive) -> None:
    now = datetime.now(UTC)
    recent = f"{now - timedelta(days=320):%Y-%m}"
    archive.lake.rows = [("2020-11", "a"), ("2020-12", "a"), ("2020-12", "b"), (recent, "a"), (f"{now:%Y-%m}", "b")]
    before = list(archive.lake.rows)
    name = archive.rule("purchases", use=False, record_type=INTERACTIONS)

    run = archive.run(rule=name, dry_run=True)

    assert (done(run), list(run.counts[0].samples)) == (
        {"purchases": (2, 0, 0)}, ["interactions/2020-11", "interactions/2020-12"]
    )  # fmt: skip
    assert archive.lake.rows == before
    archive.call("ActivateRetentionRule", pb.ActivateRetentionRuleRequest(name=name, revision=1))
    assert done(archive.run()) == {"purchases": (2, 2, 0)}
    assert archive.lake.rows == before[3:]
    (receipt,) = archive.receipts()
    proof = pb.ProveRetentionRequest(name=receipt.name, item="interactions/2020-12")
    assert archive.call("ProveRetention", proof).item_count == receipt.item_count == 2
    assert done(archive.run()) == {"purchases": (0, 0, 0)}


def test_a_month_is_due_when_its_last_day_is_and_not_a_day_before() -> None:
    assert Month("2025-11", 1, 0).end == datetime(2025, 12, 1, tzinfo=UTC)
    assert Month("2025-12", 1, 0).end == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_held_persons_interactions_stay_while_those_of_others_go(archive: Archive) -> None:
    name = archive.desk.upsert("till", "T-1", person(1), FRESH)
    profile_id = name.rpartition("/")[2]
    archive.lake.rows = [("2020-11", profile_id), ("2020-11", "other"), ("2020-12", profile_id), ("2021-01", "other")]
    archive.rule("purchases", record_type=INTERACTIONS)
    hold = archive.hold(profile=name)

    assert done(archive.run()) == {"purchases": (2, 2, 2)}
    assert archive.lake.rows == [("2020-11", profile_id), ("2020-12", profile_id)]
    assert done(archive.run()) == {"purchases": (0, 0, 2)}

    archive.call("ReleaseLegalHold", pb.ReleaseLegalHoldRequest(name=hold.name))
    assert done(archive.run()) == {"purchases": (2, 2, 0)}
    assert archive.lake.rows == []


@pytest.mark.parametrize(
    "scope", [{"everything": True}, {"rule": "retentionRules/purchases"}, {"source": "sources/till"}]
)
def test_a_hold_on_a_source_a_rule_or_everything_holds_all_months(archive: Archive, scope: dict[str, object]) -> None:
    archive.lake.rows = [("2020-11", "a"), ("2020-12", "b")]
    archive.rule("purchases", record_type=INTERACTIONS)
    archive.hold(**scope)
    assert done(archive.run()) == {"purchases": (0, 0, 2)}
    assert len(archive.lake.rows) == 2


def test_more_held_people_than_the_lake_can_be_told_hold_all_months(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = archive.desk.upsert("till", "T-1", person(1), FRESH)
    archive.lake.rows = [("2020-11", "a"), ("2020-12", name.rpartition("/")[2])]
    archive.rule("purchases", record_type=INTERACTIONS)
    hold = archive.hold(profile=name)
    monkeypatch.setattr(transactions, "MOST_KEPT", 0)
    assert done(archive.run()) == {"purchases": (0, 0, 2)}
    assert len(archive.lake.rows) == 2
    archive.call("ReleaseLegalHold", pb.ReleaseLegalHoldRequest(name=hold.name))
    assert done(archive.run()) == {"purchases": (2, 2, 0)}


def test_a_rule_for_interactions_takes_neither_field_nor_source_nor_less_than_all(archive: Archive) -> None:
    known = {"record_type": INTERACTIONS, "days": 365, "action": DELETE, "basis": LAW}
    wrongs = {"field": "phone"}, {"source": "sources/till"}, {"action": GENERALIZE}, {"bars_newer_versions": True}
    for wrong in wrongs:
        wanted = {**known, **wrong}
        request = pb.CreateRetentionRuleRequest(retention_rule_id="x", retention_rule=pb.RetentionRule(**wanted))
        assert archive.desk.refused("CreateRetentionRule", request) == "RULE_INVALID"


def test_a_lake_that_is_down_is_waited_for_and_the_run_ends_with_one_receipt(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise Unavailable("down")

    archive.lake.rows = [("2020-11", "a")]
    archive.rule("purchases", record_type=INTERACTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(archive.lake, "delete", down)
        operation = archive.operation()
    assert not operation.done and archive.receipts() == []
    document = archive.desk.service.operations.get(operation.name)
    assert document is not None
    archive.desk.service.operations.update(operation.name, str(document["lease"]), {"wake_at": datetime.now(UTC)})
    archive.work()
    (receipt,) = archive.receipts()
    assert (receipt.item_count, archive.lake.rows) == (1, [])


def test_two_runs_that_end_at_once_have_two_numbers(archive: Archive) -> None:
    receipts = Receipts(archive.store, archive.vault)
    one, two = receipts.issue("operations/a/1", NOW, []), receipts.issue("operations/b/1", NOW, [])
    assert (one.id, two.id) == ("00000001", "00000002")
    assert receipts.issue("operations/a/1", NOW, []) == one
    assert isinstance(one, StoredReceipt)


def test_a_role_without_the_right_may_not_run_hold_or_see(archive: Archive) -> None:
    from services.access.defaults import ACTIONS

    allowed = {role for role, rights in ACTIONS.items() if "retention" in rights}
    assert allowed == {"role:steward"}


def test_what_a_run_took_is_in_no_file_of_an_export_either(archive: Archive) -> None:
    desk, ann = archive.desk, {"caller": "user:ann@marketing", "purpose": "marketing"}
    desk.upsert("till", "T-1", person(1), OLD)
    exporter = Exporter(archive.store, archive.vault)

    def export() -> str:
        operation = desk.call("ExportProfiles", export_pb2.ExportProfilesRequest(), **ann)
        while Worker("profiles", exporter.handlers(), desk.service.operations).run_one():
            pass
        made = export_pb2.Export()
        assert desk.service.jobs.get(operation.name, "marketing").response.Unpack(made)
        return made.name

    archive.rule("stale_phone", field="phone")
    before = export()
    assert done(archive.run()) == {"stale_phone": (1, 1, 0)}

    request = export_pb2.DownloadExportRequest(name=before)
    assert reason_of(lambda: desk.call("DownloadExport", request, **ann)) == "EXPORT_WITHDRAWN"
    desk.call("DownloadExport", export_pb2.DownloadExportRequest(name=export()), **ann)


@pytest.mark.parametrize("bars", [False, True])
def test_what_a_column_said_of_two_is_taken_with_its_field_and_the_same_row_does_not_bring_it_back(
    archive: Archive, bars: bool
) -> None:
    desk, created = archive.desk, profiles_pb2.CreateFieldDefinitionRequest(field_id="spouse", field_definition={})
    desk.call("CreateFieldDefinition", created)
    made = source_request("club")
    made.source.relations.add(field="spouse", type="relationTypes/spouse")
    desk.call("CreateSource", made)
    row = {**person(1), "spouse": "2"}
    one, _ = desk.upsert("club", "1", row, OLD), desk.upsert("club", "2", person(2), FRESH)
    archive.rule("stale_spouse", field="spouse", bars_newer_versions=bars)

    def said() -> int:
        request = relations_pb2.ListRelationshipsRequest(parent=one)
        return len(desk.call("ListRelationships", request).relationships)

    assert said() == 1
    assert done(archive.run()) == {"stale_spouse": (1, 1, 0)}
    assert said() == 0
    desk.upsert("club", "1", row, OLD)
    assert said() == 0, "the row is unchanged"
    desk.upsert("club", "1", {**row, "email": "new@mail.example.cn"}, FRESH)
    assert said() == (not bars), "a sign of life brings it back, unless newer versions are barred"


def test_what_was_believed_of_a_record_while_two_were_one_goes_with_it_after_the_split(archive: Archive) -> None:
    desk = archive.desk
    name = desk.upsert("till", "T-1", {**person(1), "phone": "13711112222"}, FRESH)
    assert desk.upsert("shop", "S-1", {**person(1), "phone": "13733334444"}, OLD) == name
    split_off(archive, name, "S-1")
    archive.rule("stale", source="sources/shop")
    assert "13733334444" in archive.everything_stored()

    assert done(archive.run()) == {"stale": (1, 1, 0)}

    stored = archive.everything_stored()
    assert "13733334444" not in stored
    assert "13711112222" in stored


def test_a_household_that_an_address_suggested_goes_with_the_address_unless_somebody_confirmed_it(
    archive: Archive,
) -> None:
    desk, suggester = archive.desk, Suggester(archive.store, archive.vault)
    names = []
    for number, room in enumerate(("301", "301", "302", "302")):
        home = {"name": f"欧阳{'甲乙丙丁'[number]}", "address": f"浙江省杭州市西湖区文三路8号1幢2单元{room}室"}
        names.append(desk.upsert("till", str(number), {**person(number), **home}, OLD))
    desk.call("SuggestRelationships", relations_pb2.SuggestRelationshipsRequest())
    assert Worker("profiles", suggester.handlers(), desk.service.operations).run_one()

    def said(name: str) -> list[relations_pb2.Relationship]:
        request = relations_pb2.ListRelationshipsRequest(parent=name)
        return list(desk.call("ListRelationships", request).relationships)

    confirmed = said(names[2])[0].name
    desk.call("ConfirmRelationship", relations_pb2.ConfirmRelationshipRequest(name=confirmed))
    assert len(said(names[0])) == 1
    archive.rule("stale_address", field="address")
    assert done(archive.run()) == {"stale_address": (4, 4, 0)}

    assert said(names[0]) == []
    assert [item.name for item in said(names[2])] == [confirmed]
