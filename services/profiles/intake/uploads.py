"""Files on their way in: sealed in parts in the store, read back as a file, never on disk in the clear."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO

from services.chassis.crypto import PartedFile, Sealer, sealed_parts
from services.profiles.errors import FileTooLarge
from services.profiles.store import Store

CHUNK_BYTES = 256 * 1024
MAX_FILE_BYTES = 2 * 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A stored upload."""

    upload_id: str
    chunks: int
    size: int


def chunks_of(opened: IO[bytes]) -> Iterator[bytes]:
    """Yield an opened file in parts."""
    while part := opened.read(CHUNK_BYTES):
        yield part


def store_upload(store: Store, sealer: Sealer, upload_id: str, parts: Iterable[bytes]) -> Upload:
    """Seal the parts of a file into the store.

    Raises:
        FileTooLarge: it is longer than MAX_FILE_BYTES. After this or any other error nothing of it stays.
    """
    size = number = 0

    def limited() -> Iterator[bytes]:
        nonlocal size
        for part in parts:
            size += len(part)
            if size > MAX_FILE_BYTES:
                raise FileTooLarge(
                    f"a file may have {MAX_FILE_BYTES} bytes; split it", metadata={"limit_bytes": str(MAX_FILE_BYTES)}
                )
            yield part

    try:
        for sealed in sealed_parts(sealer, upload_id, limited(), CHUNK_BYTES):
            store.add_chunk(upload_id, number, sealed)
            number += 1
    except Exception:
        store.drop_upload(upload_id, number + 1)
        raise
    return Upload(upload_id, number, size)


def open_upload(store: Store, sealer: Sealer, upload: Upload) -> BinaryIO:
    """Return a stored upload as a seekable file; reading a part that is gone is an OSError."""

    def sealed(number: int) -> bytes:
        found = store.chunk(upload.upload_id, number)
        if found is None:
            raise OSError("a part of the upload is gone; send the file again")
        return found

    return io.BufferedReader(PartedFile(sealer, upload.upload_id, upload.size, CHUNK_BYTES, sealed), 64 * 1024)
