"""Exports: asked for, fetched by who asked, traced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
from google.api import httpbody_pb2
from google.longrunning import operations_pb2
from kehu.profiles.v1 import export_pb2 as pb

from services.chassis.errors import Denied
from services.chassis.jobs import Owner
from services.chassis.records import new_id
from services.chassis.server import current_call
from services.profiles.api.common import Tools, departments_in_reach, id_of
from services.profiles.errors import ExportNotFound, ExportWithdrawn
from services.profiles.exported import WITHDRAWN, told_by
from services.profiles.exporting import EXPIRE, EXPORT, Exporter, export_message

TYPES = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
HOURS = 24


class ExportsPart:
    """RPCs of exports."""

    tools: Tools

    def ExportProfiles(
        self, request: pb.ExportProfilesRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue an export by the caller's rights and rows of this moment, and its end."""
        call, departments = current_call(), departments_in_reach()
        if request.owner_department and departments is not None:
            is_reached = not departments or request.owner_department in departments
            departments = (request.owner_department,) if is_reached else None
        if departments is None:
            raise Denied("name one of your departments")
        rights, owner = call.decision.obligations, Owner(call.caller.subject, call.caller.department)
        export_id = new_id(request.request_id, "export", owner.subject)
        expires = datetime.now(UTC) + timedelta(hours=request.expire_hours or HOURS)
        args: dict[str, object] = {
            "export_id": export_id, "format": request.format or "csv", "purpose": call.caller.purpose,
            "departments": list(departments), "shown": sorted(rights.shown), "masked": sorted(rights.masked),
            "expire_time": expires.isoformat(),
        }  # fmt: skip
        call.note(f"exports/{export_id} {args['format']}")
        self.tools.jobs.start(EXPIRE, args, pb.Export(), Owner("svc:profiles", ""), export_id)
        return self.tools.jobs.start(EXPORT, args, pb.Export(name=f"exports/{export_id}"), owner, request.request_id)

    def DownloadExport(self, request: pb.DownloadExportRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """Return the file to who exported it, until it expires."""
        kept, call = self.tools.store.exports.get(id_of(request.name)), current_call()
        if kept is None or kept.recipient != call.caller.subject or kept.expire_time <= datetime.now(UTC):
            raise _missing(request.name)
        if kept.state == WITHDRAWN:
            said = "a person in it was erased, or retention took something of theirs; export again"
            raise ExportWithdrawn(said, metadata={"name": request.name})
        try:
            content = Exporter(self.tools.store, self.tools.vault).read(kept)
        except OSError:
            raise _missing(request.name) from None
        call.note(f"exports/{kept.id} {kept.rows} rows")
        call.tell(told_by(self.tools.store, kept))
        return httpbody_pb2.HttpBody(content_type=TYPES[kept.format], data=content)

    def TraceExport(self, request: pb.TraceExportRequest, context: grpc.ServicerContext) -> pb.Export:
        """Return whose export holds this row of nobody."""
        found = self.tools.store.exports.among("canary", [id_of(request.profile)])
        if not found:
            raise _missing(request.profile)
        return export_message(found[0])


def _missing(name: str) -> ExportNotFound:
    return ExportNotFound("there is no such export, or it has expired", metadata={"name": name})
