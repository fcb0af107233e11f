"""Open stored profiles and shape their next stored form: sealed records, golden record, revision, facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.chassis.records import Fact
from services.profiles.believed import believe, changed_fields, to_plain
from services.profiles.domain.dictionary import Rule
from services.profiles.domain.values import StandardRecord
from services.profiles.facts import profile_changed, profile_ended
from services.profiles.folding import Working
from services.profiles.store import Store
from services.profiles.values import Profile, Revision, StoredRecord, at_hand
from services.profiles.vault import Ciphers, ErasedError, Vault


@dataclass(frozen=True, slots=True)
class Shaped:
    """A profile's next stored form with its facts, and what it supersedes: record versions, and what it was."""

    profile: Profile
    facts: tuple[Fact, ...]
    superseded: tuple[StoredRecord, ...] = ()
    was: Profile | None = None


def keep_superseded(store: Store, shaped: Sequence[Shaped]) -> None:
    """Keep what is about to be superseded, so that no writer's crash leaves a hole in history."""
    store.archive([(old, item.profile.profile_id) for item in shaped for old in item.superseded])
    store.keep_past([item.was for item in shaped if item.was])


def write(store: Store, shaped: Sequence[Shaped]) -> list[str]:
    """Write shaped profiles with their facts, history first; return the ids that lost a race."""
    keep_superseded(store, shaped)
    return store.write_profiles([(item.profile, item.facts) for item in shaped]) if shaped else []


def ended(profile: Profile, survivor_id: str, now: datetime, by: str) -> Shaped:
    """Return the profile as an alias of the one that takes it over, its records still with it."""
    version = profile.version + 1
    revision = Revision(version, now, "ended", other_profile=survivor_id, by=by)
    revisions = at_hand([*profile.revisions, revision])
    alias = replace(profile, merged_into=survivor_id, is_handing_over=True, revisions=revisions)
    return Shaped(alias, (profile_ended(profile.profile_id, survivor_id, version, now),), was=profile.past())


def open_profiles(profiles: Iterable[Profile], ciphers: Ciphers, vault: Vault) -> list[Working]:
    """Return the profiles with their records opened; those whose keys were destroyed are left out."""
    opened = []
    for profile in profiles:
        try:
            found = {item.key: vault.open_record(item, ciphers) for item in profile.records}
        except ErasedError:
            continue
        opened.append(Working(profile, found))
    return opened


def load(
    store: Store, vault: Vault, profiles: Sequence[Profile], keys: Mapping[str, bytes] | None = None
) -> tuple[list[Working], Ciphers]:
    """Return the profiles opened, with the ciphers that open them; `keys` are those at hand."""
    ciphers = vault.ciphers(store, profiles, keys)
    return open_profiles(profiles, ciphers, vault), ciphers


def shape_changed(working: Working, ciphers: Ciphers, vault: Vault, rules: Mapping[str, Rule], now: datetime) -> Shaped:
    """Return the next form of a profile that records joined or changed."""
    before = {item.key: item for item in working.profile.records}
    cipher = ciphers.get(working.profile.key_id)
    after, superseded = dict(before), []
    for key, incoming in working.incoming.items():
        old = before.get(key)
        number = old.number + 1 if old else 1
        owner, barred = (ciphers.get(old.key_id), old.barred) if old else (cipher, ())
        sealed = vault.seal_record(incoming.record, key, number, owner)
        record = incoming.record
        after[key] = StoredRecord(
            record.source_id, record.source_record_id, number, incoming.content_hash, record.updated_time, now,
            owner.key_id, sealed, incoming.origin, incoming.all_tokens, barred, barred,
            incoming.source_version,
        )  # fmt: skip
        if old:
            superseded.append(old)
    kind, profile = "created" if working.is_new else "updated", working.profile.copy()
    profile.records, profile.relinked = list(after.values()), list(working.incoming)
    return reshape(
        working.profile, profile, working.records, ciphers, vault, rules, now,
        Revision(0, now, kind, (), list(working.incoming)), superseded=superseded,
    )  # fmt: skip


def reshape(
    was: Profile,
    profile: Profile,
    records: Mapping[str, StandardRecord],
    ciphers: Ciphers,
    vault: Vault,
    rules: Mapping[str, Rule],
    now: datetime,
    revision: Revision,
    more_facts: Sequence[Fact] = (),
    superseded: Sequence[StoredRecord] = (),
) -> Shaped:
    """Return the profile with its golden record derived anew from `records`, a revision added, and its facts.

    `was` is the profile as it is stored, `profile` what changes of it beside the golden record. Overrides that have
    expired are dropped.
    """
    shaped = profile.copy()
    shaped.overrides = [item for item in profile.overrides if item.expire_time > now]
    if shaped.stage and all(map(vault.says_nothing, shaped.records)):
        shaped.stage, shaped.stage_time, shaped.stage_revision = "", now, 0  # nobody is left who could be in one
    believed = believe(list(records.values()), rules, list(vault.open_overrides(shaped, ciphers).values()))
    before = vault.open_values(was, ciphers)
    version = profile.version + 1
    time = max(now, was.since) if was.revisions else now  # clocks of machines differ, history goes forward
    changed = [*changed_fields(before, believed), *(["stage"] if shaped.stage != was.stage else [])]
    entry = replace(revision, version=version, time=time, changed_fields=changed)
    shaped.golden = vault.seal_golden(believed, profile.profile_id, ciphers.get(profile.key_id))
    shaped.owner_department, shaped.tier = believed.golden.value("owner_department"), believed.tier
    shaped.update_time, shaped.revisions = now, at_hand([*profile.revisions, entry])
    fact = profile_changed(shaped, believed, version, now, vault.events)
    return Shaped(shaped, (fact, *more_facts), tuple(superseded), was.past() if was.golden else None)


def rederive(
    working: Working, ciphers: Ciphers, vault: Vault, rules: Mapping[str, Rule], now: datetime
) -> Shaped | None:
    """Return the next form of a profile by the rules of now; None when nothing of it, lineage included, changes.

    Others are told only of values that changed.
    """
    before = vault.open_golden(working.profile, ciphers) if working.profile.golden else None
    overrides = list(vault.open_overrides(working.profile, ciphers).values())
    if before and to_plain(before) == to_plain(believe(list(working.records.values()), rules, overrides)):
        return None
    revision = Revision(0, now, "rederived")
    shaped = reshape(working.profile, working.profile, working.records, ciphers, vault, rules, now, revision)
    return shaped if shaped.profile.revisions[-1].changed_fields else replace(shaped, facts=())
