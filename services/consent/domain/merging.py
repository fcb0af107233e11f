"""What becomes of consents when two profiles turn out to be one person: the strictest wins, all evidence stays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from kehu.consent.v1 import events_pb2

from services.consent.domain.records import (
    STRICTNESS,
    ConsentRecord,
    Evidence,
    ProfileConsents,
    changed,
    standing,
)


def merge_consents(
    survivor: ProfileConsents, merged: ProfileConsents, at: datetime
) -> tuple[ProfileConsents, list[events_pb2.ConsentChanged]]:
    """Return the survivor's consents with those of the merged profile, and the facts.

    For each purpose and channel both answered, the stricter answer stands, as of the newer of the two, until
    the person answers again. The records of both are kept. Doing it twice changes nothing.
    """
    known = {record.record_id for record in survivor.records}
    theirs_ids = {record.record_id for record in merged.records}
    taken = [_from(merged.profile_id, record) for record in merged.records if record.record_id not in known]
    ours = [r for r in survivor.records if theirs_ids.isdisjoint((r.record_id, *r.derived_from))]
    derived = [
        record
        for key in _shared_keys(ours, merged.records)
        if (record := _stricter(ours, merged, key, at)) is not None and record.record_id not in known
    ]
    grown = replace(survivor, records=(*survivor.records, *taken, *derived))
    touched = {(record.purpose_id, record.channel): record for record in (*taken, *derived)}
    return grown, [changed(grown, record) for record in touched.values()]


def _from(profile_id: str, record: ConsentRecord) -> ConsentRecord:
    return replace(record, origin_profile_id=record.origin_profile_id or profile_id)


def _shared_keys(ours: Sequence[ConsentRecord], theirs: Sequence[ConsentRecord]) -> list[tuple[str, str]]:
    """Return purpose and channel of every answer about a purpose that both sides answered."""
    purposes = {record.purpose_id for record in ours} & {record.purpose_id for record in theirs}
    return sorted({(r.purpose_id, r.channel) for r in (*ours, *theirs) if r.purpose_id in purposes})


def _stricter(
    ours: Sequence[ConsentRecord], merged: ProfileConsents, key: tuple[str, str], at: datetime
) -> ConsentRecord | None:
    """Return the record that makes the stricter answer stand; None when it stands anyway or only one answered."""
    mine, other = standing(ours, *key), standing(merged.records, *key)
    newest = standing((*ours, *merged.records), *key)
    if mine is None or other is None or newest is None:
        return None
    strictest = max(mine, other, key=lambda record: STRICTNESS[record.state_at(at)])
    if newest.state_at(at) is strictest.state_at(at):
        return None
    identity = "\0".join((merged.profile_id, *key, *sorted((mine.record_id, other.record_id))))
    return ConsentRecord(
        record_id="merge-" + hashlib.sha256(identity.encode()).hexdigest()[:24],
        purpose_id=key[0],
        channel=key[1],
        state=strictest.state_at(at),
        answer_time=newest.answer_time,
        create_time=at,
        evidence=Evidence(collected_via="MERGE"),
        derived_from=(mine.record_id, other.record_id),
    )
