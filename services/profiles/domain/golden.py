"""Derive what is believed of a person from the source records, each value with its lineage."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
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
    """One record's value of one field, and how strong it is by each criterion of the rule, in their order."""

    value: str
    record: StandardRecord
    strengths: tuple[float, ...] = ()


Extract = Callable[[StandardRecord], Sequence[tuple[str, int]]]
_Found = tuple[str, StandardRecord, int]


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


def _original(name: str, record: StandardRecord) -> Sequence[tuple[str, int]]:
    text = record.originals.get(name, "").strip()
    return [(text, 1)] if text else ()


def _first(believed: GoldenField | None, values: tuple[GoldenField, ...]) -> tuple[GoldenField, ...]:
    """Return all values of a field, the believed one first."""
    if believed is None or believed in values[:1]:
        return values
    return (believed, *(item for item in values if item.value != believed.value))


def chosen(records: Sequence[StandardRecord], extract: Extract, rule: Rule) -> GoldenField | None:
    """Return the value that a rule chooses among those the records tell, with its lineage; None when none does."""
    if len(records) == 1 and len(claimed := extract(records[0])) < 2:  # most profiles have one record
        return _told(claimed[0][0], records[0], rule) if claimed else None
    found = _found(records, extract)
    if not found:
        return None
    if _agree(found):
        return _told(found[0][0], _best(found, rule.survivorship), rule)
    return _golden_field(_ranked(found, rule.survivorship), rule)


def _name(record: StandardRecord) -> Sequence[tuple[str, int]]:
    name = record.name
    return [(name.full, 2 * name.is_complete + (name.style != "latin"))] if name else ()


def _title(record: StandardRecord) -> Sequence[tuple[str, int]]:
    return [(record.name.title, 1)] if record.name and record.name.title else ()


def _resident_id(record: StandardRecord) -> Sequence[tuple[str, int]]:
    return [(record.resident_id, 1)] if record.resident_id else ()


def _gender(record: StandardRecord) -> Sequence[tuple[str, int]]:
    gender, resident_id = record.gender, record.resident_id
    return [(gender, 1 + bool(resident_id and gender_of(resident_id) == gender))] if gender else ()


def _birth_date(record: StandardRecord) -> Sequence[tuple[str, int]]:
    birth_date, resident_id = record.birth_date, record.resident_id
    return [(birth_date, 1 + bool(resident_id and birth_date_of(resident_id) == birth_date))] if birth_date else ()


def _owner_department(record: StandardRecord) -> Sequence[tuple[str, int]]:
    return [(record.owner_department, 1)] if record.owner_department else ()


def _address(record: StandardRecord) -> Sequence[tuple[str, int]]:
    text = record.address.text if record.address else ""
    return [(text, _address_depth(record.address))] if record.address and text else ()


def _address_depth(address: Address) -> int:
    """Return how deep an address goes: 1 province, 2 city, 4 county, and 8 more for a street."""
    known = (address.province_code, address.city_code, address.district_code, address.detail)
    return sum(bool(part) << at for at, part in enumerate(known))


def _phones(record: StandardRecord) -> Sequence[tuple[str, int]]:
    return [(phone.number, 1 + (phone.kind == "mobile")) for phone in record.phones]


def _emails(record: StandardRecord) -> Sequence[tuple[str, int]]:
    return [(email, 1) for email in record.emails]


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


_CRITERIA: Mapping[Survivorship, tuple[str, ...]] = {  # what is asked, in this order; named as the loser's fault
    Survivorship.MOST_TRUSTED: ("less complete", "less trusted", "older"),
    Survivorship.MOST_RECENT: ("less complete", "older", "less trusted"),
    Survivorship.MOST_COMPLETE: ("less complete", "older", "less trusted"),
    Survivorship.MOST_CONFIRMED: ("less complete", "less confirmed", "less trusted", "older"),
}


def _key_of(found: _Found) -> tuple[str, str]:
    return found[1].source_id, found[1].source_record_id


def _found(records: Sequence[StandardRecord], extract: Extract) -> list[_Found]:
    """Return each value that a record tells, with the record and how complete the value is."""
    return [(value, record, completeness) for record in records for value, completeness in extract(record)]


def _agree(found: Sequence[_Found]) -> bool:
    """Say whether all tell one value, as they mostly do: then nothing is beaten."""
    value = found[0][0]
    return all([item[0] == value for item in found])


def _best(found: Sequence[_Found], rule: Survivorship) -> StandardRecord:
    """Return the record that `_ranked` puts first where all tell one value, so that none is more confirmed."""
    if len(found) == 1:
        return found[0][1]
    strengths = [_strengths(record, completeness, rule) for _, record, completeness in found]
    strongest = max(strengths)
    if strengths.count(strongest) == 1:
        return found[strengths.index(strongest)][1]
    return min((item for item, own in zip(found, strengths, strict=True) if own == strongest), key=_key_of)[1]


def _strengths(record: StandardRecord, completeness: int, rule: Survivorship, agreeing: int = 0) -> tuple[float, ...]:
    """Return how strong a record's value is by each criterion of the rule, in the order of _CRITERIA."""
    time, trust = record.updated_time.timestamp(), -record.trust_rank
    if rule is Survivorship.MOST_TRUSTED:
        return completeness, trust, time
    if rule is Survivorship.MOST_CONFIRMED:
        return completeness, agreeing, trust, time
    return completeness, time, trust


def _ranked(found: Sequence[_Found], rule: Survivorship) -> list[_Claim]:
    """Return what the records claim, the winner first; ties go by the records' keys, the same way in every run."""
    claims = []
    agreeing = Counter(value for value, _, _ in found) if rule is Survivorship.MOST_CONFIRMED else {}
    for value, record, completeness in sorted(found, key=_key_of):
        claims.append(_Claim(value, record, _strengths(record, completeness, rule, agreeing.get(value, 0))))
    claims.sort(key=itemgetter(2), reverse=True)
    return claims


def _golden_field(ranked: Sequence[_Claim], rule: Rule) -> GoldenField:
    winner = ranked[0]
    beaten = {}
    for claim in ranked[1:]:
        if claim.value != winner.value and claim.value not in beaten:
            why = _why(claim, winner, rule.survivorship)
            beaten[claim.value] = BeatenValue(claim.value, *claim.record.key, why)
    return _told(winner.value, winner.record, rule, tuple(beaten.values())[:BEATEN_LIMIT])


def _told(value: str, record: StandardRecord, rule: Rule, beat: tuple[BeatenValue, ...] = ()) -> GoldenField:
    """Return a record's value as the one that a rule chose."""
    return GoldenField(
        value, record.source_id, record.source_record_id, str(rule.survivorship), record.updated_time, beat,
        rule.version,
    )  # fmt: skip


def _why(loser: _Claim, winner: _Claim, rule: Survivorship) -> str:
    """Return the first criterion of the rule in which the loser falls short."""
    pairs = zip(_CRITERIA[rule], loser.strengths, winner.strengths, strict=True)
    return next((criterion for criterion, lost, won in pairs if lost < won), "tie")


def _all_values(records: Sequence[StandardRecord], extract: Extract, rule: Rule) -> tuple[GoldenField, ...]:
    """Return every distinct value with the best record that claims it, the believed one first with what it beat."""
    found = _found(records, extract)
    if not found:
        return ()
    if _agree(found):
        return (_told(found[0][0], _best(found, rule.survivorship), rule),)
    ranked = _ranked(found, rule.survivorship)
    firsts = {claim.value: claim for claim in reversed(ranked)}
    others = [firsts[value] for value in dict.fromkeys(claim.value for claim in ranked)][1:]
    return (_golden_field(ranked, rule), *(_told(claim.value, claim.record, rule) for claim in others))


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
