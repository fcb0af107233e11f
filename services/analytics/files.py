"""Uploaded files of interactions: kept under the lake until imported, read in batches that are the same each time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from services.analytics.domain.errors import FileTooLarge, UnreadableInteractionFile
from services.analytics.domain.importing import FileOptions, columns_of

LIMIT_BYTES: Final = 2 << 30
BATCH_ROWS: Final = 65_536
CSV_BLOCK_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was received whole."""

    path: Path
    sha256: str


class Uploads:
    """A folder of uploads that the serving and the working processes share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def receive(self, name: str, chunks: Iterator[bytes]) -> Upload:
        """Write a file durably; it is there whole or not at all.

        Raises:
            FileTooLarge: it passes LIMIT_BYTES.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / name
        draft = path.with_suffix(".draft")
        digest, size = hashlib.sha256(), 0
        try:
            with draft.open("wb") as file:
                for chunk in chunks:
                    size += len(chunk)
                    if size > LIMIT_BYTES:
                        raise FileTooLarge(
                            "the file is too large; split it", metadata={"limit_bytes": str(LIMIT_BYTES)}
                        )
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return Upload(path, digest.hexdigest())

    def path(self, name: str) -> Path:
        """Return where an upload lies."""
        return self._folder / name

    def drop(self, name: str) -> None:
        """Delete an upload."""
        self.path(name).unlink(missing_ok=True)


class InteractionFile:
    """A Parquet or CSV file of interactions, by its columns that are ours."""

    def __init__(self, path: Path, options: FileOptions) -> None:
        """Read the file's head.

        Raises:
            UnreadableInteractionFile: it is neither Parquet nor CSV with a header row, or lacks columns.
        """
        self._path = path
        with path.open("rb") as file:
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
        return int(pq.read_metadata(self._path).num_rows) if self._is_parquet else 0

    def _names(self) -> list[str]:
        if self._is_parquet:
            return list(pq.read_schema(self._path).names)
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
                with pq.ParquetFile(self._path) as file:
                    for batch in file.iter_batches(BATCH_ROWS, columns=theirs, use_threads=False):
                        yield self._renamed(pa.Table.from_batches([batch]))
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

        with self._path.open("rb") as file:
            header = file.readline(1 << 20).decode("utf-8-sig")
        names = [name.strip().strip('"') for name in header.strip().split(",")]
        return pa_csv.open_csv(
            self._path,
            read_options=pa_csv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            convert_options=pa_csv.ConvertOptions(column_types={name: pa.string() for name in names}),
        )
