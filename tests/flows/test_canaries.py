"""Claims about the scan itself: it finds what is there, in every form, behind every seal, and in files of a moment."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from services.chassis.crypto import Sealer
from tests.flows.canaries import Canaries, Watch, keys_of

NAME = "欧阳靐龘"
CANARIES = Canaries({"name": NAME, "phone": "13987650417"})
CHILD = """
import sys, tempfile
with tempfile.TemporaryFile() as file:
    file.write(b"x" * 1000 + sys.argv[1].encode())
    file.flush()
    print(flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "content",
    [
        NAME.encode(), NAME.encode("utf-16-le"), json.dumps({"n": NAME}).encode(), quote(NAME).encode(),
        NAME.encode().hex().encode(), *(base64.b64encode(b"z" * shift + NAME.encode() + b"tail") for shift in range(6)),
        base64.urlsafe_b64encode(json.dumps({"n": NAME}, ensure_ascii=False).encode()),
    ],
)  # fmt: skip
def test_a_value_is_found_in_every_form(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"\xff\x00" * 5000 + content + b"\xfe" * 99)

    assert CANARIES.in_files(tmp_path) == {"deep/file": {"name"}}


def test_other_values_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("欧阳靐,13987650418,王靐龘".encode())

    assert CANARIES.in_files(tmp_path) == {}


def test_what_is_sealed_is_opened_with_its_key_wherever_it_lies_and_with_no_other(tmp_path: Path) -> None:
    sealed = Sealer("one", tmp_path / "keys").seal(f"... {NAME} ...".encode(), b"place")
    Sealer("two", tmp_path / "keys")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "page").write_bytes(os.urandom(3000) + sealed[:-9] + os.urandom(3000))
    (tmp_path / "files" / "fact").write_bytes(json.dumps({"s": base64.b64encode(sealed * 2).decode()}).encode())
    (tmp_path / "files" / "index.store").write_bytes(os.urandom(40_000) + sealed[5:] + os.urandom(99))
    found = CANARIES.behind_seals(tmp_path / "files", keys_of(tmp_path / "keys", "one"))

    assert found == {"page": {"name"}, "fact": {"name"}, "index.store": {"name"}}
    assert CANARIES.behind_seals(tmp_path / "files", keys_of(tmp_path / "keys", "two")) == {}
    assert CANARIES.in_files(tmp_path / "files") == {}


def test_the_watch_sees_a_file_that_was_deleted_before_it_was_written() -> None:
    command = [sys.executable, "-c", CHILD, NAME]
    with (
        Watch(CANARIES, [os.getpid()]) as watch,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        written = watch.looks
        while watch.looks < written + 2:
            time.sleep(0.01)
        child.stdin.close()

    assert [names for path, names in watch.seen.items() if path.endswith("(deleted)")] == [{"name"}]
