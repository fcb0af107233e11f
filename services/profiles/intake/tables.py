"""Read worksheets and Parquet tables, cells as the text their owner saw."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from python_calamine import CalamineError, CalamineWorkbook

from services.profiles.errors import FileUnreadable, HeaderInvalid
from services.profiles.intake.rows import DigitsLost, Row, check_header, read_cells, to_text
from services.profiles.intake.sheets import survey

if TYPE_CHECKING:
    import pyarrow.parquet

BATCH_ROWS = 500
MOST_TEXT_BYTES = 64 * 1024 * 1024  # of one batch of a Parquet file, which may pack them into nearly nothing
Range: TypeAlias = "tuple[tuple[int, int], tuple[int, int]]"  # of cells: first and last, row and column, from 0
ERRORS = frozenset(("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!"))


def open_xlsx(file: BinaryIO, sheet: str) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Return the columns and rows of a worksheet, the first one when `sheet` is empty.

    Raises:
        FileUnreadable: the workbook is damaged, or has no such sheet.
        HeaderInvalid: the header row is missing or ambiguous.
    """
    surveyed = survey(file, sheet)
    file.seek(0)
    try:
        workbook = CalamineWorkbook.from_filelike(file)
        names = workbook.sheet_names
        if not names or (sheet and sheet not in names):
            raise FileUnreadable("the workbook has no such sheet", metadata={"cause": "sheet"})
        found = workbook.get_sheet_by_name(sheet or names[0])
        lines = enumerate(found.iter_rows())
    except (CalamineError, OSError, ValueError) as error:
        raise FileUnreadable("the workbook cannot be read; save it again as .xlsx",
                             metadata={"cause": "workbook"}) from error  # fmt: skip
    faulty = _Faulty(surveyed.faults, found.merged_cell_ranges or (), (found.start or (0, 0))[1])
    for at, header in lines:
        try:
            texts = [to_text(cell) for cell in header]
        except DigitsLost:
            raise HeaderInvalid("a header is a number of too many digits; write it as text",
                                metadata={"cause": "number"}) from None  # fmt: skip
        if any(text and not text.isspace() for text in texts):
            if faulty.of(at):
                raise HeaderInvalid("the header row has merged cells or formulas; write each header into its own cell",
                                    metadata={"cause": "merged"})  # fmt: skip
            columns = check_header(texts)
            return columns, _sheet_rows(lines, columns, faulty)
    raise HeaderInvalid("the sheet has no header row", metadata={"cause": "missing"})


class _Faulty:
    """Rows, from 0, whose cells cannot be taken as they are."""

    def __init__(self, faults: Mapping[int, tuple[str, int]], merged: Sequence[Range], offset: int) -> None:
        """`offset` is the first column that the reader gives."""
        self._faults = faults
        self._offset = offset
        self._firsts = sorted(first for (first, _), _ in merged)
        reaches = sorted((first, last, column) for (first, column), (last, _) in merged)
        self._reaches = list(accumulate(((last, column) for _, last, column in reaches), max))

    def of(self, at: int) -> tuple[str, int] | None:
        """Return the fault of a row and the position of its column, or None."""
        if at in self._faults:
            fault, column = self._faults[at]
            return fault, column - self._offset
        before = bisect_right(self._firsts, at)
        if before and self._reaches[before - 1][0] >= at:
            return "CELLS_MERGED", self._reaches[before - 1][1] - self._offset
        return None


def _sheet_rows(
    lines: Iterator[tuple[int, Sequence[object]]], columns: tuple[str, ...], faulty: _Faulty
) -> Iterator[Row]:
    number = 0
    for at, line in lines:
        row, fault = read_cells(number + 1, columns, line, is_exact=False), faulty.of(at)
        fault = fault if fault and fault[1] < len(columns) else None
        if row is None and fault and fault[0] != "CELLS_MERGED":
            row = Row(number + 1, dict.fromkeys(columns, ""))
        if row is None:
            continue
        number += 1
        yield Row(number, row.values, fault[0], columns[fault[1]]) if fault else _without_errors(row)


def _without_errors(row: Row) -> Row:
    """Set a row apart that holds an error as text, as other writers store it."""
    bad = "" if row.fault else next((column for column, text in row.values.items() if text in ERRORS), "")
    return Row(row.number, row.values, "CELL_ERROR", bad) if bad else row


def open_parquet(file: BinaryIO) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Return the columns and rows of a Parquet file, read a batch at a time.

    Raises:
        FileUnreadable: the file is damaged.
        HeaderInvalid: a column's name is empty or repeated.
    """
    import pyarrow.parquet  # 40 MB that only these files need

    try:
        texts = [item.name for item in pyarrow.parquet.read_schema(file) if _is_text(item.type)]
        table = pyarrow.parquet.ParquetFile(file, read_dictionary=texts)  # one long text for many rows is held once
        columns = check_header(table.schema_arrow.names)
    except (pyarrow.ArrowException, OSError) as error:
        raise FileUnreadable("the Parquet file is cut or damaged; send it again",
                             metadata={"cause": "parquet"}) from error  # fmt: skip
    return columns, _parquet_rows(table, columns)


def _parquet_rows(table: pyarrow.parquet.ParquetFile, columns: tuple[str, ...]) -> Iterator[Row]:
    import pyarrow

    number = 0
    try:
        for batch in table.iter_batches(batch_size=BATCH_ROWS):
            if sum(map(_text_bytes, batch.columns)) > MOST_TEXT_BYTES:
                raise FileUnreadable("the Parquet file unpacks to more than an import takes; send shorter values",
                                     metadata={"cause": "unpacked size"})  # fmt: skip
            lists = [column.to_pylist() for column in batch.columns]
            for cells in zip(*lists, strict=True):
                row = read_cells(number + 1, columns, cells, is_exact=True)
                if row is not None:
                    number += 1
                    yield row
    except (pyarrow.ArrowException, OSError) as error:
        raise FileUnreadable("the Parquet file is damaged within; send it again",
                             metadata={"cause": "parquet"}) from error  # fmt: skip
    except (OverflowError, ValueError) as error:
        text = "the Parquet file has a time beyond our calendar or finer than microseconds; write it as text"
        raise FileUnreadable(text, metadata={"cause": "time"}) from error


def _is_text(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_binary(kind))


def _text_bytes(column: pyarrow.Array) -> int:
    """Return how many bytes the texts of a column have, that of each row counted."""
    import pyarrow.compute

    if not pyarrow.types.is_dictionary(column.type) or not _is_text(column.type.value_type):
        return 0
    lengths = pyarrow.compute.binary_length(column.dictionary).take(column.indices)
    return int(pyarrow.compute.sum(lengths).as_py() or 0)
