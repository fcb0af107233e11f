"""The data dictionary in use: built-in fields, what stewards changed of them, and custom fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kehu.options.v1 import options_pb2
from kehu.profiles.v1 import resources_pb2

from services.profiles.domain import validation
from services.profiles.domain.cross_record import Index
from services.profiles.domain.dictionary import DEFAULT_FIELDS, DEFAULT_RULES, FieldDefinition, Rule, Survivorship
from services.profiles.domain.formats import FORMAT_MISMATCH, Format, fits_format
from services.profiles.domain.values import Problem, Severity, StandardRecord
from services.profiles.intake.checks import domain_rule
from services.profiles.relations.columns import RelationColumns, columns_of
from services.profiles.remembered import Remembered
from services.profiles.store import Store
from services.profiles.values import Field

ALL = 1000
FORMATS: Mapping[int, Format] = {
    resources_pb2.FieldDefinition.FORMAT_DATE: Format.DATE,
    resources_pb2.FieldDefinition.FORMAT_NUMBER: Format.NUMBER,
    resources_pb2.FieldDefinition.FORMAT_PHONE: Format.PHONE,
    resources_pb2.FieldDefinition.FORMAT_EMAIL: Format.EMAIL,
    resources_pb2.FieldDefinition.FORMAT_CODE: Format.CODE,
    resources_pb2.FieldDefinition.FORMAT_BANK_CARD: Format.BANK_CARD,
    resources_pb2.FieldDefinition.FORMAT_COMPANY_CODE: Format.COMPANY_CODE,
}
_FORMATS_OF_BUILT_IN = {
    "YYYY-MM-DD": resources_pb2.FieldDefinition.FORMAT_DATE,
    "E.164": resources_pb2.FieldDefinition.FORMAT_PHONE,
}


def _built_in(definition: FieldDefinition) -> Field:
    value_class = options_pb2.Classification.Value(f"CLASSIFICATION_{definition.classification.name}")
    return Field(
        definition.name,
        definition.label,
        definition.value_format,
        _FORMATS_OF_BUILT_IN.get(definition.value_format, resources_pb2.FieldDefinition.FORMAT_TEXT),
        value_class,
        definition.group,
        options_pb2.Mask.Value(f"MASK_{definition.mask.upper()}"),
        definition.owner_department,
        definition.update_rule,
        str(definition.survivorship),
        definition.retention_days,
        definition.purposes,
        built_in=True,
    )


BUILT_IN: Mapping[str, Field] = {item.name: _built_in(item) for item in DEFAULT_FIELDS}


def rule_of(item: Field) -> Rule:
    """Return the rule of a definition; a word that means none, stored before they were checked, is the default."""
    known = item.survivorship in set(Survivorship)
    return Rule(Survivorship(item.survivorship) if known else Survivorship.MOST_TRUSTED, item.rule_version)


@dataclass(frozen=True, slots=True)
class _Ruling:
    """What the store says of fields and records at one moment; `formats` are those of custom fields."""

    fields: Mapping[str, Field]
    rules: Mapping[str, Rule]
    checks: Sequence[validation.Rule]
    cross: Sequence[validation.Rule]
    indexes: frozenset[Index]
    formats: Mapping[str, Format]
    relations: RelationColumns


class Dictionary:
    """Field definitions and validation rules in use; one is passed to all who ask it in a process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ruling = Remembered(self._read)

    def _read(self) -> _Ruling:
        stored = [item for item in self._store.fields.page({}, "", ALL) if not item.is_deleted]
        stored_rules = self._store.rules.page({}, "", ALL)
        checks = [domain_rule(item.id, item.active) for item in stored_rules if item.active]
        latest = [domain_rule(item.id, item.latest) for item in stored_rules if item.latest not in ("", item.active)]
        return _Ruling(
            {**BUILT_IN, **{item.id: item for item in stored}},
            {**DEFAULT_RULES, **{item.id: rule_of(item) for item in stored if item.survivorship}},
            [item for item in checks if not item.looks_around],
            [item for item in checks if item.looks_around],
            frozenset(item.index for item in (*checks, *latest) if item.index),
            {item.id: FORMATS[item.format] for item in stored if not item.built_in and item.format in FORMATS},
            columns_of(self._store.sources.page({}, "", ALL)),
        )

    def all(self) -> Mapping[str, Field]:
        """Return every definition by id."""
        return self._ruling().fields

    def get(self, field_id: str) -> Field | None:
        """Return one definition."""
        return self.all().get(field_id)

    def rules(self) -> Mapping[str, Rule]:
        """Return how each field's value is chosen; fields without a rule are left out."""
        return self._ruling().rules

    def cross_rules(self) -> Sequence[validation.Rule]:
        """Return the rules in use that look beyond the record."""
        return self._ruling().cross

    def indexes(self) -> frozenset[Index]:
        """Return by what fields rules, also those not in use yet, ask who else holds a value."""
        return self._ruling().indexes

    def relations(self) -> RelationColumns:
        """Return what the columns of sources say of relationships."""
        return self._ruling().relations

    def broken(self, record: StandardRecord) -> tuple[Problem, ...]:
        """Return a problem for each rule that the record alone breaks and each custom field not of its format."""
        now = self._ruling()
        found = [
            Problem(name, FORMAT_MISMATCH, Severity.WARNING)
            for name, kind in now.formats.items()
            if (text := record.originals.get(name, "").strip()) and not fits_format(text, kind)
        ]
        return (*validation.broken(now.checks, record), *found)

    def forget(self) -> None:
        """Read again at the next question: this process changed a definition or a rule."""
        self._ruling.forget()
