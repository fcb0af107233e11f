"""Pull files and tables from places that the operator named: each file once, oldest first, on a schedule."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
from google.protobuf.message import Message
from kehu.profiles.v1 import intake_pb2

from services.chassis.errors import KehuError, Unavailable
from services.chassis.jobs import Handler, Job, Jobs, Paused
from services.profiles.admission import Admission, Summary, entry_of, settings_of
from services.profiles.errors import PullFailed, SourceNotFound
from services.profiles.intake.importing import queue_import
from services.profiles.intake.places import (
    SETTLE_SECONDS,
    Found,
    Target,
    Wanted,
    guarded,
    list_files,
    reading,
    target_of,
)
from services.profiles.intake.sql_pulls import Page, cursor_from_plain, cursor_to_plain, read_table
from services.profiles.intake.uploads import chunks_of, store_upload
from services.profiles.messages import summary_message
from services.profiles.store import Store
from services.profiles.vault import Vault

PULL = "pull"
WAIT_SECONDS = 2.0  # until the import of the file before is looked at again
FAILURES = 10  # of one look: then the place is down, and not a file broken


def seal_credentials(vault: Vault, source_id: str, credentials: Mapping[str, str]) -> str:
    """Return credentials as a job may keep them."""
    return base64.b64encode(vault.uploads.seal(orjson.dumps(credentials), _place(source_id))).decode()


def _place(source_id: str) -> bytes:
    return f"pulls/{source_id}".encode()


class Puller:
    """Runs pulls."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        jobs: Jobs,
        targets: Mapping[str, Target],
        admission: Admission,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        """Pull with these tools from these places; local files must be `settle` seconds old."""
        self._store = store
        self._vault = vault
        self._jobs = jobs
        self._targets = targets
        self._admission = admission
        self._settle = settle

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers of this job."""
        return {PULL: self.run}

    def run(self, job: Job) -> Message:
        """Look once, import what is new, and come back at the next time.

        Raises:
            PullTargetUnknown: there is no such place.
            PullFailed: it cannot be read, and no later look is asked for.
            Paused: until the import before has ended, or until the next look.
        """
        progress = intake_pb2.PullProgress()
        job.metadata.Unpack(progress)
        target = target_of(self._targets, progress.target)
        minutes = int(str(job.args["minutes"]))
        try:
            look = self._look_at_table if job.args.get("table") else self._look
            look(job, target, progress)
            progress.last_failure = ""
        except PullFailed as error:
            if not minutes:
                raise
            progress.last_failure = str(error.metadata["cause"])
        progress.look_time.FromDatetime(datetime.now(UTC))
        job.save(job.checkpoint, progress)
        if not minutes:
            return progress
        raise Paused("until the next look", minutes * 60.0)

    def _look(self, job: Job, target: Target, progress: intake_pb2.PullProgress) -> None:
        """Import what is new; a file that cannot be read is tried again at the next look and holds up no other."""
        self._await_import(progress)
        wanted = Wanted(str(job.args["folder"]), str(job.args["pattern"]), bool(job.args.get("descends")))
        with reading(progress.target):
            system, files = list_files(target, self._credentials(job), wanted, self._settle)
        seen = set(map(str, job.checkpoint.get("seen", ())))  # type: ignore[call-overload]
        seen &= {item.mark for item in files}
        failures: list[PullFailed] = []
        for item in files:
            if item.mark in seen:
                continue
            try:
                self._take(job, system, item, progress)
            except PullFailed as error:
                failures.append(error)
                if len(failures) == FAILURES:
                    break
                continue
            seen.add(item.mark)
            job.save({"seen": sorted(seen)}, progress)
            self._await_import(progress)
        job.save({"seen": sorted(seen)}, progress)
        if failures:
            raise failures[0]

    def _look_at_table(self, job: Job, target: Target, progress: intake_pb2.PullProgress) -> None:
        source = self._store.sources.get(str(job.args["source_id"]))
        if source is None:
            raise SourceNotFound("the source is gone", metadata={"name": progress.source})
        table, column = str(job.args["table"]), str(job.args["cursor_column"])
        saved, settings = job.checkpoint, settings_of(source)
        summary, look = Summary(**saved.get("sums", {})), int(str(saved.get("look", 0)))  # type: ignore[arg-type]
        before, operation = asdict(summary), job.name if column else f"{job.name}/{look}"
        start = Page([], [], cursor_from_plain(saved.get("after")), *_two(saved))
        pages = read_table(target.url, target.options, self._credentials(job), table, column, start)
        for page in guarded(pages, progress.target):
            for rows, name in ((page.known, f"{job.name}/again"), (page.rows, operation)):
                if rows:
                    summary.add(*self._admission.admit(settings, [entry_of(row) for row in rows], name))
            progress.summary.CopyFrom(summary_message(summary))
            if column:
                job.save(_state(page, asdict(summary)), progress)
            else:
                job.save({"look": look, "sums": before}, progress)  # cut, it is read anew and counted once
        if not column:
            job.save({"look": look + 1, "sums": asdict(summary)}, progress)

    def _credentials(self, job: Job) -> dict[str, str]:
        sealed = base64.b64decode(str(job.args["sealed"]))
        found: dict[str, str] = orjson.loads(self._vault.uploads.open(sealed, _place(str(job.args["source_id"]))))
        return found

    def _await_import(self, progress: intake_pb2.PullProgress) -> None:
        last = self._jobs.store.get(progress.last_operation) if progress.last_operation else None
        if last is not None and not last["done"]:
            raise Paused("the file before is still imported", WAIT_SECONDS)

    def _take(self, job: Job, system: Any, item: Found, progress: intake_pb2.PullProgress) -> None:
        progress.last_file, upload_id, source_id = item.name, uuid.uuid4().hex, str(job.args["source_id"])
        try:
            with reading(progress.target), system.open(item.path, "rb") as opened:
                upload = store_upload(self._store, self._vault.uploads, upload_id, chunks_of(opened))
        except (PullFailed, Unavailable):
            raise
        except KehuError as error:
            progress.files_refused += 1
            progress.last_failure = error.reason
            return
        args = {
            "source_id": source_id, "upload_id": upload_id, "chunks": upload.chunks, "size": upload.size,
            "file_name": item.name,
        }  # fmt: skip
        request_id = f"{job.name}/{item.mark}"
        progress.last_operation = queue_import(self._jobs, self._store, args, job.owner, request_id).name
        progress.files_imported += 1


def _state(page: Page, sums: Mapping[str, object]) -> dict[str, object]:
    return {"after": cursor_to_plain(page.cursor), "rows": page.position, "ties": page.ties, "sums": sums}


def _two(saved: Mapping[str, object]) -> tuple[int, int]:
    return int(str(saved.get("rows", 0))), int(str(saved.get("ties", 0)))
