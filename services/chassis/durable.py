"""Write small files that must survive a loss of power: keys, passwords, checkpoints."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes, *, mode: int = 0o600, exclusive: bool = False) -> None:
    """Write a file whole or not at all, name included; readers see the former one, or this one.

    Raises:
        FileExistsError: it is there, and `exclusive` was asked for: the first of several processes wins.
        OSError: it could not be written; what was there is as it was.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (os.link if exclusive else os.replace)(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_names(path.parent)


def _sync_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network folders have no such thing
            raise
    finally:
        os.close(descriptor)
