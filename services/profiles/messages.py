"""Stored values to and from their protobuf messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date

from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.chassis.obligations import CLASS_NAMES, HIDE, MASK, MASKS, Rights
from services.chassis.records import etag_of
from services.chassis.times import set_times
from services.profiles.admission import Summary, describe
from services.profiles.believed import TIER, Believed
from services.profiles.domain.golden import MANUAL_RULE
from services.profiles.domain.values import GoldenField, ManualOverride
from services.profiles.folding import Outcome
from services.profiles.intake.mapping import mapping_messages
from services.profiles.intake.rejecting import Admitted
from services.profiles.relations.messages import relation_column_messages
from services.profiles.values import Field, Pair, Profile, Reject, Revision, Source, StoredOverride

SLOTS = {
    "name": "name", "title": "name", "phone": "phone", "email": "email", "birth_date": "birth_date",
    "resident_id": "document", "address": "address", "gender": "gender", "province_code": "address",
    "city_code": "address", "district_code": "address", "owner_department": "code", "tier": "code",
}  # fmt: skip
CLASSES = CLASS_NAMES
OUTCOMES = {
    Outcome.CREATED: profiles_pb2.RecordResult.OUTCOME_CREATED,
    Outcome.UPDATED: profiles_pb2.RecordResult.OUTCOME_UPDATED,
    Outcome.UNCHANGED: profiles_pb2.RecordResult.OUTCOME_UNCHANGED,
    Outcome.STALE: profiles_pb2.RecordResult.OUTCOME_STALE,
    Outcome.REJECTED: profiles_pb2.RecordResult.OUTCOME_REJECTED,
    Outcome.ERASED: profiles_pb2.RecordResult.OUTCOME_ERASED,
}
REJECT_STATES = {
    "open": resources_pb2.Reject.STATE_OPEN,
    "replayed": resources_pb2.Reject.STATE_REPLAYED,
    "corrected": resources_pb2.Reject.STATE_CORRECTED,
}
PAIR_STATES = {
    "open": resources_pb2.MatchCandidate.STATE_OPEN,
    "confirmed": resources_pb2.MatchCandidate.STATE_CONFIRMED,
    "rejected": resources_pb2.MatchCandidate.STATE_REJECTED,
    "obsolete": resources_pb2.MatchCandidate.STATE_OBSOLETE,
    "awaiting_second": resources_pb2.MatchCandidate.STATE_AWAITING_SECOND,
    "check": resources_pb2.MatchCandidate.STATE_CHECK,
}


def source_message(source: Source) -> resources_pb2.Source:
    """Return the message of a source."""
    message = resources_pb2.Source(
        name=f"sources/{source.id}",
        display_name=source.display_name,
        owner_department=source.owner_department,
        trust_rank=source.trust_rank,
        mapping=mapping_messages(source.mapping),
        draft_mapping=mapping_messages(source.draft_mapping),
        relations=relation_column_messages(source.relations),
        date_order=source.date_order,
        utc_offset_minutes=source.utc_offset_minutes,
        default_region=source.default_region,
        is_unique=source.is_unique,
        sign_of_life_days=source.sign_of_life_days,
        etag=etag_of(source.version),
    )
    set_times(message, create_time=source.create_time, update_time=source.update_time)
    return message


def profile_message(profile: Profile, believed: Believed, attributes: Mapping[str, str]) -> resources_pb2.Profile:
    """Return the message of a profile; `attributes` are the custom fields the caller may see."""
    value = believed.golden.value
    message = resources_pb2.Profile(
        name=f"profiles/{profile.profile_id}",
        display_name=value("name"),
        family_name=believed.family_name,
        given_name=believed.given_name,
        gender=value("gender"),
        birth_date=value("birth_date"),
        phones=believed.phones(),
        emails=believed.emails(),
        resident_id=value("resident_id"),
        attributes=attributes,
        stage=profile.stage,
        stage_time=profile.stage_time,
        stage_revision=profile.stage_revision,
        tier=profile.tier,
        owner_department=profile.owner_department,
        source_count=len(profile.records),
        source_records=[
            resources_pb2.SourceRecordName(source=f"sources/{r.source_id}", source_record_id=r.source_record_id)
            for r in profile.records
        ],
        aliases=[f"profiles/{item}" for item in profile.aliases],
        version=profile.version,
        etag=etag_of(profile.version),
    )
    if value("address"):
        message.address.text = value("address")
        message.address.province_code = value("province_code")
        message.address.city_code = value("city_code")
        message.address.district_code = value("district_code")
    set_times(message, create_time=profile.create_time, update_time=profile.update_time)
    return message


def visible_attributes(
    believed: Believed, definitions: Callable[[str], Field | None], rights: Rights, purpose: str, today: date
) -> dict[str, str]:
    """Return the custom fields that the dictionary classifies and the caller may see, masked where owed."""
    shown: dict[str, str] = {}
    for name, item in believed.attributes.items():
        definition = definitions(name) if name != TIER else None
        if definition is None or definition.classification not in CLASSES:
            continue
        if not definition.permits(purpose):
            continue
        right = rights.disposition(CLASSES[definition.classification], definition.group)
        if right != HIDE:
            shown[name] = MASKS[definition.mask](item.value, today) if right == MASK else item.value
    return shown


def lineage_message(profile: Profile, believed: Believed) -> resources_pb2.ProfileLineage:
    """Return where every believed value comes from; custom fields without their values."""
    message = resources_pb2.ProfileLineage(name=f"profiles/{profile.profile_id}", version=profile.version)
    golden = believed.golden
    entries = [*((name, item) for name, item in golden.fields.items() if name not in ("phone", "email"))]
    entries += [("phone", item) for item in golden.phones] + [("email", item) for item in golden.emails]
    entries += list(believed.attributes.items())
    message.fields.extend(_field_lineage(name, item) for name, item in entries)
    return message


def _field_lineage(name: str, item: GoldenField) -> resources_pb2.FieldLineage:
    message = resources_pb2.FieldLineage(
        field=name,
        value=classified(name, item.value),
        rule=item.rule,
        rule_version=item.rule_version,
        reason=item.reason,
    )
    if item.rule == MANUAL_RULE:
        message.set_by = item.source_record_id
    else:
        message.source, message.source_record_id = f"sources/{item.source_id}", item.source_record_id
    set_times(message, time=item.time, expire_time=item.expire_time)
    for lost in item.beat:
        message.beat.add(
            value=classified(name, lost.value),
            source=f"sources/{lost.source_id}",
            source_record_id=lost.source_record_id,
            why=lost.why,
        )
    return message


def override_message(profile_id: str, stored: StoredOverride, override: ManualOverride) -> resources_pb2.Override:
    """Return the message of an override."""
    message = resources_pb2.Override(
        name=f"profiles/{profile_id}/overrides/{stored.id}",
        field=stored.name,
        value=classified(stored.name, override.value),
        reason=override.reason,
        set_by=override.record.source_record_id,
    )
    set_times(message, set_time=stored.set_time, expire_time=stored.expire_time)
    return message


def classified(name: str, value: str) -> resources_pb2.ClassifiedValue:
    """Return a value of a field in the slot that says how it is masked; empty where there is none."""
    slot = SLOTS.get(name)
    return resources_pb2.ClassifiedValue(**{slot: value}) if slot else resources_pb2.ClassifiedValue()


def revision_message(revision: Revision) -> resources_pb2.ProfileRevision:
    """Return the message of one change."""
    message = resources_pb2.ProfileRevision(
        version=revision.version,
        kind=resources_pb2.ProfileRevision.Kind.Value(f"KIND_{revision.kind.upper()}"),
        changed_fields=revision.changed_fields,
        source_records=[record_name(key) for key in revision.source_records],
        other_profile=f"profiles/{revision.other_profile}" if revision.other_profile else "",
        changed_by=revision.by,
        reason=revision.reason,
    )
    set_times(message, time=revision.time)
    return message


def record_name(key: str) -> str:
    """Return the resource name of a record's key."""
    source_id, _, record_id = key.partition("/")
    return f"sources/{source_id}/records/{record_id}"


def reject_message(reject: Reject) -> resources_pb2.Reject:
    """Return the message of a set-apart row, without its content."""
    message = resources_pb2.Reject(
        name=f"rejects/{reject.id}",
        source=f"sources/{reject.source_id}",
        operation=reject.operation,
        row_number=reject.row_number,
        reasons=[reason_message(name, reason) for name, reason in reject.reasons],
        state=REJECT_STATES[reject.state],
        attempts=[_attempt_message(item) for item in reject.attempts],
    )
    set_times(message, create_time=reject.create_time)
    if reject.state == "replayed":
        set_times(message, replay_time=reject.update_time)
    return message


def _attempt_message(item: Sequence[object]) -> resources_pb2.RejectAttempt:
    names = ("subject", "operation", "row_number", "corrected_columns", "reasons")
    message = resources_pb2.RejectAttempt(**dict(zip(names, item[1:], strict=True)))  # type: ignore[arg-type]
    message.time.FromJsonString(str(item[0]))
    return message


def reason_message(name: str, reason: str) -> resources_pb2.RejectReason:
    """Return one reason with what to do about it."""
    return resources_pb2.RejectReason(field=name, reason=reason, description=describe(reason))


def result_message(item: Admitted) -> profiles_pb2.RecordResult:
    """Return what became of one record."""
    return profiles_pb2.RecordResult(
        source_record_id=item.source_record_id,
        outcome=OUTCOMES[item.outcome],
        profile=f"profiles/{item.profile_id}" if item.profile_id else "",
        reject=f"rejects/{item.reject_id}" if item.reject_id else "",
        reasons=[reason_message(name, reason) for name, reason in item.reasons],
        warnings=[reason_message(name, reason) for name, reason in item.warnings],
    )


def pair_message(pair: Pair) -> resources_pb2.MatchCandidate:
    """Return the message of a pair, without its profiles."""
    message = resources_pb2.MatchCandidate(
        name=f"matchCandidates/{pair.id}",
        profile=f"profiles/{pair.one}",
        other_profile=f"profiles/{pair.other}",
        state=PAIR_STATES[pair.state],
        weight=pair.weight,
        probability=pair.probability,
        vetoes=pair.vetoes,
        decided_by=pair.decided_by,
        priority=pair.priority,
        claimed_by=pair.claimed_by,
        claim_expire_time=pair.claim_until,
        needs_second_person=pair.needs_second,
        first_verdict=PAIR_STATES.get(pair.first_state),
        first_decided_by=pair.first_by,
        reason=pair.reason,
        checked_record=record_name(pair.record) if pair.record else "",
        other_checked_records=map(record_name, pair.others),
        model_version=pair.model,
    )
    for comparison, level, weight in pair.steps:
        message.steps.add(comparison=str(comparison), level=str(level), weight=float(str(weight)))
    set_times(message, create_time=pair.create_time)
    if pair.state not in ("open", "awaiting_second", "check"):
        set_times(message, decide_time=pair.update_time)
    return message


def label_message(pair: Pair) -> resources_pb2.MatchLabel:
    """Return a verdict as a label, without anything of the persons."""
    message = resources_pb2.MatchLabel(
        match_candidate=f"matchCandidates/{pair.id}",
        same_person=pair.state == "confirmed",
        weight=pair.weight,
        probability=pair.probability,
        vetoes=pair.vetoes,
        automatic=bool(pair.record),
        persons=2 if pair.first_by else 1,
        decide_time=pair.update_time,
    )
    for comparison, level, weight in pair.steps:
        message.steps.add(comparison=str(comparison), level=str(level), weight=float(str(weight)))
    return message


def field_message(item: Field) -> resources_pb2.FieldDefinition:
    """Return the message of a field definition."""
    message = resources_pb2.FieldDefinition(
        name=f"fields/{item.id}",
        display_name=item.display_name,
        description=item.description,
        format=item.format,  # type: ignore[arg-type]
        classification=item.classification,  # type: ignore[arg-type]
        group=item.group,
        mask=item.mask,  # type: ignore[arg-type]
        owner_department=item.owner_department,
        update_rule=item.update_rule,
        survivorship=item.survivorship,
        retention_days=item.retention_days,
        permitted_purposes=item.permitted_purposes,
        built_in=item.built_in,
        rule_version=item.rule_version,
        revision=item.revision,
        etag=etag_of(item.version),
    )
    set_times(message, create_time=item.create_time, update_time=item.update_time)
    return message


def summary_message(summary: Summary) -> resources_pb2.IntakeSummary:
    """Return the sums of an intake."""
    return resources_pb2.IntakeSummary(
        rows_read=summary.rows_read,
        rows_accepted=summary.rows_accepted,
        rows_unchanged=summary.rows_unchanged,
        rows_stale=summary.rows_stale,
        rows_rejected=summary.rows_rejected,
        rejects_by_reason=summary.rejects_by_reason,
        profiles_created=summary.profiles_created,
        profiles_updated=summary.profiles_updated,
        profiles_merged=summary.profiles_merged,
        review_pairs=summary.review_pairs,
        rows_deleted=summary.rows_deleted,
        records_missing=summary.records_missing,
        records_deleted=summary.records_deleted,
        rows_erased=summary.rows_erased,
        warnings_by_reason=summary.warnings_by_reason,
    )
