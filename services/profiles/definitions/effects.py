"""The job that counts what a change of a field's definition does to the data stored; it keeps counts and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from google.protobuf import json_format
from google.protobuf.message import Message
from kehu.profiles.v1 import dictionary_pb2 as pb

from services.chassis.errors import Conflict
from services.chassis.jobs import Handler, Job
from services.profiles.definitions.proposals import (
    CREATE,
    DELETE,
    DRAFT,
    FieldChange,
    differing,
    survivorship_of,
    with_content,
)
from services.profiles.dictionary import FORMATS
from services.profiles.domain.dictionary import Rule
from services.profiles.domain.formats import Format, fits_format
from services.profiles.domain.golden import chosen, extract_of
from services.profiles.domain.values import StandardRecord
from services.profiles.errors import FieldChangeNotFound
from services.profiles.folding import Working
from services.profiles.shaping import load
from services.profiles.store import Store
from services.profiles.values import Field, record_key
from services.profiles.vault import Vault

PREVIEW_CHANGE = "preview-field-change"
PROFILES_PER_BATCH = 200
SAMPLES_LIMIT = 20  # FieldChange documents this maximum
OF_FORMAT, OF_SURVIVORSHIP = "FORMAT", "SURVIVORSHIP"
ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Change:
    """What a change is about; None where nothing of the kind changes."""

    field: str
    before: Rule
    after: Rule
    new_format: Format | None = None
    keep_days: int = 0

    @property
    def is_of_rule(self) -> bool:
        """Tell whether the value may be chosen otherwise."""
        return self.before.survivorship != self.after.survivorship


def sides(change: FieldChange) -> tuple[Field | None, Field | None]:
    """Return the definition before and after; None where there is none."""
    was = None if change.kind == CREATE else with_content(Field(change.field), change.before)
    return was, None if change.kind == DELETE else with_content(Field(change.field), change.after)


def reading_of(change: FieldChange) -> Change:
    """Return what a proposed change is about."""
    was, then = sides(change)
    changed = differing(was, then) if then else ()
    new_format = FORMATS.get(then.format) if then and "format" in changed else None
    keep_days = then.retention_days if then and "retention_days" in changed else 0
    return Change(change.field, Rule(survivorship_of(was)), Rule(survivorship_of(then)), new_format, keep_days)


def value_under(records: Sequence[StandardRecord], field: str, rule: Rule) -> str:
    """Return the value of a field that a rule chooses; empty when no record tells one."""
    found = chosen(records, extract_of(field), rule)
    return found.value if found else ""


def original_of(record: StandardRecord, field: str) -> str:
    """Return what the source wrote in a custom field."""
    return record.originals.get(field, "").strip()


class EffectCounter:
    """Counts effects, profile after profile."""

    def __init__(self, store: Store, vault: Vault, profiles_per_batch: int = PROFILES_PER_BATCH) -> None:
        """Work with these tools, `profiles_per_batch` at a time."""
        self._store = store
        self._vault = vault
        self._profiles_per_batch = profiles_per_batch

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of this job."""
        return {PREVIEW_CHANGE: self.run}

    def run(self, job: Job) -> Message:
        """Count from the checkpoint on.

        Raises:
            FieldChangeNotFound: the change is gone.
        """
        effect = pb.FieldEffect()
        job.metadata.Unpack(effect)
        change = self._change(effect.change)
        reading, now = reading_of(change), datetime.now(UTC)
        samples = [list(item) for item in job.checkpoint.get("samples", ())]  # type: ignore[attr-defined]
        after = str(job.checkpoint.get("after", ""))
        while batch := self._store.page_profiles(after, self._profiles_per_batch, ()):
            for item in load(self._store, self._vault, batch)[0]:
                samples += _count(effect, reading, item, now)
            samples = samples[:SAMPLES_LIMIT]
            effect.profiles_read += len(batch)
            after = batch[-1].profile_id
            job.save({"after": after, "samples": samples}, effect)
        effect.time.FromDatetime(datetime.now(UTC))
        self._keep(change.id, effect, samples)
        return effect

    def _change(self, name: str) -> FieldChange:
        found = self._store.field_changes.get(name.rpartition("/")[2])
        if found is None:
            raise FieldChangeNotFound("the change is gone", metadata={"name": name})
        return found

    def _keep(self, change_id: str, effect: pb.FieldEffect, samples: Sequence[Sequence[str]]) -> None:
        for _ in range(ATTEMPTS):
            found = self._change(f"fieldChanges/{change_id}")
            if found.state != DRAFT:
                return
            kept = replace(found, effect=json_format.MessageToJson(effect, indent=None), samples=samples)
            try:
                self._store.field_changes.replace(kept)
            except Conflict:
                continue
            return


def _count(effect: pb.FieldEffect, reading: Change, item: Working, now: datetime) -> list[list[str]]:
    """Add one profile to the counts; return the samples that it gives."""
    records = list(item.records.values())
    if not value_under(records, reading.field, reading.before):
        return []
    effect.profiles_with_value += 1
    if reading.keep_days and item.profile.update_time < now - timedelta(days=reading.keep_days):
        effect.values_past_retention += 1
    found = _count_formats(effect, reading, item.profile_id, records)
    is_overridden = any(kept.name == reading.field for kept in item.profile.overrides)
    if reading.is_of_rule and not is_overridden:
        one, two = (value_under(records, reading.field, rule) for rule in (reading.before, reading.after))
        if one != two:
            effect.values_changed += 1
            found.append([OF_SURVIVORSHIP, item.profile_id, ""])
    return found


def _count_formats(
    effect: pb.FieldEffect, reading: Change, profile_id: str, records: Sequence[StandardRecord]
) -> list[list[str]]:
    found = []
    for record in records:
        text = original_of(record, reading.field)
        effect.records_checked += bool(text)
        if text and reading.new_format and not fits_format(text, reading.new_format):
            effect.records_failing_format += 1
            effect.failing_by_source[f"sources/{record.source_id}"] += 1
            found.append([OF_FORMAT, profile_id, record_key(*record.key)])
    return found
