"""The lines of a stream of records: each is read by itself, so that a bad one is set apart and ends nothing."""

from __future__ import annotations

from datetime import UTC

from google.protobuf import json_format
from kehu.profiles.v1 import profiles_pb2

from services.chassis.errors import FieldViolation, Invalid
from services.chassis.server import validate
from services.profiles.admission import BATCH_ROWS, Entry
from services.profiles.intake import WHOLE_ROW

LINE_BYTES = 64 * 1024  # the gateway cuts what is longer to one byte more
KEPT_CHARACTERS = 4000  # of a line that cannot be read


def entries_of(lines: bytes, first: int) -> tuple[list[Entry], int]:
    """Return an entry for each line that is not blank, the lines being numbered from `first`, and the last number.

    Raises:
        Invalid: they are more than a batch may have.
    """
    parts = lines.removesuffix(b"\n").split(b"\n") if lines else []
    if len(parts) > BATCH_ROWS:
        raise Invalid("too many lines", violations=[FieldViolation("lines", f"send at most {BATCH_ROWS} at once")])
    found = [_entry(number, line) for number, line in enumerate(parts, start=first) if line.strip()]
    return found, first + len(parts) - 1


def _entry(number: int, line: bytes) -> Entry:
    if len(line) > LINE_BYTES:
        return _unread(number, line, "LINE_TOO_LONG")
    try:
        record = json_format.Parse(line.decode(), profiles_pb2.SourceRecordInput())
        validate(record)
    except UnicodeDecodeError:
        return _unread(number, line, "CHARACTERS_UNREADABLE")
    except Invalid as error:
        column = error.violations[0].field.partition("[")[0] if error.violations else ""
        return _unread(number, line, "RECORD_INVALID", column)
    except (json_format.ParseError, ValueError, RecursionError):
        return _unread(number, line, "ROW_UNREADABLE")
    time = record.update_time.ToDatetime(tzinfo=UTC) if record.HasField("update_time") else None
    return Entry(number, dict(record.fields), False, record.source_record_id, time)


def _unread(number: int, line: bytes, fault: str, column: str = "") -> Entry:
    text = line[: 4 * KEPT_CHARACTERS].decode(errors="replace")[:KEPT_CHARACTERS]
    return Entry(number, {WHOLE_ROW: text}, False, fault=fault, fault_column=column)
