"""Find what is due by retention rules, page by page, and take it; both may be repeated after a crash."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from services.profiles.ageing.holding import held_now
from services.profiles.dictionary import Dictionary
from services.profiles.domain.cross_record import Index
from services.profiles.domain.relations import household_key
from services.profiles.domain.retention import Held, RecordType, RetentionRule, due_rules, without
from services.profiles.domain.values import StandardRecord
from services.profiles.errors import ProfilesBusy
from services.profiles.exported import withdraw
from services.profiles.folding import Incoming, Working
from services.profiles.intake.neighbours import value_tokens
from services.profiles.merging import ATTEMPTS
from services.profiles.protection.resealing import Resealer
from services.profiles.relations.columns import ColumnFollower
from services.profiles.relations.relating import Relations
from services.profiles.shaping import Shaped, load, reshape
from services.profiles.store import Store
from services.profiles.values import Ageing, Profile, Revision, StoredOverride, StoredRecord, record_key
from services.profiles.vault import Ciphers, Vault


class Item(NamedTuple):
    """What a rule takes: `rule` is its place among those of the run, `text` what a receipt names, `ref` what finds it.

    `number` is the version of a source record that is due; another one is not touched.
    """

    rule: int
    text: str
    ref: str
    number: int = 0


@dataclass(slots=True)
class Due:
    """What is due on a page, by how many rules something is held, and where the page ends; empty after the last."""

    items: list[Item] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    last: str = ""


class Retirer:
    """Finds and takes."""

    def __init__(self, store: Store, vault: Vault, dictionary: Dictionary) -> None:
        self._store = store
        self._vault = vault
        self._dictionary = dictionary
        self._resealer = Resealer(store, vault)

    def due(self, kind: RecordType, rules: Sequence[RetentionRule], after: str, limit: int, now: datetime) -> Due:
        """Return what is due at `now` on the page after a key, nothing changed."""
        held = held_now(self._store, datetime.now(UTC))
        found = Due()
        if kind is RecordType.SOURCE_RECORDS:
            profiles = self._store.page_profiles(after, limit, ())
            found.last = profiles[-1].profile_id if profiles else ""
            for working in load(self._store, self._vault, [p for p in profiles if _is_old(p, rules, now)])[0]:
                self._due_records(working, rules, held, now, found)
            return found
        things = self._store.ageing(kind, after, limit)
        found.last = things[-1].id if things else ""
        for thing in things:
            rule = _due_thing(kind, thing, rules, now)
            if rule is not None:
                is_held = held.keeps(rules[rule].rule_id, thing.source_id, [thing.profile_id])
                found.held += [rule] if is_held else []
                found.items += [] if is_held else [Item(rule, _text(kind, thing.id), thing.id)]
        return found

    def _due_records(
        self, working: Working, rules: Sequence[RetentionRule], held: Held, now: datetime, found: Due
    ) -> None:
        places = {rule.rule_id: place for place, rule in enumerate(rules)}
        for stored in working.profile.records:
            record = working.records[stored.key]
            for rule in due_rules(rules, record, stored.received_time, stored.retired, now):
                place, names = places[rule.rule_id], [working.profile_id, *working.profile.aliases]
                if held.keeps(rule.rule_id, stored.source_id, names):
                    found.held.append(place)
                else:
                    found.items.append(Item(place, _record_text(stored, rule), stored.key, stored.number))

    def take(
        self, kind: RecordType, rules: Sequence[RetentionRule], items: Sequence[Item], now: datetime, run: str
    ) -> tuple[list[Item], list[Item]]:
        """Take items that were due; return those that are gone, and those that are held by now.

        What this run took before it was killed counts; what has a newer version meanwhile does not.

        Raises:
            ProfilesBusy: others kept changing the same profiles.
        """
        held = held_now(self._store, datetime.now(UTC))
        if kind is RecordType.SOURCE_RECORDS:
            return self._take_records(rules, items, held, now, run)
        there = {thing.id: thing for thing in self._store.aged(kind, [item.ref for item in items])}
        kept = [item for item in items if item.ref in there and _is_held(held, rules[item.rule], there[item.ref])]
        refs = {item.ref for item in kept}
        self._store.drop_aged(kind, [item.ref for item in items if item.ref not in refs])
        return [item for item in items if item.ref not in refs], kept

    def _take_records(
        self, rules: Sequence[RetentionRule], items: Sequence[Item], held: Held, now: datetime, run: str
    ) -> tuple[list[Item], list[Item]]:
        waiting: dict[str, list[Item]] = {}
        for item in items:
            waiting.setdefault(item.ref, []).append(item)
        taken: list[Item] = []
        kept: list[Item] = []
        for _ in range(ATTEMPTS):
            if not waiting:
                return taken, kept
            opened, ciphers = load(self._store, self._vault, self._store.by_record_keys(list(waiting)))
            changes = [_Change(working, waiting, rules, held, run) for working in opened]
            taken += [item for change in changes for item in change.done_before]
            kept += [item for change in changes for item in change.held]
            lost = self._write([change for change in changes if change.due], ciphers, now)
            self._let_go([c for c in changes if c.done_before or (c.due and c.working.profile_id not in lost)])
            taken += [i for c in changes if c.working.profile_id not in lost for found in c.due.values() for i in found]
            again = [key for c in changes if c.working.profile_id in lost for key in c.due]
            waiting = {key: waiting[key] for key in again}
        raise ProfilesBusy("others keep changing the same profiles; try again")

    def _write(self, changes: Sequence[_Change], ciphers: Ciphers, now: datetime) -> set[str]:
        """Write what is left of records, their former versions and the past of their profiles removed."""
        shaped = [(change, self._shape(change, ciphers, now)) for change in changes]
        self._forget(changes)
        lost = set(self._store.write_profiles([(item.profile, item.facts) for _, item in shaped])) if shaped else set()
        self._forget([change for change in changes if change.working.profile_id not in lost])
        return lost

    def _let_go(self, changes: Sequence[_Change]) -> None:
        """Remove what stands elsewhere of what is gone.

        That is files of exports, what columns said of relationships or an address suggested, and what whoever was split
        from them was believed to be before.
        """
        for change in changes:
            for relative in self._resealer.relatives(change.working.profile):
                self._resealer.forget_together(relative, change.keys)
        if changes:
            profiles = [change.working.profile for change in changes]
            withdraw(self._store, [name for item in profiles for name in (item.profile_id, *item.aliases)])
            left = [record for change in changes for record in change.left()]
            ColumnFollower(self._store, self._vault).follow(left, self._dictionary.relations())
            homeless = [record_key(*record.key) for record in left if not household_key(record)]
            Relations(self._store, self._vault).drop_suggested(homeless)

    def _forget(self, changes: Sequence[_Change]) -> None:
        """Remove former versions, before and after the write: a writer who lost against it may have kept one more."""
        keys = [key for change in changes for key in change.due]
        names = [name for c in changes for name in (c.working.profile_id, *c.working.profile.aliases)]
        self._store.drop_versions(keys, names)

    def _shape(self, change: _Change, ciphers: Ciphers, started: datetime) -> Shaped:
        profile, now = change.working.profile, datetime.now(UTC)
        standard = dict(change.working.records)
        left = []
        for stored in profile.records:
            if rules := change.rules_of(stored.key):
                standard[stored.key] = without(standard[stored.key], [rule.mark for rule in rules])
                stored = self._less(stored, standard[stored.key], rules, ciphers, change.run)
            left.append(stored)
        kept = [item for item in profile.overrides if not change.takes(item, started)]
        changed = replace(profile, records=left, relinked=list(change.due), overrides=kept)
        revision = Revision(0, now, "retention", (), list(change.due))
        derived = self._dictionary.rules()
        return reshape(profile, changed, standard, ciphers, self._vault, derived, now, revision)

    def _less(
        self, stored: StoredRecord, record: StandardRecord, rules: Sequence[RetentionRule], ciphers: Ciphers, run: str
    ) -> StoredRecord:
        """Return the next version of a record, with its content hash and times as they are."""
        number, marks = stored.number + 1, [rule.mark for rule in rules]
        sealed = self._vault.seal_record(record, stored.key, number, ciphers.get(stored.key_id))
        barred = [rule.mark for rule in rules if rule.is_final]
        return replace(
            stored, number=number, sealed=sealed, origin=run, tokens=self._tokens(record),
            retired=list(dict.fromkeys([*stored.retired, *marks])),
            barred=list(dict.fromkeys([*stored.barred, *barred])),
        )  # fmt: skip

    def _tokens(self, record: StandardRecord) -> list[str]:
        return [*self._vault.tokens(record), *value_tokens(record, self._dictionary.indexes(), self._vault)]


class _Change:
    """What is to be taken from one profile: its items sorted out by the state of their records now."""

    def __init__(
        self,
        working: Working,
        waiting: dict[str, list[Item]],
        rules: Sequence[RetentionRule],
        held: Held,
        run: str,
    ) -> None:
        self.working, self.run = working, run
        self.due: dict[str, list[Item]] = {}
        self.done_before: list[Item] = []
        self.held: list[Item] = []
        self._rules = rules
        names = [working.profile_id, *working.profile.aliases]
        for stored in working.profile.records:
            for item in waiting.get(stored.key, ()):
                if stored.origin == run and stored.number == item.number + 1:
                    self.done_before.append(item)
                elif stored.number == item.number and held.keeps(rules[item.rule].rule_id, stored.source_id, names):
                    self.held.append(item)
                elif stored.number == item.number:
                    self.due.setdefault(stored.key, []).append(item)

    def rules_of(self, key: str) -> list[RetentionRule]:
        """Return the rules that take from a record."""
        return [self._rules[item.rule] for item in self.due.get(key, ())]

    @property
    def keys(self) -> list[str]:
        """Return the keys of the records that the run takes from, now or before it was killed."""
        return list(dict.fromkeys([*self.due, *(item.ref for item in self.done_before)]))

    def left(self) -> list[StandardRecord]:
        """Return what is left of these records."""
        return [without(self.working.records[key], [rule.mark for rule in self.rules_of(key)]) for key in self.keys]

    def takes(self, override: StoredOverride, now: datetime) -> bool:
        """Tell whether a steward's value goes with the record it stands on: it is of the field, and as old."""
        return any(
            rule.field in ("*", override.name) and rule.is_due(override.set_time, override.set_time, now)
            for rule in self.rules_of(override.anchor)
        )


def unbarred(
    waiting: Sequence[Incoming], loaded: Iterable[Working], vault: Vault, indexes: Collection[Index]
) -> Sequence[Incoming]:
    """Return incoming records without what retention says may not come back."""
    barred = {item.key: item.barred for working in loaded for item in working.profile.records if item.barred}
    if not barred:
        return waiting
    found = []
    for incoming in waiting:
        if incoming.key in barred:
            record = without(incoming.record, barred[incoming.key])
            counted = value_tokens(record, indexes, vault)
            incoming = replace(incoming, record=record, tokens=vault.tokens(record), value_tokens=counted)
        found.append(incoming)
    return found


def _is_old(profile: Profile, rules: Sequence[RetentionRule], now: datetime) -> bool:
    """Tell by times alone whether a record of a profile may be due, so that no other profile is opened."""
    return any(
        rule.is_about(RecordType.SOURCE_RECORDS, item.source_id) and not rule.is_done(item.retired)
        and rule.is_due(item.updated_time, item.received_time, now)
        for item in profile.records
        for rule in rules
    )  # fmt: skip


def _due_thing(kind: RecordType, thing: Ageing, rules: Sequence[RetentionRule], now: datetime) -> int | None:
    """Return the place of the first rule by which a thing is due."""
    for place, rule in enumerate(rules):
        if rule.is_about(kind, thing.source_id) and rule.is_due(thing.time, thing.time, now):
            return place
    return None


def _is_held(held: Held, rule: RetentionRule, thing: Ageing) -> bool:
    return held.keeps(rule.rule_id, thing.source_id, [thing.profile_id])


def _record_text(stored: StoredRecord, rule: RetentionRule) -> str:
    name = f"sources/{stored.source_id}/records/{stored.source_record_id}"
    return name if rule.field == "*" else f"{name}#{rule.field}"


def _text(kind: RecordType, item_id: str) -> str:
    head, _, number = item_id.rpartition("/")
    if kind is RecordType.SUPERSEDED_VERSIONS:
        source_id, _, record_id = head.partition("/")
        return f"sources/{source_id}/records/{record_id}/versions/{number}"
    return f"profiles/{head}/versions/{int(number)}" if kind is RecordType.PAST_PROFILES else f"{kind}/{item_id}"
