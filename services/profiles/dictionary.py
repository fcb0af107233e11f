"""The data dictionary in use: built-in fields, what stewards changed of them, and custom fields."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from kehu.options.v1 import options_pb2
from kehu.profiles.v1 import resources_pb2

from services.profiles.domain.dictionary import DEFAULT_FIELDS, DEFAULT_RULES, FieldDefinition, Rule, Survivorship
from services.profiles.store import Store
from services.profiles.values import Field

FRESH_SECONDS = 2.0  # how long another process may still use the former dictionary
ALL = 1000
_FORMATS = {
    "YYYY-MM-DD": resources_pb2.FieldDefinition.FORMAT_DATE,
    "E.164": resources_pb2.FieldDefinition.FORMAT_PHONE,
}


def _built_in(definition: FieldDefinition) -> Field:
    value_class = options_pb2.Classification.Value(f"CLASSIFICATION_{definition.classification.name}")
    return Field(
        definition.name,
        definition.label,
        definition.value_format,
        _FORMATS.get(definition.value_format, resources_pb2.FieldDefinition.FORMAT_TEXT),
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


def _rule(item: Field) -> Rule:
    """Return the rule of a definition; a word that means none, stored before they were checked, is the default."""
    known = item.survivorship in set(Survivorship)
    return Rule(Survivorship(item.survivorship) if known else Survivorship.MOST_TRUSTED, item.rule_version)


class Dictionary:
    """Field definitions by id, read from the store and remembered for moments."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Field] = {}
        self._rules: Mapping[str, Rule] = DEFAULT_RULES
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def all(self) -> dict[str, Field]:
        """Return every definition by id."""
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_SECONDS:
                stored = self._store.fields.page({}, "", ALL)
                self._known = {**BUILT_IN, **{item.id: item for item in stored}}
                self._rules = {**DEFAULT_RULES, **{item.id: _rule(item) for item in stored if item.survivorship}}
                self._read_at = time.monotonic()
            return self._known

    def get(self, field_id: str) -> Field | None:
        """Return one definition."""
        return self.all().get(field_id)

    def rules(self) -> Mapping[str, Rule]:
        """Return how each field's value is chosen; fields without a rule are left out."""
        self.all()
        return self._rules

    def forget(self) -> None:
        """Read again at the next question: this process changed a definition."""
        with self._lock:
            self._read_at = float("-inf")
