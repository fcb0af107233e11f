"""Read the sample's source files into raw rows, for training and measuring without the platform."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

from openpyxl import load_workbook

from services.profiles.domain.sources import ColumnMapping, SourceSettings, read_row
from services.profiles.domain.standardize import standardize
from services.profiles.domain.values import StandardRecord


@dataclass(frozen=True, slots=True)
class SampleSource:
    """A source of the sample: its settings and how its file is read."""

    settings: SourceSettings
    file: str
    format: str
    encoding: str


def load_sources() -> tuple[SampleSource, ...]:
    """Return the sources of sources.json."""
    items = json.loads(resources.files("infra.sample").joinpath("sources.json").read_text("utf-8"))
    return tuple(
        SampleSource(
            SourceSettings(
                item["source_id"],
                tuple(ColumnMapping(column["column"], column["field"]) for column in item["mapping"]),
                item["date_order"],
                item["trust_rank"],
                item["owner_department"],
                item["utc_offset_minutes"],
                is_unique=item["is_unique"],
            ),
            item["file"],
            item["format"],
            item["encoding"],
        )
        for item in items
    )


def read_rows(source: SampleSource, directory: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a source's file as texts by column."""
    path = directory / source.file
    if source.format == "csv":
        with path.open(encoding=source.encoding, newline="") as file:
            yield from csv.DictReader(file)
    elif source.format == "jsonl":
        for line in path.read_text(source.encoding).splitlines():
            yield json.loads(line)
    else:
        rows = load_workbook(path, read_only=True).worksheets[0].iter_rows(values_only=True)
        columns = [str(cell) for cell in next(rows)]
        for row in rows:
            yield {column: str(cell) for column, cell in zip(columns, row, strict=True) if cell is not None}


def read_records(directory: Path, received_time: datetime) -> list[StandardRecord]:
    """Return all rows of all sources in standard forms, rejected ones too."""
    return [
        standardize(read_row(source.settings, row, received_time), source.settings)
        for source in load_sources()
        for row in read_rows(source, directory)
    ]
