"""Trying files before they are imported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import grpc
from kehu.profiles.v1 import intake_pb2, resources_pb2

from services.profiles.admission import describe, settings_of
from services.profiles.api.common import Tools, header_of, shown
from services.profiles.believed import believe
from services.profiles.domain.values import Severity
from services.profiles.intake import FileOptions
from services.profiles.intake.mapping import mapping_messages
from services.profiles.intake.preview import Preview, Tried, among_others, gather, preview
from services.profiles.values import Profile


class PreviewsPart:
    """The RPC that tries a file."""

    tools: Tools

    def PreviewImport(
        self, requests: Iterator[intake_pb2.PreviewImportRequest], context: grpc.ServicerContext
    ) -> intake_pb2.PreviewImportResponse:
        """Read the first rows of a file; nothing is written."""
        header = header_of(requests).header
        source = self.tools.source(header.name)
        file, is_whole = gather(part.chunk for part in requests)
        if header.draft:
            source = replace(source, mapping=source.draft_mapping)
        options = FileOptions(header.file_name, header.format, header.encoding, header.delimiter, header.sheet)
        tried = preview(file, is_whole, options, settings_of(source), self.tools.dictionary, datetime.now(UTC))
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
