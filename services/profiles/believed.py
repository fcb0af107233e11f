"""What is believed of a person together with the fields the domain does not know, ready for sealing and for facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from services.profiles.domain.dictionary import DEFAULT_RULES, Rule
from services.profiles.domain.golden import NO_RULE, STANDARD_FIELDS, build_golden, chosen, extract_of, overridden
from services.profiles.domain.values import BeatenValue, GoldenField, GoldenRecord, ManualOverride, StandardRecord

Plain: TypeAlias = "list[object] | dict[str, object] | str"
STANDARD_TEXTS = frozenset(
    ("name", "gender", "birth_date", "resident_id", "phone", "email", "address", "province", "city", "district")
)
TIER, TIER_LENGTH = "tier", 64
_NOTHING_MORE = GoldenField("", "", "", "", datetime.min)[5:]  # nothing beaten, the built-in rule, no override
_NO_MORE: Sequence[object] = ((), 0, "", "")  # what a stored field leaves out at its end


@dataclass(frozen=True, slots=True)
class Believed:
    """The golden record, the parts of its name, custom fields with lineage, and the names sources wrote."""

    golden: GoldenRecord
    family_name: str = ""
    given_name: str = ""
    attributes: Mapping[str, GoldenField] = field(default_factory=dict)
    source_names: Sequence[str] = ()

    @property
    def tier(self) -> str:
        """Return the tier of the customer, empty when unknown."""
        found = self.attributes.get(TIER)
        return found.value[:TIER_LENGTH] if found else ""

    def phones(self) -> list[str]:
        """Return all known phones, the believed one first."""
        return [item.value for item in self.golden.phones]

    def emails(self) -> list[str]:
        """Return all known e-mail addresses, the believed one first."""
        return [item.value for item in self.golden.emails]

    def lineage(self, name: str) -> GoldenField | None:
        """Return the believed value of a field, standard or custom, with where it comes from."""
        return self.golden.fields.get(name) or self.attributes.get(name)

    def names(self) -> list[str]:
        """Return the names of the fields of which something is believed."""
        return [*self.golden.fields, *self.attributes]

    def values(self) -> dict[str, str]:
        """Return every believed value by field, lists joined: what a revision compares."""
        found = {name: item.value for name, item in {**self.golden.fields, **self.attributes}.items()}
        return {**found, "phones": "\n".join(self.phones()), "emails": "\n".join(self.emails())}


def believe(
    records: Sequence[StandardRecord],
    rules: Mapping[str, Rule] = DEFAULT_RULES,
    overrides: Sequence[ManualOverride] = (),
) -> Believed:
    """Derive what is believed of a person; the same records, rules and overrides give the same result."""
    golden = build_golden(records, overrides, rules)
    family, given = _name_parts(golden, [*records, *(item.record for item in overrides)])
    names = dict.fromkeys(record.name.full for record in records if record.name)
    custom = [item for item in overrides if item.field not in STANDARD_FIELDS]
    return Believed(golden, family, given, overridden(_attributes(records, rules), custom), tuple(names))


def _name_parts(golden: GoldenRecord, records: Iterable[StandardRecord]) -> tuple[str, str]:
    chosen_name = golden.fields.get("name")
    for record in records:
        if chosen_name is None or record.name is None or record.name.full != chosen_name.value:
            continue
        if record.key == (chosen_name.source_id, chosen_name.source_record_id):
            return record.name.surname, record.name.given
    return "", ""


def _attributes(records: Sequence[StandardRecord], rules: Mapping[str, Rule]) -> dict[str, GoldenField]:
    """Return the custom fields, each chosen by its rule: the most trusted source's value where it has none."""
    names = sorted({name for record in records for name in record.originals} - STANDARD_TEXTS)
    found = {name: chosen(records, extract_of(name), rules.get(name, NO_RULE)) for name in names}
    return {name: item for name, item in found.items() if item}


def changed_fields(old: Mapping[str, str], after: Believed) -> list[str]:
    """Return the names of the fields whose believed value differs from the one of before."""
    return sorted({name for name, value in old.items() ^ after.values().items() if value})  # none is as good as ""


def to_plain(believed: Believed) -> dict[str, object]:
    """Return a JSON-ready form."""
    times: dict[datetime, str] = {}  # of a few records, told by many fields

    def plain(item: GoldenField) -> list[object]:
        time = times.get(item.time)
        if time is None:
            time = times[item.time] = item.time.isoformat()
        return _field_plain(item, time)

    return {
        "f": {name: plain(item) for name, item in believed.golden.fields.items()},
        "p": [plain(item) for item in believed.golden.phones],
        "e": [plain(item) for item in believed.golden.emails],
        "a": {name: plain(item) for name, item in believed.attributes.items()},
        "n": [believed.family_name, believed.given_name],
        "s": list(believed.source_names),
    }


def _field_plain(item: GoldenField, time: str) -> list[object]:
    plain: list[object] = [*item[:4], time]
    if item[5:] == _NOTHING_MORE:
        return plain
    until = item.expire_time.isoformat() if item.expire_time else ""
    if item.beat or item.rule_version or until:
        plain.append([list(lost) for lost in item.beat])
    if item.rule_version or until:
        plain.append(item.rule_version)
    return [*plain, item.reason, until] if until else plain


def from_plain(plain: Mapping[str, object]) -> Believed:
    """Return what `to_plain` made the form from."""
    fields, phones, emails = plain["f"], plain["p"], plain["e"]
    attributes, parts, names = plain["a"], plain["n"], plain["s"]
    assert isinstance(fields, dict) and isinstance(attributes, dict) and isinstance(parts, list)
    assert isinstance(phones, list) and isinstance(emails, list) and isinstance(names, list)
    golden = GoldenRecord(
        {name: _field_of(item) for name, item in fields.items()},
        tuple(_field_of(item) for item in phones),
        tuple(_field_of(item) for item in emails),
    )
    return Believed(golden, parts[0], parts[1], {name: _field_of(item) for name, item in attributes.items()}, names)


def plain_values(plain: Mapping[str, object]) -> dict[str, str]:
    """Return what Believed.values returns, of the form that to_plain made."""
    fields, phones, emails, attributes = (plain[part] for part in "fpea")
    assert isinstance(fields, dict) and isinstance(attributes, dict)
    assert isinstance(phones, list) and isinstance(emails, list)
    found = {name: item[0] for name, item in {**fields, **attributes}.items()}
    return {**found, "phones": "\n".join(item[0] for item in phones), "emails": "\n".join(item[0] for item in emails)}


def _field_of(item: Sequence[object]) -> GoldenField:
    value, source_id, record_id, rule, time, *more = item
    origin = str(value), str(source_id), str(record_id), str(rule), datetime.fromisoformat(str(time))
    if not more:
        return GoldenField(*origin)
    beat, version, reason, until = [*more, *_NO_MORE[len(more) :]]
    lost = tuple(BeatenValue(*entry) for entry in beat)  # type: ignore[attr-defined]
    expires = datetime.fromisoformat(str(until)) if until else None
    return GoldenField(*origin, lost, int(str(version)), str(reason), expires)
