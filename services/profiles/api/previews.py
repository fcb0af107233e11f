"""Trying files and places before anything is imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import grpc
from kehu.profiles.v1 import intake_pb2, resources_pb2

from services.chassis.server import current_call
from services.profiles.admission import describe, settings_of
from services.profiles.api.common import Tools, header_of, shown
from services.profiles.believed import believe
from services.profiles.domain.values import Severity
from services.profiles.intake import FileOptions, RowSource
from services.profiles.intake.first_look import first_file, first_of_table, within
from services.profiles.intake.mapping import mapping_messages
from services.profiles.intake.places import Wanted, target_of
from services.profiles.intake.preview import Preview, Tried, among_others, gather, open_first, preview
from services.profiles.values import Profile, Source

PATIENCE = 0.8  # of the time the caller waits: the rest is for standardizing and answering


class PreviewsPart:
    """RPCs that try."""

    tools: Tools

    def PreviewImport(
        self, requests: Iterator[intake_pb2.PreviewImportRequest], context: grpc.ServicerContext
    ) -> intake_pb2.PreviewImportResponse:
        """Read the first rows of a file; nothing is written."""
        header = header_of(requests).header
        source = self._source(header.name, header.draft)
        file, is_whole = gather(part.chunk for part in requests)
        options = FileOptions(header.file_name, header.format, header.encoding, header.delimiter, header.sheet)
        return self._tried(source, open_first(file, is_whole, options))

    def PreviewPull(
        self, request: intake_pb2.PreviewPullRequest, context: grpc.ServicerContext
    ) -> intake_pb2.PreviewPullResponse:
        """Read the first rows of what a pull would take; nothing is written."""
        source = self._source(request.name, request.draft)
        target = target_of(self.tools.targets, request.target)
        credentials = dict(request.credentials)

        def look() -> tuple[RowSource, str]:
            if request.table:
                return first_of_table(request.target, target, credentials, request.table, request.cursor_column)
            wanted = Wanted(request.folder, request.pattern, request.descend)
            return first_file(request.target, target, credentials, wanted)

        opened, name = within(current_call().seconds_left() * PATIENCE, look)
        return intake_pb2.PreviewPullResponse(file=name, preview=self._tried(source, opened))

    def _source(self, name: str, draft: bool) -> Source:
        source = self.tools.source(name)
        return replace(source, mapping=source.draft_mapping) if draft else source

    def _tried(self, source: Source, opened: RowSource) -> intake_pb2.PreviewImportResponse:
        tried = preview(opened, settings_of(source), self.tools.dictionary, datetime.now(UTC))
        tried = replace(tried, rows=among_others(tried.rows, self.tools.store, self.tools.vault, self.tools.dictionary))
        mapping = [[item.column, item.field] for item in tried.settings.mapping]
        return self._response(tried, mapping_messages(source.mapping or mapping))

    def _response(self, tried: Preview, mapping: list[resources_pb2.ColumnMapping]) -> intake_pb2.PreviewImportResponse:
        return intake_pb2.PreviewImportResponse(
            format=tried.format,
            encoding=tried.encoding,
            columns=tried.columns,
            mapping=mapping,
            unmapped_columns=[column for column in tried.columns if column not in tried.settings.columns],
            rows=[self._row(row) for row in tried.rows],
            rows_read=len(tried.rows),
            rows_rejected=sum(not row.is_accepted for row in tried.rows),
            rates_by_reason=tried.rates,
            suggestions=[
                intake_pb2.MappingSuggestion(column=item.column, field=item.field, score=item.score, by=item.by)
                for item in tried.suggestions
            ],
        )

    def _row(self, row: Tried) -> intake_pb2.PreviewRow:
        message = intake_pb2.PreviewRow(row_number=row.number, accepted=row.is_accepted)
        for item in row.problems:
            message.problems.add(
                field=item.field,
                reason=item.reason,
                description=describe(item.reason),
                rejects=item.severity is Severity.REJECT,
            )
        if row.record is not None:
            message.source_record_id = row.record.source_record_id
            time = row.record.updated_time
            alone = Profile("", time, time, owner_department=row.record.owner_department)
            message.profile.CopyFrom(shown(self.tools, alone, believe([row.record], self.tools.dictionary.rules())))
            for name in ("name", "etag", "create_time", "update_time"):
                message.profile.ClearField(name)
        return message
