"""Long content sealed in parts of one size, and read back as a file of which one part at most is in the clear."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator

from services.chassis.crypto.sealing import Sealer


def sealed_parts(sealer: Sealer, name: str, chunks: Iterable[bytes], part_bytes: int) -> Iterator[bytes]:
    """Yield content sealed in parts of `part_bytes`, the last shorter; there is one part of nothing.

    Each part is bound to `name` and its number.
    """
    waiting, number = bytearray(), 0
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= part_bytes:
            yield sealer.seal(bytes(waiting[:part_bytes]), _place(name, number))
            del waiting[:part_bytes]
            number += 1
    if waiting or not number:
        yield sealer.seal(bytes(waiting), _place(name, number))


class PartedFile(io.RawIOBase):
    """Content that `sealed_parts` made, as a seekable file; at most one part of it is in memory in the clear."""

    def __init__(self, sealer: Sealer, name: str, size: int, part_bytes: int, sealed: Callable[[int], bytes]) -> None:
        """Read `size` bytes; `sealed` returns a part by its number."""
        super().__init__()
        self._sealer = sealer
        self._name = name
        self._size = size
        self._part_bytes = part_bytes
        self._sealed = sealed
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
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the current position."""
        if self._at >= self._size:
            return 0
        number, offset = divmod(self._at, self._part_bytes)
        if self._held[0] != number:
            self._held = (number, self._sealer.open(self._sealed(number), _place(self._name, number)))
        part = self._held[1][offset : offset + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _place(name: str, number: int) -> bytes:
    return f"{name}/{number}".encode()
