"""Files on their way in: sealed in parts in the store, read back as a file, never on disk in the clear."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

from services.chassis.crypto import Sealer
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


def _place(upload_id: str, number: int) -> bytes:
    return f"{upload_id}/{number}".encode()


def store_upload(store: Store, sealer: Sealer, upload_id: str, parts: Iterable[bytes]) -> Upload:
    """Seal the parts of a file into the store.

    Raises:
        FileTooLarge: it is longer than MAX_FILE_BYTES; nothing of it stays.
    """
    waiting, number, size = bytearray(), 0, 0
    for part in parts:
        waiting += part
        size += len(part)
        if size > MAX_FILE_BYTES:
            store.drop_upload(upload_id, number)
            raise FileTooLarge(
                f"a file may have {MAX_FILE_BYTES} bytes; split it", metadata={"limit_bytes": str(MAX_FILE_BYTES)}
            )
        while len(waiting) >= CHUNK_BYTES:
            store.add_chunk(upload_id, number, sealer.seal(bytes(waiting[:CHUNK_BYTES]), _place(upload_id, number)))
            del waiting[:CHUNK_BYTES]
            number += 1
    if waiting or not number:
        store.add_chunk(upload_id, number, sealer.seal(bytes(waiting), _place(upload_id, number)))
        number += 1
    return Upload(upload_id, number, size)


class UploadFile(io.RawIOBase):
    """A stored upload as a seekable file; at most one part of it is in memory in the clear."""

    def __init__(self, store: Store, sealer: Sealer, upload: Upload) -> None:
        super().__init__()
        self._store = store
        self._sealer = sealer
        self._upload = upload
        self._at = 0
        self._held: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._upload.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the current position."""
        if self._at >= self._upload.size:
            return 0
        number, offset = divmod(self._at, CHUNK_BYTES)
        part = self._part(number)[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _part(self, number: int) -> bytes:
        if self._held[0] != number:
            sealed = self._store.chunk(self._upload.upload_id, number)
            if sealed is None:
                raise OSError("a part of the upload is gone; send the file again")
            self._held = (number, self._sealer.open(sealed, _place(self._upload.upload_id, number)))
        return self._held[1]
