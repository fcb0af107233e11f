"""What a source's columns say of relationships: followed record by record, each time a record comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from services.chassis.errors import Conflict
from services.profiles.domain.relations import BY_RECORD, STATED, Relation
from services.profiles.domain.validation import texts_of
from services.profiles.domain.values import StandardRecord
from services.profiles.relations.relating import CODE, Relations
from services.profiles.relations.values import RelationCode
from services.profiles.store import Store
from services.profiles.values import Source, record_key
from services.profiles.vault import ErasedError, Vault

OF_RECORD, DIGEST = "relation-of-record", "relation-digest"


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A field of a source's records that names the other's record id, or a code that the other's `code_field` holds.

    `is_inverse`: the other is the first of the type's words.
    """

    field: str
    type: str
    source_id: str
    code_field: str = ""
    is_inverse: bool = False


@dataclass(frozen=True, slots=True)
class RelationColumns:
    """The columns of each source, and the fields of each source whose values are codes."""

    columns: Mapping[str, Sequence[RelationColumn]]
    code_fields: Mapping[str, Sequence[str]]


NO_COLUMNS = RelationColumns({}, {})


def columns_of(sources: Sequence[Source]) -> RelationColumns:
    """Return what the settings of sources say."""
    columns = {
        item.id: [RelationColumn(name, kind, other or item.id, code, bool(inverse))
                  for name, kind, other, code, inverse in item.relations]
        for item in sources if item.relations
    }  # fmt: skip
    fields: dict[str, list[str]] = {}
    for column in (column for found in columns.values() for column in found if column.code_field):
        if column.code_field not in fields.setdefault(column.source_id, []):
            fields[column.source_id].append(column.code_field)
    return RelationColumns(columns, fields)


class ColumnFollower:
    """Keeps relationships and codes as the records of sources say."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._relations = Relations(store, vault)

    def follow(self, records: Sequence[StandardRecord], columns: RelationColumns) -> None:
        """Keep what these records say, which are in the store already; a repeat changes nothing.

        Of two records with one code the first keeps it, until it says another.
        """
        self._follow_codes({record_key(*item.key): item for item in records if item.source_id in columns.code_fields},
                           columns)  # fmt: skip
        ended: list[str] = []
        for record in records:
            for column in columns.columns.get(record.source_id, ()):
                if not self._follow(record, column):
                    ended.append(self._id_of(record, column))
        self._relations.drop(ended)

    def _follow_codes(self, records: Mapping[str, StandardRecord], columns: RelationColumns) -> None:
        """Keep the codes that records hold, each by its key, and no others of theirs."""
        if not records:
            return
        said = [
            RelationCode(self._code(record.source_id, name, text), key)
            for key, record in records.items()
            for name in columns.code_fields[record.source_id]
            for text in texts_of(record, name)[:1]
        ]
        held = {(item.id, item.record) for item in said}
        for code in self._store.relation_codes.among("record", list(records)):
            if (code.id, code.record) not in held:
                with suppress(Conflict):  # somebody else removed it
                    self._store.relation_codes.delete(code)
        self._store.relation_codes.add_missing(said)

    def _follow(self, record: StandardRecord, column: RelationColumn) -> bool:
        """Keep what one column says; False when it says nothing."""
        text = next(iter(texts_of(record, column.field)), "")
        if not text:
            return False
        key, said = record_key(*record.key), record.updated_time.isoformat(timespec="seconds")
        other = "" if column.code_field else record_key(column.source_id, text)
        relation = Relation(
            column.type, key, other, BY_RECORD, key, said,
            is_by_code=bool(column.code_field), is_inverse=column.is_inverse,
        )  # fmt: skip
        end = self._code(column.source_id, column.code_field, text) if column.code_field else ""
        digest = self._vault.relation_token(DIGEST, "\0".join((column.type, other or end, str(column.is_inverse))))
        try:
            self._relations.put(self._relations.state(relation, self._id_of(record, column), STATED, end, digest))
        except ErasedError:
            return False
        return True

    def _id_of(self, record: StandardRecord, column: RelationColumn) -> str:
        return self._vault.relation_token(OF_RECORD, f"{record_key(*record.key)}\0{column.field}")

    def _code(self, source_id: str, field: str, text: str) -> str:
        return self._vault.relation_token(CODE, f"{source_id}\0{field}\0{text}")
