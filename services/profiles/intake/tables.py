"""Read worksheets and Parquet tables, cells as the text their owner saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow
import pyarrow.parquet
from python_calamine import CalamineError, CalamineWorkbook

from services.profiles.errors import FileUnreadable
from services.profiles.intake.rows import Row, check_header, read_cells, to_text

BATCH_ROWS = 500
ERRORS = frozenset(("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!"))


def open_xlsx(file: BinaryIO, sheet: str) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Return the columns and rows of a worksheet, the first one when `sheet` is empty.

    Raises:
        FileUnreadable: the workbook is damaged, or has no such sheet.
        HeaderInvalid: the header row is missing or ambiguous.
    """
    try:
        workbook = CalamineWorkbook.from_filelike(file)
        names = workbook.sheet_names
        if not names or (sheet and sheet not in names):
            raise FileUnreadable("the workbook has no such sheet", metadata={"cause": "sheet"})
        cells = workbook.get_sheet_by_name(sheet or names[0]).iter_rows()
    except (CalamineError, OSError, ValueError) as error:
        raise FileUnreadable("the workbook cannot be read; save it again as .xlsx",
                             metadata={"cause": "workbook"}) from error  # fmt: skip
    header = next(cells, [])
    columns = check_header([to_text(cell) for cell in header])
    return columns, _sheet_rows(iter(cells), columns)


def _sheet_rows(cells: Iterator[Sequence[object]], columns: tuple[str, ...]) -> Iterator[Row]:
    number = 0
    for line in cells:
        row = read_cells(number + 1, columns, line, is_exact=False)
        if row is None:
            continue
        number += 1
        bad = next((column for column, text in row.values.items() if text in ERRORS), "")
        yield Row(number, row.values, "CELL_ERROR", bad) if bad else row


def open_parquet(file: BinaryIO) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Return the columns and rows of a Parquet file, read a batch at a time.

    Raises:
        FileUnreadable: the file is damaged.
        HeaderInvalid: a column's name is empty or repeated.
    """
    try:
        table = pyarrow.parquet.ParquetFile(file)
        columns = check_header(table.schema_arrow.names)
    except (pyarrow.ArrowException, OSError) as error:
        raise FileUnreadable("the Parquet file is cut or damaged; send it again",
                             metadata={"cause": "parquet"}) from error  # fmt: skip
    return columns, _parquet_rows(table, columns)


def _parquet_rows(table: pyarrow.parquet.ParquetFile, columns: tuple[str, ...]) -> Iterator[Row]:
    number = 0
    try:
        for batch in table.iter_batches(batch_size=BATCH_ROWS):
            lists = [column.to_pylist() for column in batch.columns]
            for cells in zip(*lists, strict=True):
                row = read_cells(number + 1, columns, cells, is_exact=True)
                if row is not None:
                    number += 1
                    yield row
    except (pyarrow.ArrowException, OSError) as error:
        raise FileUnreadable("the Parquet file is damaged within; send it again",
                             metadata={"cause": "parquet"}) from error  # fmt: skip
