"""What becomes of consents when two profiles become one person, or two again: the strictest wins, evidence stays."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from kehu.consent.v1 import events_pb2

from services.consent.domain.records import (
    STRICTNESS,
    ConsentRecord,
    ConsentState,
    Evidence,
    ProfileConsents,
    changed,
    standing,
    stands,
)


@dataclass(frozen=True, slots=True)
class Parting:
    """A split: ids and records ("source/id") that went, records that stayed, since when both were one, and when."""

    version: int
    time: datetime
    together_since: datetime
    aliases: frozenset[str] = frozenset()
    source_records: frozenset[str] = frozenset()
    remaining_records: frozenset[str] = frozenset()
    divided_since: Mapping[str, datetime] = field(default_factory=dict)
    went: Mapping[str, bool] = field(default_factory=dict)


def merge_consents(
    survivor: ProfileConsents, merged: ProfileConsents, at: datetime
) -> tuple[ProfileConsents, list[events_pb2.ConsentChanged]]:
    """Return the survivor's consents with those of the merged profile, and the facts.

    For each purpose and channel both answered, the stricter answer stands, as of the newer of the two, until
    the person answers again. The records of both are kept. Doing it twice changes nothing; what was answered under the
    merged id in between is taken over as it is, for they were one person by then.
    """
    known = {record.record_id for record in survivor.records}
    taken = [_from(merged.profile_id, record) for record in merged.records if record.record_id not in known]
    is_one_already = merged.profile_id in survivor.family
    if is_one_already and not taken:
        return survivor, []
    one = replace(
        survivor, records=(*survivor.records, *taken), family=survivor.family | merged.family | {merged.profile_id}
    )
    derived = [
        record
        for key in ([] if is_one_already else _shared_keys(survivor.counting, merged.counting))
        if (record := _stricter(survivor, merged, one, key, at)) is not None and record.record_id not in known
    ]
    grown = replace(one, records=(*one.records, *derived))
    touched = {(record.purpose_id, record.channel): record for record in (*taken, *derived)}
    return grown, [changed(grown, record) for record in touched.values()]


def split_consents(
    whole: ProfileConsents, part: ProfileConsents, parting: Parting
) -> tuple[ProfileConsents, ProfileConsents]:
    """Return the consents that stay and those of the profile that was split out.

    All records are kept on both sides. What was refused, by whomever and whenever, stands on both. A grant counts
    for the side whose id or source record it was given on, and for neither if that was not said while they were one.
    """
    going = parting.aliases | {part.profile_id}
    is_late = part.link_version > parting.version  # merged again since: what was said by then was said of one side
    sides = whole.profile_id, part.profile_id
    marked, own = (
        tuple(
            record if is_late and record.create_time > parting.time
            else _marked(record, record.origin_profile_id or side.profile_id, sides, going, parting)
            for record in side.records
        ) for side in (whole, part)
    )  # fmt: skip
    left = replace(whole, records=marked, family=whole.family - going)
    marks = {record.record_id: record.given_for for record in marked}  # of earlier splits of the whole, too
    own = tuple(replace(record, given_for=record.given_for | marks.get(record.record_id, set())) for record in own)
    known = {record.record_id for record in part.records}
    brought = tuple(
        _from(whole.profile_id, record) for record in marked
        if record.record_id not in known and not (is_late and record.create_time > parting.time)
    )  # fmt: skip
    out = replace(
        part, records=(*own, *brought), family=part.family | parting.aliases, merged_into="",
        link_version=parting.version,
    )  # fmt: skip
    return left, out


def changes_of(before: ProfileConsents, after: ProfileConsents, at: datetime) -> list[events_pb2.ConsentChanged]:
    """Return the facts of what stands otherwise than before, for each purpose and channel."""
    touched = {(record.purpose_id, record.channel): record for record in after.records}
    return [
        stands(after, record, at)
        for key, record in touched.items()
        if standing(before.counting, *key) != standing(after.counting, *key)
    ]


def _marked(
    record: ConsentRecord, given_under: str, sides: tuple[str, str], going: Collection[str], parting: Parting
) -> ConsentRecord:
    whole_id, part_id = sides
    if record.state is not ConsentState.GRANTED:
        return record
    if record.source_record in parting.source_records | parting.remaining_records:
        went = record.source_record in parting.source_records
        return replace(record, given_for=frozenset({part_id if went else whole_id}))
    since = parting.together_since if given_under == whole_id else parting.divided_since.get(given_under)
    if not record.source_record and since is not None and record.create_time >= since:
        whose = {whole_id, part_id}
    else:
        went = parting.went.get(given_under, given_under in going)
        whose = {part_id if went else whole_id if given_under in going else given_under}
    return replace(record, given_for=record.given_for | whose)


def _from(profile_id: str, record: ConsentRecord) -> ConsentRecord:
    return replace(record, origin_profile_id=record.origin_profile_id or profile_id)


def _shared_keys(ours: Sequence[ConsentRecord], theirs: Sequence[ConsentRecord]) -> list[tuple[str, str]]:
    """Return purpose and channel of every answer about a purpose that both sides answered."""
    purposes = {record.purpose_id for record in ours} & {record.purpose_id for record in theirs}
    return sorted({(r.purpose_id, r.channel) for r in (*ours, *theirs) if r.purpose_id in purposes})


def _stricter(
    survivor: ProfileConsents, merged: ProfileConsents, one: ProfileConsents, key: tuple[str, str], at: datetime
) -> ConsentRecord | None:
    """Return the record that makes the stricter answer stand; None when it stands anyway or both rest on one answer."""
    mine, other = standing(survivor.counting, *key), standing(merged.counting, *key)
    newest = standing(one.counting, *key)
    if mine is None or other is None or newest is None or mine.record_id == other.record_id:
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
