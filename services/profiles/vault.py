"""Seal and open what the store keeps, and turn identifiers into tokens; the only place with keys."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import orjson

from services.chassis.crypto import (
    PERSONAL,
    SENSITIVE,
    BlindIndex,
    DataKeys,
    FieldCipher,
    MasterKey,
    Protection,
    Sealer,
)
from services.profiles.believed import Believed, from_plain, plain_values, to_plain
from services.profiles.domain.blocking import IDENTIFIERS, blocking_keys
from services.profiles.domain.classes import has_sensitive, is_sensitive
from services.profiles.domain.cross_record import Value
from services.profiles.domain.plain import record_from_plain, record_to_plain
from services.profiles.domain.relations import Relation
from services.profiles.domain.retention import WHOLE, Action
from services.profiles.domain.sources import DELETED
from services.profiles.domain.values import ManualOverride, RawRecord, StandardRecord
from services.profiles.relations.values import StoredRelation
from services.profiles.store import Store
from services.profiles.values import Profile, StoredRecord, record_key

RECORD, GOLDEN, OVERRIDE, RELATION = "record", "golden", "override", "relation"
PROFILE_ID_CHARACTERS = 32


class ErasedError(Exception):
    """The data key was destroyed: what it sealed is gone for ever."""


@dataclass(frozen=True, slots=True)
class Ciphers:
    """The ciphers of some customers, by data key id."""

    by_id: Mapping[str, FieldCipher]

    def get(self, key_id: str) -> FieldCipher:
        """Return the cipher of a data key.

        Raises:
            ErasedError: the key was destroyed.
        """
        found = self.by_id.get(key_id)
        if found is None:
            raise ErasedError("the data key was destroyed")
        return found


class Vault:
    """Keys of this installation, and the data keys of customers that the store keeps wrapped."""

    def __init__(self, keys_dir: Path, protection: Protection | None = None) -> None:
        """Read, or make, the key files; protect as the installation chose."""
        chosen = protection or Protection()
        self.master = MasterKey(keys_dir, chosen)
        self._data_keys = DataKeys(self.master, chosen.cache_keys, chosen.cache_seconds)
        self._ciphers = {name: chosen.cipher(name) for name in (PERSONAL, SENSITIVE)}
        self._matching, self._content, self._ids, self._rejects, self._erased, self._relations = (
            BlindIndex(keys_dir, purpose)
            for purpose in ("matching", "content", "ids", "rejects", "erasures", "relations")
        )
        self._receipts = BlindIndex(keys_dir, "receipts")
        self.events = Sealer("events", keys_dir, chosen.cipher_of_keys)
        self.uploads = Sealer("uploads", keys_dir, chosen.cipher_of_keys)

    def ciphers(self, store: Store, profiles: Iterable[Profile], at_hand: Mapping[str, bytes] | None = None) -> Ciphers:
        """Return the ciphers that open these profiles and their records; `at_hand` are keys just read."""
        wanted = {key for item in profiles for key in _key_ids(item) if key}
        wrapped = {key_id: value for key_id, value in (at_hand or {}).items() if key_id in wanted}
        if missing := sorted(wanted - wrapped.keys()):
            wrapped.update(store.data_keys(missing))
        return Ciphers(self._data_keys.ciphers(wrapped))

    def ciphers_of(self, store: Store, key_ids: Iterable[str]) -> Ciphers:
        """Return the ciphers of data keys; destroyed ones are missing."""
        return Ciphers(self._data_keys.ciphers(store.data_keys(sorted(set(key_ids)))))

    def make_ciphers(self, key_ids: Sequence[str]) -> tuple[dict[str, bytes], Ciphers]:
        """Make data keys that the caller stores: wrapped by id, and their ciphers.

        Raises:
            MasterKeyUnavailable: the keeper of the master key does not answer.
        """
        made = self._data_keys.new(key_ids)
        wrapped = {key_id: value for key_id, (value, _) in made.items()}
        return wrapped, Ciphers({key_id: cipher for key_id, (_, cipher) in made.items()})

    def new_ciphers(self, store: Store, key_ids: Sequence[str]) -> Ciphers:
        """Make and store data keys for new customers; a key that is there already, from a crashed try, is used.

        Raises:
            MasterKeyUnavailable: the keeper of the master key does not answer; nothing was stored.
        """
        wrapped, made = self.make_ciphers(key_ids)
        known = store.add_data_keys(wrapped)
        return Ciphers({**made.by_id, **self._data_keys.ciphers(known)})

    def seal_record(self, record: StandardRecord, key: str, number: int, cipher: FieldCipher) -> bytes:
        """Seal a standard record with its originals."""
        plain = record_to_plain(record)
        suite = self._ciphers[SENSITIVE if is_sensitive(record) else PERSONAL]
        return cipher.seal(RECORD, orjson.dumps(plain), f"{key}/{number}", suite)

    def open_record(self, stored: StoredRecord, ciphers: Ciphers) -> StandardRecord:
        """Open a source record."""
        return record_from_plain(orjson.loads(self.open_plain(stored, ciphers)))

    def open_plain(self, stored: StoredRecord, ciphers: Ciphers) -> bytes:
        """Open a source record as the JSON it was sealed as."""
        return ciphers.get(stored.key_id).open(RECORD, stored.sealed, f"{stored.key}/{stored.number}")

    def seal_golden(self, believed: Believed, profile_id: str, cipher: FieldCipher) -> bytes:
        """Seal what is believed of a person, with its lineage."""
        suite = self._ciphers[SENSITIVE if has_sensitive(believed.names()) else PERSONAL]
        return cipher.seal(GOLDEN, orjson.dumps(to_plain(believed)), profile_id, suite)

    def open_golden(self, profile: Profile, ciphers: Ciphers) -> Believed:
        """Open what is believed of a person."""
        return from_plain(self._golden(profile, ciphers))

    def open_values(self, profile: Profile, ciphers: Ciphers) -> dict[str, str]:
        """Open what is believed of a person, the values alone; see Believed.values."""
        return plain_values(self._golden(profile, ciphers)) if profile.golden else {}

    @staticmethod
    def _golden(profile: Profile, ciphers: Ciphers) -> dict[str, object]:
        plain = ciphers.get(profile.key_id).open(GOLDEN, profile.golden, profile.profile_id)
        found: dict[str, object] = orjson.loads(plain)
        return found

    def seal_override(self, override: ManualOverride, override_id: str, cipher: FieldCipher) -> bytes:
        """Seal a steward's value with its reason."""
        content = [override.value, record_to_plain(override.record), override.reason]
        return cipher.seal(OVERRIDE, orjson.dumps(content), override_id, self._ciphers[SENSITIVE])

    def open_overrides(self, profile: Profile, ciphers: Ciphers) -> dict[str, ManualOverride]:
        """Open a profile's overrides, by their ids; those of a destroyed key are gone."""
        opened = {}
        for item in profile.overrides:
            if item.key_id in ciphers.by_id:
                plain = ciphers.get(item.key_id).open(OVERRIDE, item.sealed, item.id)
                value, record, reason = orjson.loads(plain)
                standard = record_from_plain(record)
                opened[item.id] = ManualOverride(item.name, value, standard, reason, item.expire_time)
        return opened

    def tokens(self, record: StandardRecord) -> list[str]:
        """Return the blind tokens of a record's blocking keys, identifiers among them."""
        return [self.token(*key.split(":", 1)) for key in blocking_keys(record)]

    def identifiers_of(self, records: Iterable[StandardRecord], tokens: Collection[str]) -> frozenset[str]:
        """Return the phones and e-mails of records that these tokens stand for."""
        keys = {key for record in records for key in blocking_keys(record)} if tokens else set()
        named = [key.split(":", 1) for key in keys if key.startswith(("phone:", "email:"))]
        return frozenset(value for kind, value in named if self.token(kind, value) in tokens)

    def token(self, kind: str, normalized: str) -> str:
        """Return the blind token of one blocking key; phone, email and resident_id are kinds to look up by."""
        return self._matching.token(kind, normalized)

    def value_token(self, value: Value) -> str:
        """Return the blind token by which the holders of a value are counted: an identifier's own one among all."""
        if value.field in IDENTIFIERS and not value.source_id:
            return self.token(value.field, value.text)
        return self._matching.token(f"value:{value.field}", f"{value.source_id}\0{value.text}")

    def content_hash(self, raw: RawRecord) -> str:
        """Return a keyed hash that is equal for equal content, whatever its time."""
        content = orjson.dumps(dict(raw.fields), option=orjson.OPT_SORT_KEYS)
        return self._content.token("content", f"{record_key(raw.source_id, raw.source_record_id)}\0{content.decode()}")

    def says_nothing(self, record: StoredRecord) -> bool:
        """Tell, without opening it, whether a record says nothing of anybody: its source or retention deleted it."""
        return f"{WHOLE}:{Action.DELETE}" in record.retired or self.is_deleted(record)

    def is_deleted(self, record: StoredRecord) -> bool:
        """Tell whether its source deleted a record."""
        raw = RawRecord(record.source_id, record.source_record_id, datetime.min, {DELETED: "true"})
        return self.content_hash(raw) == record.content_hash

    def reject_token(self, kind: str, text: str) -> str:
        """Return the blind token of a set-apart row ("reject") or of its record ("reject-record")."""
        return self._rejects.token(kind, text)

    def record_reject_token(self, key: str) -> str:
        """Return the blind token by which set-apart rows know their record."""
        return self.reject_token("reject-record", key)

    def erased_token(self, key: str) -> str:
        """Return the blind token by which the erasure ledger knows a source record."""
        return self._erased.token("erased", key)

    def seal_relation(self, relation: Relation, relation_id: str, keys: Sequence[str], ciphers: Ciphers) -> bytes:
        """Seal what is said of two, under one data key after the other: whoever lacks one of them reads nothing."""
        sealed = orjson.dumps(asdict(relation))
        for at, key_id in enumerate(keys):
            sealed = ciphers.get(key_id).seal(RELATION, sealed, f"{relation_id}/{at}", self._ciphers[SENSITIVE])
        return sealed

    def open_relation(self, stored: StoredRelation, ciphers: Ciphers) -> Relation:
        """Open what is said of two.

        Raises:
            ErasedError: one of its data keys was destroyed.
        """
        plain = stored.sealed
        for at, key_id in reversed(list(enumerate(stored.keys))):
            plain = ciphers.get(key_id).open(RELATION, plain, f"{stored.id}/{at}")
        return Relation(**orjson.loads(plain))

    def relation_token(self, kind: str, text: str) -> str:
        """Return the blind token of an end of a relationship ("relation-end"), or of one as a whole."""
        return self._relations.token(kind, text)

    def founded_id(self, key: str) -> str:
        """Return the id of the profile that a record founds: a repeat after a crash founds the same one."""
        first, second = self._ids.token("profile", key), self._ids.token("profile-2", key)
        return (_hex(first) + _hex(second))[:PROFILE_ID_CHARACTERS]

    def leaf_nonce(self, run: str, item: str) -> str:
        """Return what hides an item among the leaves of a receipt; the same for the same run and item."""
        return self._receipts.token("retention_leaf", f"{run}\0{item}")

    def receipt_seal(self, content: str) -> str:
        """Return the keyed hash that proves a receipt."""
        return self._receipts.token("retention_seal", content)

    def forget(self, key_id: str) -> None:
        """Drop a destroyed key from memory."""
        self._data_keys.forget(key_id)


def _key_ids(profile: Profile) -> Iterable[str]:
    yield profile.key_id
    yield from (item.key_id for item in profile.records)
    yield from (item.key_id for item in profile.overrides)


def _hex(token: str) -> str:
    return base64.urlsafe_b64decode(token + "==").hex()
