"""Copies of checkpoints outside the database: a folder, which may be a write-once (WORM) mount or another machine's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import orjson

from services.access.domain.checkpoints import Checkpoint
from services.chassis.durable import write_whole

COPIES = 1000  # of the newest, compared by a verification


class Anchor(Protocol):
    """Where copies of checkpoints are kept."""

    def keep(self, checkpoint: Checkpoint) -> None:
        """Write one durably; OSError when that failed or another one of its number is there."""

    def newest(self) -> Checkpoint | None:
        """Return the one with the highest number."""

    def copies(self) -> Sequence[Checkpoint]:
        """Return the newest thousand, in order."""


class FolderAnchor:
    """One file for each checkpoint, created once, never opened for writing again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, checkpoint: Checkpoint) -> None:
        """Write one."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"checkpoint-{checkpoint.number:08d}.json"
        if path.exists() and _read(path) == checkpoint:
            return  # another process of access shares the folder
        write_whole(path, orjson.dumps(checkpoint.document()), mode=0o444, exclusive=True)  # never over another one

    def newest(self) -> Checkpoint | None:
        """Return the last."""
        found = self._paths()[-1:]
        return _read(found[0]) if found else None

    def copies(self) -> list[Checkpoint]:
        """Return the newest."""
        return [_read(path) for path in self._paths()[-COPIES:]]

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("checkpoint-*.json"))


def _read(path: Path) -> Checkpoint:
    number = int(path.stem.rpartition("-")[2])
    try:
        return Checkpoint.found(orjson.loads(path.read_bytes()), number)
    except ValueError:
        return Checkpoint.found(None, number)
