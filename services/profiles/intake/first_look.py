"""Look at a place once, for a preview: its first rows, and nothing is written or remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from itertools import chain, islice
from typing import Any, TypeVar

from services.chassis.errors import Exhausted
from services.profiles.errors import PullFailed
from services.profiles.intake.formats import FileOptions, RowSource
from services.profiles.intake.places import SETTLE_SECONDS, Target, Wanted, guarded, list_files, reading
from services.profiles.intake.preview import PREVIEW_BYTES, gather, open_first
from services.profiles.intake.sql_pulls import read_table
from services.profiles.intake.uploads import CHUNK_BYTES, chunks_of

T = TypeVar("T")
_looks = threading.BoundedSemaphore(2)  # a place that does not answer holds one of them, and nothing else


def first_file(name: str, target: Target, credentials: Mapping[str, str], wanted: Wanted) -> tuple[RowSource, str]:
    """Return the rows of the file that a pull would import first, as far as a preview reads, and its name.

    Raises:
        PullFailed: the place cannot be read, or no file fits.
        FileTooLarge: a workbook or Parquet file that a preview does not hold.
    """
    with reading(name):
        system, files = list_files(target, credentials, wanted, SETTLE_SECONDS)
        if not files:
            raise PullFailed("no file fits", metadata={"target": name, "cause": "no file"})
        with system.open(files[0].path, "rb") as opened:
            file, is_whole = gather(islice(chunks_of(opened), PREVIEW_BYTES // CHUNK_BYTES + 1))
    return open_first(file, is_whole, FileOptions(files[0].name, "", "", "", "")), files[0].name


def first_of_table(
    name: str, target: Target, credentials: Mapping[str, str], table: str, column: str
) -> tuple[RowSource, str]:
    """Return the rows of a table that a pull would read first, and its name.

    Raises:
        PullFailed: the place cannot be read.
    """
    page = next(guarded(read_table(target.url, target.options, credentials, table, column), name), None)
    rows = page.rows if page else []
    columns = tuple(dict.fromkeys(chain.from_iterable(row.values for row in rows)))
    return RowSource("table", "", columns, iter(rows)), table


def within(seconds: float, look: Callable[[], T]) -> T:
    """Return what `look` finds; no more than two looks are under way, and none is waited for longer.

    Raises:
        Exhausted: two are under way.
        PullFailed: the place does not answer in time.
    """
    if not _looks.acquire(blocking=False):
        raise Exhausted("two places are being looked at; try again in a moment")
    found: list[Any] = []

    def run() -> None:
        try:
            found.append((look(), None))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            found.append((None, error))
        finally:
            _looks.release()

    thread = threading.Thread(target=run, name="first-look", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise PullFailed("the place does not answer", metadata={"cause": "timeout"})
    result, error = found.pop()
    if error is not None:
        try:
            raise error
        finally:
            del error  # or it would hold this frame, which holds it
    return result  # type: ignore[no-any-return]
