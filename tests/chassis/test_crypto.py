"""What sealed bytes, data keys and blind tokens promise."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.chassis.crypto import (
    BlindIndex,
    DataKeys,
    FieldCipher,
    MasterKey,
    SealBroken,
    Sealer,
    add_key,
    read_keys,
)


def flipped(sealed: bytes) -> list[bytes]:
    return [sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :] for i in range(len(sealed))]


def test_key_files_are_made_once_readable_by_their_owner_only(tmp_path: Path) -> None:
    first = read_keys("master", tmp_path / "keys")

    assert first == read_keys("master", tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys" / "master.key").stat().st_mode) == 0o600


def test_many_starters_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: read_keys("events", tmp_path), range(32)))

    assert len(set(found)) == 1


def test_a_damaged_key_file_is_refused_with_its_line_and_never_its_content(tmp_path: Path) -> None:
    (tmp_path / "events.key").write_text("00112233 not-base64\n")

    with pytest.raises(SealBroken, match=r"events\.key line 1") as refusal:
        Sealer("events", tmp_path)
    assert "not-base64" not in str(refusal.value)


def test_sealed_bytes_open_with_their_own_associated_data_only(tmp_path: Path) -> None:
    sealer = Sealer("events", tmp_path)
    sealed = sealer.seal("张三".encode(), b"profiles/1")

    assert "张三".encode() == sealer.open(sealed, b"profiles/1")
    with pytest.raises(SealBroken):
        sealer.open(sealed, b"profiles/2")


def test_every_flipped_byte_and_every_cut_is_refused(tmp_path: Path) -> None:
    sealer = Sealer("events", tmp_path)
    sealed = sealer.seal(b"13800138000")

    for bad in [*flipped(sealed), *(sealed[:i] for i in range(len(sealed)))]:
        with pytest.raises(SealBroken):
            sealer.open(bad)


def test_one_purpose_cannot_open_what_another_sealed(tmp_path: Path) -> None:
    events = Sealer("events", tmp_path)
    (tmp_path / "uploads.key").write_bytes((tmp_path / "events.key").read_bytes())

    with pytest.raises(SealBroken):
        Sealer("uploads", tmp_path).open(events.seal(b"x"))


def test_after_a_key_is_added_old_bytes_open_and_new_bytes_use_the_new_key(tmp_path: Path) -> None:
    old = Sealer("events", tmp_path)
    sealed = old.seal(b"x")
    add_key("events", tmp_path)
    new = Sealer("events", tmp_path)

    assert new.open(sealed) == b"x"
    assert old.newest_key_id != new.newest_key_id
    with pytest.raises(SealBroken):
        old.open(new.seal(b"x"))


def test_sealing_twice_never_gives_the_same_bytes(tmp_path: Path) -> None:
    sealer = Sealer("events", tmp_path)

    assert len({sealer.seal(b"x") for _ in range(2000)}) == 2000


def test_a_data_key_unwraps_under_its_own_id_only(tmp_path: Path) -> None:
    master = MasterKey(tmp_path)
    wrapped = master.wrap(b"k" * 32, "key-1")

    assert master.unwrap(wrapped, "key-1") == b"k" * 32
    with pytest.raises(SealBroken):
        master.unwrap(wrapped, "key-2")


def test_rewrapping_moves_a_data_key_to_the_newest_master_key(tmp_path: Path) -> None:
    wrapped, cipher = DataKeys(MasterKey(tmp_path)).new("key-1")
    sealed = cipher.seal("golden", b"x", "profiles/1")
    add_key("master", tmp_path)
    master = MasterKey(tmp_path)

    assert master.is_stale(wrapped)
    again = master.rewrap(wrapped, "key-1")
    assert not master.is_stale(again)
    assert DataKeys(master).cipher("key-1", again).open("golden", sealed, "profiles/1") == b"x"


def test_a_field_moved_to_another_field_document_or_key_is_refused() -> None:
    cipher = FieldCipher("key-1", b"k" * 32)
    sealed = cipher.seal("phones", b"x", "profiles/1")

    for field, place, key_id in [
        ("emails", "profiles/1", "key-1"),
        ("phones", "profiles/2", "key-1"),
        ("phones", "profiles/1", "key-2"),
    ]:
        with pytest.raises(SealBroken):
            FieldCipher(key_id, b"k" * 32).open(field, sealed, place)
    for bad in [*flipped(sealed), b"", sealed[:20]]:
        with pytest.raises(SealBroken):
            cipher.open("phones", bad, "profiles/1")


def test_the_cache_of_unwrapped_keys_is_bounded_and_forgets_destroyed_keys(tmp_path: Path) -> None:
    keys = DataKeys(MasterKey(tmp_path), cache_size=10)
    wrapped = {f"key-{i}": keys.new(f"key-{i}")[0] for i in range(50)}

    assert len(keys) == 10
    assert keys.cipher("key-3", wrapped["key-3"]).key_id == "key-3"
    keys.forget("key-3")
    assert len(keys) == 9


def test_tokens_are_equal_for_equal_values_of_one_kind_only(tmp_path: Path) -> None:
    index = BlindIndex(tmp_path)

    assert index.token("phone", "+8613800138000") == BlindIndex(tmp_path).token("phone", "+8613800138000")
    assert index.token("phone", "+8613800138000") != index.token("email", "+8613800138000")
    assert len(index.token("phone", "1")) == 22


def test_tokens_differ_between_installations_and_survive_added_keys(tmp_path: Path) -> None:
    token = BlindIndex(tmp_path / "a").token("phone", "1")
    add_key("index", tmp_path / "a")

    assert token == BlindIndex(tmp_path / "a").token("phone", "1")
    assert token != BlindIndex(tmp_path / "b").token("phone", "1")
