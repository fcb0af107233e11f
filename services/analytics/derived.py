"""Files made from a data version: named by what they are made from, so never wrong, and free to be thrown away."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

KEPT_SECONDS: Final = 24 * 3600


class Derived:
    """A folder of such files; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, name: str) -> Path | None:
        """Return the file if it is there, and keep it for another day."""
        path = self._folder / f"{name}.parquet"
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def file(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the file, made by `make` at a draft path when missing; the rename makes it whole or not there."""
        found = self.find(name)
        if found is not None:
            return found
        self._forget(time.time() - KEPT_SECONDS)
        path = self._folder / f"{name}.parquet"
        draft = self._folder / f"{name}.{uuid.uuid4().hex}.draft"
        try:
            make(draft)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return path

    def forget_all(self) -> None:
        """Delete every file; whoever asks for one has it made anew."""
        self._forget(float("inf"))

    def _forget(self, before: float) -> None:
        for path in self._folder.iterdir():
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
            except FileNotFoundError:  # another process was quicker
                continue
