"""A file of keys or passwords is there whole or as it was, whenever the power goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.stack import read_private, write_private
from services.access.anchors import FolderAnchor
from services.access.domain.checkpoints import Checkpoint
from services.access.domain.trail import Base
from services.access.keys import audit_key
from services.chassis.crypto.keys import read_keys
from services.chassis.durable import write_whole


@dataclass
class Disk:
    """Notes what is made safe, in order: which file, and what was at the path at that moment."""

    path: Path
    synced: list[tuple[int, int]] = field(default_factory=list)
    fsync: Callable[[int], None] = os.fsync

    def sync(self, descriptor: int) -> None:
        self.synced.append((os.fstat(descriptor).st_ino, self._at_path()))
        self.fsync(descriptor)

    def _at_path(self) -> int:
        return self.path.stat().st_ino if self.path.exists() else 0


def writes(folder: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    checkpoint = Checkpoint(1, "2026-11-23T00:00:00Z", 1, "h", Base(), "")
    return {
        "passwords": (folder / "secrets.json", lambda: write_private(folder / "secrets.json", {"mongo": "x"})),
        "signing key": (folder / "audit.pem", lambda: audit_key(folder)),
        "data key": (folder / "index.key", lambda: read_keys("index", folder)),
        "anchor": (folder / "checkpoint-00000001.json", lambda: FolderAnchor(folder).keep(checkpoint)),
    }


@pytest.mark.parametrize("name", ["passwords", "signing key", "data key", "anchor"])
def test_what_is_written_is_safe_before_it_has_its_name_and_its_name_is_safe_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = writes(tmp_path)[name]
    disk = Disk(path)
    monkeypatch.setattr(os, "fsync", disk.sync)
    write()

    file, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert [(file, 0), (folder, file)] == disk.synced
    assert path.stat().st_mode & 0o077 == (0o044 if name == "anchor" else 0)
    assert [path] == list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_what_was_there_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secrets.json"
    write_private(path, {"mongo": "first"})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, {"mongo": "second"})

    assert read_private(path) == {"mongo": "first"}
    assert [path] == list(tmp_path.iterdir())


def test_of_two_that_make_the_same_file_the_first_wins(tmp_path: Path) -> None:
    path = tmp_path / "audit.pem"
    write_whole(path, b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        write_whole(path, b"second", exclusive=True)

    assert path.read_bytes() == b"first"
    assert [path] == list(tmp_path.iterdir())
