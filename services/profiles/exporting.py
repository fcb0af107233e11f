"""Exports: profiles as a file for one recipient, by the rights of the moment it was asked for, gone after some hours.

The file is sealed in parts like an upload. It says on its face who exported it, and holds one row of nobody: an id that
is no profile's and is bound to the export, by which a file that turns up elsewhere is traced to its recipient.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from google.protobuf.message import Message
from kehu.profiles.v1 import export_pb2, resources_pb2

from services.chassis.access import Obligations
from services.chassis.config import MESSAGE_BYTES
from services.chassis.jobs import Handler, Job, Paused
from services.chassis.obligations import apply_obligations
from services.chassis.server import seen_in
from services.chassis.times import china_today
from services.profiles.domain.cells import dead, without_controls
from services.profiles.errors import ExportNotFound, ExportTooLarge
from services.profiles.exported import EXPIRED, READY, checked, end, file_of, forget_members, keep_members
from services.profiles.exported_values import StoredExport
from services.profiles.intake.uploads import CHUNK_BYTES, Upload, open_upload, store_upload
from services.profiles.messages import profile_message
from services.profiles.store import Store
from services.profiles.vault import Vault

EXPORT, EXPIRE = "export_profiles", "expire_export"
COLUMNS: Final = (
    "profile", "name", "gender", "birth_date", "phones", "emails", "resident_id", "address", "tier", "stage",
    "owner_department",
)  # fmt: skip
PER_READ, MOST_ROWS, MOST_BYTES = 500, 10_000, MESSAGE_BYTES - 64 * 1024
Row = Sequence[str]


def watermark(job: Job) -> str:
    """Return the line on the face of a file: who exported it, for what, when."""
    return (
        f"Confidential 机密: exported by {job.owner.subject} ({job.owner.department}) for {job.args['purpose']}, "
        f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}, exports/{job.args['export_id']}. Do not pass on 请勿外传"
    )


class _Groups:
    """The field groups of which the rows have a value."""

    def __init__(self) -> None:
        self.shown: set[str] = set()
        self.masked: set[str] = set()

    def add(self, message: Message, rights: Obligations) -> None:
        """Look at one row."""
        seen = seen_in(None, message, rights)
        self.shown.update(seen.shown)
        self.masked.update(seen.masked)


class Exporter:
    """Runs exports, and ends them."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of this service's jobs."""
        return {EXPORT: self.run, EXPIRE: self.expire}

    def run(self, job: Job) -> Message:
        """Write the file, begin anew after a crash, and keep what downloads need.

        Raises:
            ExportTooLarge: more rows or bytes than one file may have; nothing is kept.
        """
        export_id, mark = str(job.args["export_id"]), watermark(job)
        canary = hashlib.sha256(self._vault.token("export", export_id).encode()).hexdigest()[:32]
        found = _Groups()
        rows = [row for page in self._pages(job, found) for row in page]
        members = [row[0].removeprefix("profiles/") for row in rows]
        rows.insert(int(canary[:8], 16) % (len(rows) + 1), (f"profiles/{canary}", *[""] * (len(COLUMNS) - 1)))
        content = _workbook(rows, mark) if job.args["format"] == "xlsx" else _csv(rows, mark)
        if len(content) > MOST_BYTES:
            raise ExportTooLarge("export fewer rows: narrow by a department", metadata={"limit": str(MOST_BYTES)})
        kept = self._store.exports.get(export_id)
        expires = datetime.fromisoformat(str(job.args["expire_time"]))
        if kept is None:
            self._forget(export_id)
            if expires <= datetime.now(UTC):
                raise ExportNotFound("it expired before it was made; export again", metadata={"name": export_id})
            upload = store_upload(self._store, self._vault.uploads, file_of(export_id), [content])
            keep_members(self._store, export_id, members)
            self._store.exports.add_missing([StoredExport(
                export_id, job.owner.subject, job.owner.department, str(job.args["purpose"]), str(job.args["format"]),
                len(rows) - 1, upload.chunks, upload.size, canary, expires, sorted(found.shown), sorted(found.masked),
            )])  # fmt: skip
        return export_message(checked(self._store, export_id))

    def _forget(self, export_id: str) -> None:
        """Remove what a try that died has left."""
        self._store.drop_upload(file_of(export_id), MOST_BYTES // CHUNK_BYTES + 1)
        forget_members(self._store, export_id)

    def _pages(self, job: Job, groups: _Groups) -> Iterator[list[Row]]:
        rights = Obligations(frozenset(_words(job, "shown")), frozenset(_words(job, "masked")))
        departments = _words(job, "departments")
        after, count, today = "", 0, china_today()
        while found := self._store.page_profiles(after, PER_READ, departments):
            after, count = found[-1].profile_id, count + len(found)
            if count > MOST_ROWS:
                raise ExportTooLarge("export fewer rows: narrow by a department", metadata={"limit": str(MOST_ROWS)})
            ciphers = self._vault.ciphers(self._store, found)
            messages = [
                profile_message(item, self._vault.open_golden(item, ciphers), {})
                for item in found if item.key_id in ciphers.by_id
            ]  # fmt: skip
            for message in messages:
                groups.add(apply_obligations(message, rights, today), rights)
            yield [_row(message) for message in messages]

    def expire(self, job: Job) -> Message:
        """Remove the file when its time is over; who exported stays known."""
        left = (datetime.fromisoformat(str(job.args["expire_time"])) - datetime.now(UTC)).total_seconds()
        if left > 0:
            raise Paused("it has not expired yet", left)
        kept = self._store.exports.get(str(job.args["export_id"]))
        if kept is not None and kept.state == READY:
            end(self._store, kept, EXPIRED)
        else:
            self._forget(str(job.args["export_id"]))
        return export_message(kept) if kept else export_pb2.Export()

    def read(self, kept: StoredExport) -> bytes:
        """Return a file's bytes; OSError when it is gone."""
        with open_upload(self._store, self._vault.uploads, Upload(file_of(kept.id), kept.chunks, kept.size)) as file:
            return file.read()


def export_message(kept: StoredExport) -> export_pb2.Export:
    """Return the message of an export."""
    message = export_pb2.Export(
        name=f"exports/{kept.id}", recipient=kept.recipient, department=kept.department, purpose=kept.purpose,
        format=kept.format, row_count=kept.rows,
    )  # fmt: skip
    message.expire_time.FromDatetime(kept.expire_time)
    if kept.create_time:
        message.create_time.FromDatetime(kept.create_time)
    return message


def _words(job: Job, name: str) -> list[str]:
    found = job.args[name]
    return [str(item) for item in found] if isinstance(found, list | tuple) else []


def _row(message: Message) -> Row:
    assert isinstance(message, resources_pb2.Profile)
    return (
        message.name, message.display_name, message.gender, message.birth_date, "\n".join(message.phones),
        "\n".join(message.emails), message.resident_id, message.address.text, message.tier, message.stage,
        message.owner_department,
    )  # fmt: skip


def _csv(rows: Sequence[Row], mark: str) -> bytes:
    """Return UTF-8 with a byte order mark, by which spreadsheets know it; every cell quoted (RFC 4180)."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerows([[dead(mark)], COLUMNS, *([dead(cell) for cell in row] for row in rows)])
    return out.getvalue().encode("utf-8-sig")


def _workbook(rows: Sequence[Row], mark: str) -> bytes:
    """Return a workbook of text cells, the mark in its first row and in its properties."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    book = Workbook(write_only=True)
    book.properties.creator, book.properties.description = mark, mark
    sheet = book.create_sheet("profiles")
    for row in ([mark], COLUMNS, *rows):
        cells = [WriteOnlyCell(sheet, dead(without_controls(value))) for value in row]
        for cell in cells:
            cell.data_type = "s"
        sheet.append(cells)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()
