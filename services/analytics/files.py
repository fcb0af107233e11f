"""Uploaded files of interactions: kept under the lake until imported, read in batches that are the same each time."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from services.analytics.domain.errors import FileTooLarge, UnreadableInteractionFile
from services.analytics.domain.importing import FileOptions, columns_of
from services.chassis.crypto import HEADER_BYTES, NONCE_BYTES, TAG_BYTES, PartedFile, Sealer, sealed_parts

LIMIT_BYTES: Final = 2 << 30
UNCLAIMED_SECONDS: Final = 3600.0
BATCH_ROWS: Final = 65_536
MOST_TEXT_BYTES: Final = 64 << 20  # of one batch of a Parquet file, which may pack them into nearly nothing
CSV_BLOCK_BYTES: Final = 4 << 20
PART_BYTES: Final = 1 << 20
SEAL_BYTES: Final = HEADER_BYTES + NONCE_BYTES + TAG_BYTES  # that sealing adds to each part


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was received whole."""

    name: str
    sha256: str


class Uploads:
    """A folder of uploads that the serving and the working processes share; sealed in parts, never in the clear."""

    def __init__(self, folder: Path, sealer: Sealer) -> None:
        self._folder = folder
        self._sealer = sealer

    def receive(self, name: str, chunks: Iterator[bytes]) -> Upload:
        """Write a file durably; it is there whole or not at all.

        Raises:
            FileTooLarge: it passes LIMIT_BYTES.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / name
        draft = path.with_suffix(".draft")
        digest, size = hashlib.sha256(), 0

        def limited() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                size += len(chunk)
                if size > LIMIT_BYTES:
                    raise FileTooLarge("the file is too large; split it", metadata={"limit_bytes": str(LIMIT_BYTES)})
                digest.update(chunk)
                yield chunk

        try:
            with draft.open("wb") as file:
                file.writelines(sealed_parts(self._sealer, name, limited(), PART_BYTES))
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return Upload(name, digest.hexdigest())

    def open(self, name: str) -> BinaryIO:
        """Return an upload as a seekable file."""
        path = self._folder / name
        stored = path.stat().st_size
        size = stored - SEAL_BYTES * -(-stored // (PART_BYTES + SEAL_BYTES))

        def sealed(number: int) -> bytes:
            with path.open("rb") as file:
                file.seek(number * (PART_BYTES + SEAL_BYTES))
                return file.read(PART_BYTES + SEAL_BYTES)

        return io.BufferedReader(PartedFile(self._sealer, name, size, PART_BYTES, sealed), 64 * 1024)

    def drop(self, name: str) -> None:
        """Delete an upload."""
        (self._folder / name).unlink(missing_ok=True)

    def sweep(self, needed: Callable[[], Container[str]], now: float) -> int:
        """Delete what lies there for an hour and nobody needs, drafts of a killed process too; return how many.

        `now` is in seconds since 1970; `needed` is asked after the folder was read.
        """
        found = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        old = [path for path in found if now - path.stat().st_mtime > UNCLAIMED_SECONDS]
        wanted = needed() if old else ()
        left = [path for path in old if path.name not in wanted]
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


class InteractionFile:
    """A Parquet or CSV file of interactions, by its columns that are ours."""

    def __init__(self, opened: Callable[[], BinaryIO], options: FileOptions) -> None:
        """Read the file's head; `opened` opens it anew each time.

        Raises:
            UnreadableInteractionFile: it is neither Parquet nor CSV with a header row, or lacks columns.
        """
        self._opened = opened
        with opened() as file:
            self._is_parquet = file.read(4) == b"PAR1"
        self.misfits = 0  # CSV lines that do not fit the header, as far as read
        try:
            names = self._names()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UnreadableInteractionFile("the file is neither Parquet nor UTF-8 CSV with a header row") from error
        self.columns = columns_of(names, options)

    @property
    def total_rows(self) -> int:
        """Return the number of rows, 0 when only reading to the end would tell."""
        if not self._is_parquet:
            return 0
        with self._opened() as file:
            return int(pq.read_metadata(file).num_rows)

    def _names(self) -> list[str]:
        if self._is_parquet:
            with self._opened() as file:
                return list(pq.read_schema(file).names)
        with self._csv() as reader:
            return list(reader.schema.names)

    def batches(self) -> Iterator[pa.Table]:
        """Yield the rows in batches, with our column names; the same batches whenever it is read.

        Raises:
            UnreadableInteractionFile: the file is damaged further on.
        """
        theirs = list(self.columns.values())
        try:
            if self._is_parquet:
                with self._opened() as opened, pq.ParquetFile(opened, read_dictionary=theirs) as file:
                    for batch in file.iter_batches(BATCH_ROWS, columns=theirs, use_threads=False):
                        yield self._renamed(pa.Table.from_batches([_held(batch)]))
                return
            self.misfits = 0
            with self._csv() as reader:
                for batch in reader:
                    yield self._renamed(pa.Table.from_batches([batch]))
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise UnreadableInteractionFile("the file is damaged; export it again") from error

    def _renamed(self, table: pa.Table) -> pa.Table:
        return table.select(list(self.columns.values())).rename_columns(list(self.columns))

    def _csv(self) -> pa_csv.CSVStreamingReader:
        def skip(_: pa_csv.InvalidRow) -> str:
            self.misfits += 1
            return "skip"

        with self._opened() as file:
            header = file.readline(1 << 20).decode("utf-8-sig")
        names = [name.strip().strip('"') for name in header.strip().split(",")]
        return pa_csv.open_csv(
            pa.PythonFile(self._opened(), "r"),
            read_options=pa_csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pa_csv.ConvertOptions(column_types={name: pa.string() for name in names}),
        )


def _held(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose texts memory can hold; one text of many rows is there once.

    Raises:
        UnreadableInteractionFile: they are too long.
    """
    if sum(map(_text_bytes, batch.columns)) > MOST_TEXT_BYTES:
        raise UnreadableInteractionFile("the Parquet file unpacks to more than an import takes; send shorter values")
    return batch


def _text_bytes(column: pa.Array) -> int:
    """Return how many bytes the texts of a column have, that of each row counted."""
    if not pa.types.is_dictionary(column.type):
        return column.nbytes
    if not (pa.types.is_string(column.type.value_type) or pa.types.is_binary(column.type.value_type)):
        return 0
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return int(pc.sum(lengths).as_py() or 0)
