"""The import job: leased, resumable, in batches; a crash anywhere leads to the same state."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice

from google.protobuf.message import Message
from kehu.profiles.v1 import resources_pb2

from services.chassis.errors import KehuError
from services.chassis.jobs import Handler, Job
from services.profiles.admission import (
    BATCH_ROWS,
    Admission,
    Entry,
    Prepared,
    Summary,
    deletions,
    entry_of,
    settings_of,
)
from services.profiles.domain.sources import SourceSettings
from services.profiles.errors import HeaderInvalid, SnapshotOverLimit, SourceNotFound
from services.profiles.intake import FileOptions, RowSource, open_rows
from services.profiles.intake.importing import IMPORT
from services.profiles.intake.rules import TRY_RULE, Trials
from services.profiles.intake.snapshots import SeenIds, Snapshots
from services.profiles.intake.uploads import Upload, open_upload
from services.profiles.messages import summary_message
from services.profiles.store import Store
from services.profiles.taking import Taker
from services.profiles.vault import Vault

AFTER = "deleted_after"  # of a checkpoint: the records up to this key are through
MAX_UNMAPPED_SHOWN = 50


class Importer:
    """Runs imports."""

    def __init__(self, store: Store, vault: Vault, taker: Taker, batch_rows: int = BATCH_ROWS) -> None:
        """Import with these tools, `batch_rows` at a time."""
        self._batch_rows = batch_rows
        self._store = store
        self._vault = vault
        self._taker = taker
        self.admission = Admission(store, vault, taker)
        self._snapshots = Snapshots(store, vault, self.admission)

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of this service's jobs."""
        return {IMPORT: self.run, TRY_RULE: Trials(self._store, self._vault).run}

    def run(self, job: Job) -> Message:
        """Import a stored upload from its checkpoint on.

        Raises:
            KehuError: the file cannot be read; the operation fails with the reason.
        """
        self._taker.merger.settle_abandoned(datetime.now(UTC))
        upload = Upload(_text(job, "upload_id"), int(_text(job, "chunks")), int(_text(job, "size")))
        try:
            response = self._import(job, upload)
        except KehuError as error:
            if error.reason not in ("UNAVAILABLE", "PROFILES_BUSY"):
                self._store.drop_upload(upload.upload_id, upload.chunks)
            raise
        self._store.drop_upload(upload.upload_id, upload.chunks)
        return response

    def _import(self, job: Job, upload: Upload) -> Message:
        source = self._store.sources.get(_text(job, "source_id"))
        if source is None:
            raise SourceNotFound("the source is gone", metadata={"name": f"sources/{_text(job, 'source_id')}"})
        settings = settings_of(source)
        opened = self._open(job, upload)
        metadata = self._metadata(job, settings, opened)
        summary = _summary_of(job.checkpoint)
        entries = (entry_of(row) for row in opened.rows if row.number > summary.rows_read)
        for prepared in self._prepared(settings, entries, job.name):
            admitted, tally = self.admission.write(prepared)
            summary.add(admitted, tally)
            metadata.summary.CopyFrom(summary_message(summary))
            job.save(dataclasses.asdict(summary), metadata)
        if job.args.get("snapshot"):
            seen = SeenIds(self._open(job, upload).rows, settings, datetime.now(UTC))
            summary = self._follow_deletions(job, settings, seen, metadata)
        return resources_pb2.ImportRecordsResponse(source=f"sources/{source.id}", summary=summary_message(summary))

    def _open(self, job: Job, upload: Upload) -> RowSource:
        file = open_upload(self._store, self._vault.uploads, upload)
        names = ("file_name", "format", "encoding", "delimiter", "sheet")
        return open_rows(file, FileOptions(**{name: _text(job, name) for name in names}))

    def _follow_deletions(
        self, job: Job, settings: SourceSettings, seen: SeenIds, metadata: resources_pb2.ImportMetadata
    ) -> Summary:
        """Count the records that a snapshot lacks, then delete them if they are not more than the limit.

        Raises:
            SnapshotOverLimit: they are more; none is deleted.
        """
        summary, limit = _summary_of(job.checkpoint), int(_text(job, "delete_limit") or 0)
        after = str(job.checkpoint.get(AFTER, ""))
        if AFTER not in job.checkpoint:
            pages = self._snapshots.missing(settings.source_id, seen)
            summary.records_missing = sum(len(page.ids) for page in pages)
            self._save(job, summary, metadata, "")
        if limit and summary.records_missing > limit:
            raise SnapshotOverLimit(
                "more records are missing than may be deleted; none was",
                metadata={"missing": str(summary.records_missing), "limit": str(limit)},
            )
        own = f"{job.name}/missing"
        for page in self._snapshots.missing(settings.source_id, seen, after, own) if limit else ():
            time = metadata.create_time.ToDatetime(tzinfo=UTC)
            summary.records_deleted += deletions(self._snapshots.delete(settings, page, time, own))
            self._save(job, summary, metadata, page.last_key)
        return summary

    def _save(self, job: Job, summary: Summary, metadata: resources_pb2.ImportMetadata, after: str) -> None:
        metadata.summary.CopyFrom(summary_message(summary))
        job.save({**dataclasses.asdict(summary), AFTER: after}, metadata)

    def _metadata(self, job: Job, settings: SourceSettings, opened: RowSource) -> resources_pb2.ImportMetadata:
        mapped = settings.columns
        if opened.columns and not mapped.intersection(opened.columns):
            raise HeaderInvalid("no column of the file is in the source's mapping", metadata={"cause": "unmapped"})
        metadata = resources_pb2.ImportMetadata()
        job.metadata.Unpack(metadata)
        metadata.format, metadata.encoding = opened.format, opened.encoding
        unmapped = [column for column in opened.columns if column not in mapped]
        metadata.unmapped_columns[:] = unmapped[:MAX_UNMAPPED_SHOWN]
        return metadata

    def _prepared(self, settings: SourceSettings, entries: Iterator[Entry], operation: str) -> Iterator[Prepared]:
        """Yield batches read and standardized; the next is made while the database writes the last."""
        with ThreadPoolExecutor(1, thread_name_prefix="import-read") as ahead:

            def read() -> Prepared | None:
                batch = list(islice(entries, self._batch_rows))
                return self.admission.read(settings, batch, operation, datetime.now(UTC)) if batch else None

            coming = ahead.submit(read)
            while (prepared := coming.result()) is not None:
                coming = ahead.submit(read)
                yield prepared


def _text(job: Job, name: str) -> str:
    return str(job.args.get(name, ""))


def _summary_of(checkpoint: Mapping[str, object]) -> Summary:
    return Summary(**{name: value for name, value in checkpoint.items() if name != AFTER})  # type: ignore[arg-type]
