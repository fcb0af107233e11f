"""A column as numbers: a code for each distinct value, and the values' characters packed one after another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.profiles.resolution.kernels import masks_of


@dataclass(frozen=True, slots=True)
class Texts:
    """Distinct texts: those of code c are chars[offsets[c]:offsets[c + 1]]; `masks` bound their likeness."""

    chars: np.ndarray
    offsets: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return self.masks.size


@dataclass(frozen=True, slots=True)
class Column:
    """A code for each record, -1 where the value is unknown, and the distinct texts, packed and as they were."""

    codes: np.ndarray
    texts: Texts
    values: pa.Array | None = None

    def frequencies(self) -> np.ndarray:
        """Return how often each distinct value occurs among the known ones."""
        counts = np.bincount(self.codes[self.codes >= 0], minlength=len(self.texts))
        return counts / max(counts.sum(), 1)


def column_of(values: pa.Array | pa.ChunkedArray) -> Column:
    """Return a column of strings as codes."""
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks or [pa.array([], pa.string())])
    coded = values.dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    return Column(codes, texts_of(coded.dictionary), coded.dictionary)


def side_by_side(columns: Sequence[Column]) -> list[Column]:
    """Return the columns with a record's codes next to each other: who compares two records finds them in one place."""
    rows = np.stack([column.codes for column in columns], axis=1)
    return [replace(column, codes=rows[:, at]) for at, column in enumerate(columns)]


def codes_there(here: Column, there: Column) -> np.ndarray:
    """Return for each distinct text of one column its code in another, -1 where that has none."""
    return pc.index_in(here.values, there.values).fill_null(-1).to_numpy(zero_copy_only=False)


def texts_of(values: pa.Array | Sequence[str]) -> Texts:
    """Pack texts; characters beyond ASCII get numbers of their own, as dense as the column has them."""
    if not isinstance(values, pa.Array):
        values = pa.array(values, pa.large_string())
    values = values.cast(pa.large_string())
    _, ends, data = values.buffers()
    offsets = np.frombuffer(ends, np.int64)[values.offset : values.offset + len(values) + 1].copy()
    chars = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
    chars, offsets = chars[offsets[0] : offsets[-1]], offsets - offsets[0]
    if chars.size and chars.max() > 127:
        chars, offsets = _characters(chars, offsets)
    return Texts(chars, offsets, masks_of(chars, offsets))


def _characters(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the characters' numbers and their offsets from UTF-8."""
    starts = np.concatenate([[0], np.cumsum((data & 0xC0) != 0x80)])  # bytes that begin a character, before each byte
    points = np.frombuffer(data.tobytes().decode("utf-8").encode("utf-32-le"), np.uint32)
    _, numbers = np.unique(points, return_inverse=True)
    return numbers.astype(np.uint16), starts[offsets]
