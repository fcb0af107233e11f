"""Sources, imports and batches of records."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC

import grpc
from google.longrunning import operations_pb2
from kehu.profiles.v1 import intake_pb2, profiles_pb2, resources_pb2

from services.chassis.errors import AlreadyExists, FieldViolation
from services.chassis.jobs import Owner
from services.chassis.records import fields_to_change, unchanged_since, updated
from services.chassis.server import current_call, validate
from services.profiles.admission import Entry, Summary, settings_of
from services.profiles.api.common import Tools, changed, header_of, page_of
from services.profiles.errors import MappingInvalid, SourceExists
from services.profiles.intake.importing import queue_import
from services.profiles.intake.mapping import check_mapping, stored_mapping
from services.profiles.intake.pulls import PULL, seal_credentials
from services.profiles.intake.rejecting import Admitted
from services.profiles.intake.uploads import store_upload
from services.profiles.messages import result_message, source_message, summary_message
from services.profiles.relations.messages import stored_relation_columns
from services.profiles.relations.relating import Relations
from services.profiles.taking import Tally
from services.profiles.values import Source

CHANGEABLE = (
    "display_name", "owner_department", "trust_rank", "mapping", "date_order", "utc_offset_minutes", "default_region",
    "is_unique", "draft_mapping", "sign_of_life_days", "relations",
)  # fmt: skip


class SourcesPart:
    """RPCs of sources and of what they send."""

    tools: Tools

    def CreateSource(
        self, request: profiles_pb2.CreateSourceRequest, context: grpc.ServicerContext
    ) -> resources_pb2.Source:
        """Register a source."""
        source = changed(Source(request.source_id, ""), CHANGEABLE, lambda name: _read(request.source, name))
        self._check_mapping(source)
        try:
            made = source_message(self.tools.store.sources.insert(source))
            self.tools.dictionary.forget()
            return made
        except AlreadyExists as error:
            found = self.tools.store.sources.get(source.id)
            if request.request_id and found and changed(found, CHANGEABLE, lambda n: getattr(source, n)) == found:
                return source_message(found)
            name = f"sources/{source.id}"
            raise SourceExists("a source with this id exists already", metadata={"name": name}) from error

    def GetSource(self, request: profiles_pb2.GetSourceRequest, context: grpc.ServicerContext) -> resources_pb2.Source:
        """Return a source."""
        return source_message(self.tools.source(request.name))

    def ListSources(
        self, request: profiles_pb2.ListSourcesRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ListSourcesResponse:
        """List sources."""
        found, token = page_of(self.tools.store.sources, {}, request.page_size, request.page_token, "sources")
        return profiles_pb2.ListSourcesResponse(sources=map(source_message, found), next_page_token=token)

    def UpdateSource(
        self, request: profiles_pb2.UpdateSourceRequest, context: grpc.ServicerContext
    ) -> resources_pb2.Source:
        """Change a source."""
        source = self.tools.source(request.source.name)
        names = fields_to_change(request.update_mask, request.source, CHANGEABLE)
        message = updated(source_message(source), request.source, names)
        validate(message)
        with unchanged_since(request.source.etag, source.version, request.source.name):
            source = changed(source, names, lambda name: _read(message, name))
            self._check_mapping(source)
            stored = self.tools.store.sources.replace(source)
            self.tools.sources_at_hand.pop(stored.id, None)
        self.tools.dictionary.forget()
        return source_message(stored)

    def ImportRecords(
        self, requests: Iterator[profiles_pb2.ImportRecordsRequest], context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Store the file sealed and queue its import."""
        header = header_of(requests).header
        source = self.tools.source(header.name)
        upload_id = uuid.uuid4().hex
        upload = store_upload(self.tools.store, self.tools.vault.uploads, upload_id, (part.chunk for part in requests))
        args = {
            "source_id": source.id, "upload_id": upload_id, "chunks": upload.chunks, "size": upload.size,
            "format": header.format, "encoding": header.encoding, "delimiter": header.delimiter,
            "sheet": header.sheet, "file_name": header.file_name,
            "snapshot": header.snapshot, "delete_limit": header.delete_limit,
        }  # fmt: skip
        caller = current_call().caller
        owner = Owner(caller.subject, caller.department)
        return queue_import(self.tools.jobs, self.tools.store, args, owner, header.request_id)

    def PullRecords(
        self, request: intake_pb2.PullRecordsRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue a pull, its credentials sealed."""
        source = self.tools.source(request.name)
        caller = current_call().caller
        args = {
            "source_id": source.id, "target": request.target, "folder": request.folder, "pattern": request.pattern,
            "descends": request.descend,
            "minutes": request.interval_minutes, "table": request.table, "cursor_column": request.cursor_column,
            "sealed": seal_credentials(self.tools.vault, source.id, dict(request.credentials)),
        }  # fmt: skip
        progress = intake_pb2.PullProgress(source=request.name, target=request.target)
        owner = Owner(caller.subject, caller.department)
        return self.tools.jobs.start(PULL, args, progress, owner, request.request_id)

    def BatchUpsertRecords(
        self, request: profiles_pb2.BatchUpsertRecordsRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.BatchUpsertRecordsResponse:
        """Take in up to 500 records."""
        settings = settings_of(self.tools.source_at_hand(request.parent))
        self._check_fields({name for record in request.records for name in record.fields})
        entries = [
            Entry(
                number, dict(record.fields), False, record.source_record_id,
                record.update_time.ToDatetime(tzinfo=UTC) if record.HasField("update_time") else None,
            )
            for number, record in enumerate(request.records, start=1)
        ]  # fmt: skip
        operation = f"{current_call().caller.subject}/{request.request_id}" if request.request_id else ""
        admitted, tally = self.tools.admission().admit(settings, entries, operation)
        return _response(admitted, _summed(admitted, tally))

    def _check_mapping(self, source: Source) -> None:
        check_mapping(source.mapping, self.tools.may_feed)
        check_mapping(source.draft_mapping, self.tools.may_feed, "draft_mapping")
        self._check_relations(source)

    def _check_relations(self, source: Source) -> None:
        """Refuse a column of relationships that names a field, type or source that is not there."""
        relations = Relations(self.tools.store, self.tools.vault)
        for at, (name, kind, other, code, _) in enumerate(source.relations):
            found = relations.type_of(kind)
            faults = {
                "field": not self.tools.may_feed(name),
                "type": found is None or found.to_organization,
                "source": bool(other) and other != source.id and self.tools.store.sources.get(other) is None,
                "code_field": bool(code) and not self.tools.may_feed(code),
            }
            for place in (place for place, is_wrong in faults.items() if is_wrong):
                violation = FieldViolation(f"source.relations[{at}].{place}", "there is none that fits")
                raise MappingInvalid(
                    "a column of relationships cannot be used", metadata={"column": "", "field": name},
                    violations=[violation],
                )  # fmt: skip

    def _check_fields(self, names: set[str]) -> None:
        unknown = sorted(name for name in names if not self.tools.may_feed(name))
        if unknown:
            violations = [
                FieldViolation(f"records.fields.{name}", "the dictionary has no such field") for name in unknown
            ]
            raise MappingInvalid(
                "a field is not in the dictionary; define it first",
                metadata={"column": "", "field": unknown[0]},
                violations=violations[:50],
            )


def _read(message: resources_pb2.Source, name: str) -> object:
    """Return a field of the message as the store keeps it, defaults filled in."""
    if name in ("mapping", "draft_mapping"):
        return stored_mapping(getattr(message, name))
    if name == "relations":
        return stored_relation_columns(message.relations)
    if name == "utc_offset_minutes":
        return message.utc_offset_minutes if message.HasField("utc_offset_minutes") else 480
    defaults: dict[str, object] = {"trust_rank": 100, "date_order": "ymd", "default_region": "CN"}
    value = getattr(message, name)
    return value or defaults.get(name, value)


def _summed(admitted: list[Admitted], tally: Tally) -> Summary:
    summary = Summary()
    summary.add(admitted, tally)
    return summary


def _response(admitted: list[Admitted], summary: Summary) -> profiles_pb2.BatchUpsertRecordsResponse:
    results = [result_message(item) for item in admitted]
    return profiles_pb2.BatchUpsertRecordsResponse(results=results, summary=summary_message(summary))
