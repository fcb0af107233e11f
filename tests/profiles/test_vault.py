"""What the vault promises: the cipher by classification, and nothing made without the master key."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.chassis.crypto import MasterKeyUnavailable, Protection
from services.profiles.admission import settings_of
from services.profiles.domain.standardize import standardize
from services.profiles.domain.values import RawRecord
from services.profiles.store import MemoryStore
from services.profiles.values import Source, StoredRecord
from services.profiles.vault import Vault

AES, SM4 = 1, 2
NOW = datetime.now(UTC)
SM4_FOR_SENSITIVE = Protection(ciphers={"sensitive": "sm4-gcm"})


def record(**fields: str):
    raw = RawRecord("till", "R1", NOW, {"name": "欧阳小明", "phone": "13812345678", **fields})
    return standardize(raw, settings_of(Source("till", "sales")))


def stored(sealed: bytes) -> StoredRecord:
    return StoredRecord("till", "R1", 1, "", NOW, NOW, "p1", sealed)


@pytest.mark.parametrize(
    ("fields", "code"),
    [({}, AES), ({"address": "北京市朝阳区建国路88号"}, AES), ({"resident_id": "11010519491231002X"}, SM4),
     ({"allergies": "花生"}, SM4)],
)  # fmt: skip
def test_a_record_is_sealed_by_the_cipher_of_its_strictest_class(tmp_path, fields, code):
    vault, store = Vault(tmp_path, SM4_FOR_SENSITIVE), MemoryStore()
    ciphers = vault.new_ciphers(store, ["p1"])
    made = record()
    made = replace(made, originals={**made.originals, **fields})
    sealed = vault.seal_record(made, "till/R1", 1, ciphers.get("p1"))

    assert sealed[1] == code
    assert vault.open_record(stored(sealed), ciphers) == made
    assert Vault(tmp_path).open_record(stored(sealed), ciphers) == made  # a changed choice leaves the old readable


def test_a_new_customer_without_the_master_key_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    vault, store = Vault(tmp_path), MemoryStore()

    def away(_):
        raise MasterKeyUnavailable("the key service does not answer")

    monkeypatch.setattr(vault.master._current, "wrap", away)
    with pytest.raises(MasterKeyUnavailable):
        vault.new_ciphers(store, ["p1"])
    assert store.data_keys(["p1"]) == {}


def test_the_tokens_of_matching_rejects_and_erasures_have_nothing_in_common(tmp_path):
    vault = Vault(tmp_path)
    same = "till/R1"

    made = {vault.token("x", same), vault.reject_token("x", same), vault._erased.token("x", same),
            vault._content.token("x", same), vault._ids.token("x", same)}  # fmt: skip
    assert len(made) == 5
