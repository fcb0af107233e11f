"""Derive what is believed of a person from the source records, each value with its lineage."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from services.profiles.domain.dictionary import DEFAULT_RULES, Rule, Survivorship
from services.profiles.domain.documents import birth_date_of, gender_of
from services.profiles.domain.values import (
    Address,
    BeatenValue,
    GoldenField,
    GoldenRecord,
    ManualOverride,
    StandardRecord,
)

MANUAL_RULE = "manual_override"
MANUAL_SOURCE = "steward"
NO_RULE = Rule()  # of fields that the dictionary says nothing about
BEATEN_LIMIT = 20  # values kept in a field's lineage


class _Claim(NamedTuple):
    """One record's value of one field; `completeness` counts what it tells, `agreeing` the records that say so."""

    value: str
    record: StandardRecord
    completeness: int
    agreeing: int


Extract = Callable[[StandardRecord], Iterable[tuple[str, int]]]


def build_golden(
    records: Sequence[StandardRecord],
    overrides: Iterable[ManualOverride] = (),
    rules: Mapping[str, Rule] = DEFAULT_RULES,
) -> GoldenRecord:
    """Return the golden record of one profile's records; their order does not matter.

    The codes of an address come from the record whose address was chosen, never from two addresses.
    """
    fields: dict[str, GoldenField] = {}
    for name, extract in _EXTRACTS.items():
        found = chosen(records, extract, rules.get(name, NO_RULE))
        if found:
            fields[name] = found
    phones = _all_values(records, _phones, rules["phone"])
    emails = _all_values(records, _emails, rules["email"])
    fields |= {name: found[0] for name, found in (("phone", phones), ("email", emails)) if found}
    standard = [item for item in overrides if item.field in STANDARD_FIELDS]
    if not standard:
        return GoldenRecord(fields | _address_codes(records, fields.get("address")), phones, emails)
    fields = overridden(fields, standard)
    fields |= _address_codes([*records, *(item.record for item in standard)], fields.get("address"))
    return GoldenRecord(fields, _first(fields.get("phone"), phones), _first(fields.get("email"), emails))


def overridden(fields: Mapping[str, GoldenField], overrides: Iterable[ManualOverride]) -> dict[str, GoldenField]:
    """Return the fields with a steward's values over those of the sources; of two on one field the later counts."""
    found = dict(fields)
    for item in sorted(overrides, key=lambda item: item.record.updated_time):
        found[item.field] = _overriding(item, found.get(item.field))
    return found


def extract_of(name: str) -> Extract:
    """Return how records tell a field: standard fields by their standard form, custom ones as the source wrote them."""
    return STANDARD_FIELDS.get(name) or partial(_original, name)


def _original(name: str, record: StandardRecord) -> Iterable[tuple[str, int]]:
    text = record.originals.get(name, "").strip()
    if text:
        yield text, 1


def _first(believed: GoldenField | None, values: tuple[GoldenField, ...]) -> tuple[GoldenField, ...]:
    """Return all values of a field, the believed one first."""
    if believed is None or believed in values[:1]:
        return values
    return (believed, *(item for item in values if item.value != believed.value))


def chosen(records: Sequence[StandardRecord], extract: Extract, rule: Rule) -> GoldenField | None:
    """Return the value that a rule chooses among those the records tell, with its lineage; None when none does."""
    ranked = _ranked(_claims(records, extract), rule.survivorship)
    return _golden_field(ranked, rule) if ranked else None


def _name(record: StandardRecord) -> Iterable[tuple[str, int]]:
    if record.name:
        yield record.name.full, 2 * record.name.is_complete + (record.name.style != "latin")


def _title(record: StandardRecord) -> Iterable[tuple[str, int]]:
    if record.name and record.name.title:
        yield record.name.title, 1


def _resident_id(record: StandardRecord) -> Iterable[tuple[str, int]]:
    if record.resident_id:
        yield record.resident_id, 1


def _gender(record: StandardRecord) -> Iterable[tuple[str, int]]:
    if record.gender:
        yield record.gender, 1 + bool(record.resident_id and gender_of(record.resident_id) == record.gender)


def _birth_date(record: StandardRecord) -> Iterable[tuple[str, int]]:
    if record.birth_date:
        proven = bool(record.resident_id) and birth_date_of(record.resident_id) == record.birth_date
        yield record.birth_date, 1 + proven


def _owner_department(record: StandardRecord) -> Iterable[tuple[str, int]]:
    if record.owner_department:
        yield record.owner_department, 1


def _address(record: StandardRecord) -> Iterable[tuple[str, int]]:
    if record.address and record.address.text:
        yield record.address.text, _address_depth(record.address)


def _address_depth(address: Address) -> int:
    """Return how deep an address goes: 1 province, 2 city, 4 county, and 8 more for a street."""
    known = (address.province_code, address.city_code, address.district_code, address.detail)
    return sum(bool(part) << at for at, part in enumerate(known))


def _phones(record: StandardRecord) -> Iterable[tuple[str, int]]:
    for phone in record.phones:
        yield phone.number, 1 + (phone.kind == "mobile")


def _emails(record: StandardRecord) -> Iterable[tuple[str, int]]:
    for email in record.emails:
        yield email, 1


_EXTRACTS: Mapping[str, Extract] = {
    "name": _name,
    "title": _title,
    "gender": _gender,
    "birth_date": _birth_date,
    "resident_id": _resident_id,
    "address": _address,
    "owner_department": _owner_department,
}
STANDARD_FIELDS: Mapping[str, Extract] = {**_EXTRACTS, "phone": _phones, "email": _emails}


def _claims(records: Sequence[StandardRecord], extract: Extract) -> list[_Claim]:
    found = [(value, record, completeness) for record in records for value, completeness in extract(record)]
    if len(found) < 2:  # most profiles have one record
        return [_Claim(*item, agreeing=1) for item in found]
    agreeing = Counter(value for value, _, _ in found)
    return [_Claim(value, record, completeness, agreeing[value]) for value, record, completeness in found]


_CRITERIA: Mapping[Survivorship, tuple[str, ...]] = {  # what is asked, in this order; named as the loser's fault
    Survivorship.MOST_TRUSTED: ("less complete", "less trusted", "older"),
    Survivorship.MOST_RECENT: ("less complete", "older", "less trusted"),
    Survivorship.MOST_COMPLETE: ("less complete", "older", "less trusted"),
    Survivorship.MOST_CONFIRMED: ("less complete", "less confirmed", "less trusted", "older"),
}


def _rank(claim: _Claim, rule: Survivorship) -> tuple[float, ...]:
    strengths = {
        "less complete": claim.completeness,
        "less confirmed": claim.agreeing,
        "less trusted": -claim.record.trust_rank,
        "older": claim.record.updated_time.timestamp(),
    }
    return tuple(strengths[criterion] for criterion in _CRITERIA[rule])


def _ranked(claims: list[_Claim], rule: Survivorship) -> list[_Claim]:
    """Return the claims, the winner first; ties go by the records' keys, the same way in every run."""
    if len(claims) < 2:
        return claims
    claims.sort(key=lambda claim: claim.record.key)
    return sorted(claims, key=lambda claim: _rank(claim, rule), reverse=True)


def _golden_field(ranked: Sequence[_Claim], rule: Rule) -> GoldenField:
    winner = ranked[0]
    beaten = {}
    for claim in ranked[1:]:
        if claim.value != winner.value and claim.value not in beaten:
            why = _why(claim, winner, rule.survivorship)
            beaten[claim.value] = BeatenValue(claim.value, *claim.record.key, why)
    record = winner.record
    kept = tuple(beaten.values())[:BEATEN_LIMIT]
    return GoldenField(
        winner.value, record.source_id, record.source_record_id, str(rule.survivorship), record.updated_time, kept,
        rule.version,
    )  # fmt: skip


def _why(loser: _Claim, winner: _Claim, rule: Survivorship) -> str:
    """Return the first criterion of the rule in which the loser falls short."""
    pairs = zip(_CRITERIA[rule], _rank(loser, rule), _rank(winner, rule), strict=True)
    return next((criterion for criterion, lost, won in pairs if lost < won), "tie")


def _all_values(records: Sequence[StandardRecord], extract: Extract, rule: Rule) -> tuple[GoldenField, ...]:
    """Return every distinct value with the best record that claims it, the believed one first with what it beat."""
    ranked = _ranked(_claims(records, extract), rule.survivorship)
    firsts = {claim.value: claim for claim in reversed(ranked)}
    others = [firsts[value] for value in dict.fromkeys(claim.value for claim in ranked)][1:]
    return (_golden_field(ranked, rule), *(_golden_field([claim], rule) for claim in others)) if ranked else ()


def _address_codes(records: Sequence[StandardRecord], chosen: GoldenField | None) -> dict[str, GoldenField]:
    """Return the division codes of the chosen address as fields of the same lineage."""
    if chosen is None:
        return {}
    key = (chosen.source_id, chosen.source_record_id)
    address = next(
        (item.address for item in records if item.key == key and item.address and item.address.text == chosen.value),
        None,
    )
    if address is None:
        return {}
    codes = {
        "province_code": address.province_code,
        "city_code": address.city_code,
        "district_code": address.district_code,
    }
    return {
        name: GoldenField(code, chosen.source_id, chosen.source_record_id, "with_address", chosen.time)
        for name, code in codes.items()
        if code
    }


def _overriding(override: ManualOverride, beaten: GoldenField | None) -> GoldenField:
    lost: tuple[BeatenValue, ...] = ()
    if beaten is not None and beaten.value != override.value:
        lost = (BeatenValue(beaten.value, beaten.source_id, beaten.source_record_id, "overridden"),)
    lost = (*lost, *(beaten.beat if beaten else ()))
    record = override.record
    return GoldenField(
        override.value, *record.key, MANUAL_RULE, record.updated_time, lost[:BEATEN_LIMIT],
        reason=override.reason, expire_time=override.expire_time,
    )  # fmt: skip
