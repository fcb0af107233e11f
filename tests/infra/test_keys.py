"""Claims about `kehu keys`: ids are shown and keys are not; what is in use is not destroyed."""

from __future__ import annotations

from pathlib import Path

import mongoengine
import pytest
from typer.testing import CliRunner

from infra.cli import app
from services.chassis.crypto import SealBroken, Sealer, read_keys


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["keys", *arguments, "--keys-dir", str(folder)])
    return ended.exit_code, ended.output


def test_a_key_is_added_seals_from_then_on_and_the_old_one_is_destroyed(tmp_path: Path) -> None:
    sealer = Sealer("events", tmp_path)
    before = sealer.seal(b"fact")
    [old] = read_keys("events", tmp_path)
    assert run(tmp_path, "add", "events")[0] == 0
    new = read_keys("events", tmp_path)[-1]
    shown = run(tmp_path, "list")[1]
    assert old.key_id.hex() in shown and new.key_id.hex() in shown
    assert Sealer("events", tmp_path).open(before) == b"fact"

    code, told = run(tmp_path, "remove", "events", old.key_id.hex())
    assert code == 0, told
    assert read_keys("events", tmp_path) == (new,)
    with pytest.raises(SealBroken):
        Sealer("events", tmp_path).open(before)
    assert not any(key.secret.hex() in text for key in (old, new) for text in (shown, told))


def test_the_key_that_seals_and_keys_of_what_is_kept_for_long_are_not_destroyed(tmp_path: Path) -> None:
    Sealer("events", tmp_path)
    [key] = read_keys("events", tmp_path)
    for arguments in (("remove", "events", key.key_id.hex()), ("remove", "events", "00000000"),
                      ("remove", "access", "00000000"), ("add", "index"),
                      ("remove", "events", "no hex")):  # fmt: skip
        code, told = run(tmp_path, *arguments)
        assert code == 1 and told.strip()
    assert read_keys("events", tmp_path) == (key,)
    assert CliRunner().invoke(app, ["keys", "list", "--keys-dir", str(tmp_path / "none")]).exit_code == 1


def test_the_old_key_of_tickets_is_not_destroyed_while_the_database_is_away(tmp_path: Path) -> None:
    Sealer("tickets", tmp_path)
    [old] = read_keys("tickets", tmp_path)
    run(tmp_path, "add", "tickets")
    code, told = run(tmp_path, "remove", "tickets", old.key_id.hex(), "--mongo-uri", "mongodb://127.0.0.1:9/")
    mongoengine.disconnect(alias="tickets")

    assert code == 1 and "Nothing was destroyed" in told
    assert read_keys("tickets", tmp_path)[0] == old
