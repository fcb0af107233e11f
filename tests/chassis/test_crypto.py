"""What sealed bytes, data keys and blind tokens promise."""

from __future__ import annotations

import base64
import hmac
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.chassis.crypto import (
    AES_256_GCM,
    SM4_GCM,
    BlindIndex,
    DataKeys,
    FieldCipher,
    MasterKey,
    SealBroken,
    Sealer,
    add_key,
    read_keys,
    remove_key,
)
from services.chassis.crypto.keys import LOOK_SECONDS
from services.chassis.crypto.suites import SM4, Sm4Gcm


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


def test_of_keys_that_are_added_at_once_none_is_lost(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: add_key("events", tmp_path), range(16)))

    assert made < set(read_keys("events", tmp_path))


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


def test_a_key_that_is_added_is_noticed_without_a_restart(tmp_path: Path) -> None:
    running, other = Sealer("events", tmp_path), Sealer("events", tmp_path)
    sealed = running.seal(b"x")
    add_key("events", tmp_path)
    new = Sealer("events", tmp_path)

    assert new.open(sealed) == b"x"
    assert running.open(new.seal(b"y")) == b"y"  # at once: a key it lacks makes it look
    time.sleep(LOOK_SECONDS + 0.1)
    assert other.newest_key_id == new.newest_key_id  # after a second: it seals with the new one too


def test_a_key_with_a_time_opens_at_once_and_seals_from_then_on(tmp_path: Path) -> None:
    before = Sealer("events", tmp_path).newest_key_id
    coming = add_key("events", tmp_path, seals_from=int(time.time()) + 3600)
    sealer = Sealer("events", tmp_path)

    assert (sealer.newest_key_id, sealer.key_ids()) == (before, [before, coming.key_id])
    text = (tmp_path / "events.key").read_text()
    (tmp_path / "events.key").write_text(re.sub(r" \d+\n", f" {int(time.time()) - 1}\n", text))
    assert Sealer("events", tmp_path).newest_key_id == coming.key_id


def test_a_key_that_is_removed_opens_nothing_any_more_and_the_newest_is_never_removed(tmp_path: Path) -> None:
    sealer = Sealer("events", tmp_path)
    sealed, old = sealer.seal(b"x"), sealer.newest_key_id
    with pytest.raises(SealBroken, match="add another first"):
        remove_key("events", tmp_path, old)
    add_key("events", tmp_path)
    remove_key("events", tmp_path, old)
    time.sleep(LOOK_SECONDS + 0.1)

    with pytest.raises(SealBroken):
        sealer.open(sealed)


def test_a_key_file_under_repair_leaves_a_running_process_with_what_it_read(tmp_path: Path) -> None:
    sealer = Sealer("events", tmp_path)
    (tmp_path / "events.key").write_text("broken\n")
    time.sleep(LOOK_SECONDS + 0.1)

    assert sealer.open(sealer.seal(b"x")) == b"x"


def test_a_key_file_that_is_away_is_not_made_anew_by_a_running_process(tmp_path: Path) -> None:
    sealer, file, backup = Sealer("events", tmp_path), tmp_path / "events.key", tmp_path / "backup"
    before = sealer.seal(b"x")
    file.rename(backup)
    sealer.key_ids()
    during = sealer.seal(b"y")
    assert not file.exists(), "a fresh key would open nothing that is stored"
    file.write_bytes(b"\xff\xfe half of a backup")
    assert len(sealer.key_ids()) == 1
    backup.rename(file)

    assert [Sealer("events", tmp_path).open(sealed) for sealed in (before, during)] == [b"x", b"y"]
    assert sealer.open(before) == b"x"


def test_the_key_that_seals_until_the_time_of_another_is_not_removed(tmp_path: Path) -> None:
    sealer = Sealer("events", tmp_path)
    now = sealer.newest_key_id
    coming = add_key("events", tmp_path, seals_from=int(time.time()) + 3600)
    for key_id in (now, coming.key_id):
        with pytest.raises(SealBroken, match="until its time has come"):
            remove_key("events", tmp_path, key_id)

    assert [key.key_id for key in read_keys("events", tmp_path)] == [now, coming.key_id]


def test_bytes_that_are_sealed_again_keep_their_cipher(tmp_path: Path) -> None:
    before = Sealer("events", tmp_path, SM4_GCM).seal(b"x", b"here")
    add_key("events", tmp_path)
    sealer = Sealer("events", tmp_path)
    after = sealer.sealed_again(before, b"here")

    assert (after[:1], after[1:5]) == (before[:1], sealer.newest_key_id)
    assert sealer.open(after, b"here") == b"x"


def test_sealing_twice_never_gives_the_same_bytes(tmp_path: Path) -> None:
    sealer = Sealer("events", tmp_path)

    assert len({sealer.seal(b"x") for _ in range(2000)}) == 2000


@pytest.mark.parametrize("suite", [AES_256_GCM, SM4_GCM])
def test_a_field_moved_to_another_field_document_key_or_cipher_is_refused(suite: str) -> None:
    cipher = FieldCipher("key-1", b"k" * 32)
    sealed = cipher.seal("phones", b"x", "profiles/1", suite)

    assert cipher.open("phones", sealed, "profiles/1") == b"x"
    for field, place, key_id in [
        ("emails", "profiles/1", "key-1"),
        ("phones", "profiles/2", "key-1"),
        ("phones", "profiles/1", "key-2"),
    ]:
        with pytest.raises(SealBroken):
            FieldCipher(key_id, b"k" * 32).open(field, sealed, place)
    other = sealed[:1] + bytes([3 - sealed[1]]) + sealed[2:]
    for bad in [*flipped(sealed), b"", sealed[:20], other, sealed[:1], sealed[2:]]:
        with pytest.raises(SealBroken):
            cipher.open("phones", bad, "profiles/1")


def test_what_release_0_1_sealed_stays_readable() -> None:
    key, nonce = b"k" * 32, b"\xc5\x01" + b"n" * 10  # even a nonce that looks like the header of today
    for first in (nonce, b"n" * 12):
        old = first + AESGCM(key).encrypt(first, "张三".encode(), b"golden\x00p1\x00key-1")
        assert FieldCipher("key-1", key).open("golden", old, "p1") == "张三".encode()


def test_sm4_gcm_gives_the_example_of_rfc_8998() -> None:
    cipher = Sm4Gcm.__new__(Sm4Gcm)
    cipher._algorithm = SM4(bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"))
    plain = b"".join(bytes([byte]) * 8 for byte in bytes.fromhex("AABBCCDDEEFFEEAA"))
    aad = bytes.fromhex("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2")
    sealed = cipher.encrypt(bytes.fromhex("00001234567800000000ABCD"), plain, aad)

    assert sealed.hex().upper().startswith("17F399F08C67D5EE19D0DC9969C4BB7D")
    assert sealed[-16:].hex().upper() == "83DE3541E4C2B58177E065A9BF7B62EC"
    with pytest.raises(InvalidTag):
        cipher.decrypt(bytes.fromhex("00001234567800000000ABCE"), sealed, aad)


@pytest.mark.parametrize("suite", [AES_256_GCM, SM4_GCM])
def test_a_sealer_opens_what_either_cipher_sealed(tmp_path: Path, suite: str) -> None:
    sealed = Sealer("events", tmp_path, suite).seal("欧阳小明".encode(), b"a")

    assert sealed[0] == {AES_256_GCM: 1, SM4_GCM: 2}[suite]
    assert Sealer("events", tmp_path).open(sealed, b"a") == "欧阳小明".encode()
    with pytest.raises(SealBroken):
        Sealer("events", tmp_path).open(bytes([3 - sealed[0]]) + sealed[1:], b"a")


def test_the_memory_of_unwrapped_keys_is_bounded_in_number_and_forgets_destroyed_keys(tmp_path: Path) -> None:
    keys = DataKeys(MasterKey(tmp_path), cache_size=10)
    wrapped = {key_id: value for key_id, (value, _) in keys.new([f"key-{i}" for i in range(50)]).items()}

    assert len(keys) == 10
    assert keys.ciphers({"key-3": wrapped["key-3"]})["key-3"].key_id == "key-3"
    keys.forget("key-3")
    assert len(keys) == 9


def test_an_unwrapped_key_leaves_memory_after_its_time(tmp_path: Path) -> None:
    now = [0.0]
    keys = DataKeys(MasterKey(tmp_path), cache_seconds=60, clock=lambda: now[0])
    keys.new(["key-1", "key-2"])
    now[0] = 61.0
    keys.ciphers({})

    assert len(keys) == 0


def test_tokens_are_equal_for_equal_values_of_one_kind_only(tmp_path: Path) -> None:
    index = BlindIndex(tmp_path)

    assert index.token("phone", "+8613800138000") == BlindIndex(tmp_path).token("phone", "+8613800138000")
    assert index.token("phone", "+8613800138000") != index.token("email", "+8613800138000")
    assert len(index.token("phone", "1")) == 22


def test_a_token_of_one_purpose_links_to_no_table_of_another(tmp_path: Path) -> None:
    purposes = ("matching", "content", "ids", "rejects", "erasures", "relations", "search", "marketing")
    tokens = [BlindIndex(tmp_path, purpose).token("email", "li@example.cn") for purpose in purposes]

    assert len(set(tokens)) == len(purposes)
    assert not (tmp_path / "index.key").exists()


def test_an_installation_of_release_0_1_goes_on_with_its_tokens(tmp_path: Path) -> None:
    token = BlindIndex(tmp_path).token("phone", "+8613800138000")

    assert BlindIndex(tmp_path, "matching").token("phone", "+8613800138000") == token
    assert [item.name for item in tmp_path.iterdir()] == ["index.key"]


def test_tokens_differ_between_installations_and_survive_added_keys(tmp_path: Path) -> None:
    token = BlindIndex(tmp_path / "a").token("phone", "1")
    add_key("index", tmp_path / "a")

    assert token == BlindIndex(tmp_path / "a").token("phone", "1")
    assert token != BlindIndex(tmp_path / "b").token("phone", "1")


def test_a_token_is_the_plain_hmac_of_its_value(tmp_path: Path) -> None:
    index = BlindIndex(tmp_path)
    root = read_keys("index", tmp_path)[0].secret

    for kind, text in (("phone", "+8613912345670"), ("name", "王伟"), ("long", "x" * 5000), ("phone", "")):
        key = hmac.digest(root, b"kehu/blind-index/" + kind.encode(), "sha256")
        digest = hmac.digest(key, text.encode(), "sha256")[:16]
        assert index.token(kind, text) == base64.urlsafe_b64encode(digest).decode().rstrip("=")
