"""Measurements, reports and incidents of data quality, each in the caller's reach of departments."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
from google.api import httpbody_pb2
from google.longrunning import operations_pb2
from kehu.profiles.v1 import quality_pb2 as pb

from services.chassis import paging
from services.chassis.errors import Denied
from services.chassis.jobs import Owner
from services.chassis.records import unchanged_since
from services.chassis.server import current_call
from services.profiles.api.common import Tools, departments_in_reach, id_of
from services.profiles.domain.incidents import OPEN, Incident, acknowledged
from services.profiles.errors import QualityIncidentClosed, QualityIncidentNotFound, QualityReportNotFound
from services.profiles.quality.concluding import incident_changed
from services.profiles.quality.examining import Examiner
from services.profiles.quality.measuring import start_measuring
from services.profiles.quality.messages import STATES, incident_message, report_message
from services.profiles.quality.page import report_page
from services.profiles.quality.reporting import Report, Wanted, day_before, find_report, list_reports
from services.profiles.quality.rules import DIMENSIONS
from services.profiles.quality.sampling import Sampler

STATE_NAMES = {number: state for state, number in STATES.items()}
PER_READ = 200


class QualityPart:
    """RPCs of measurements, reports and incidents."""

    tools: Tools

    def MeasureQuality(
        self, request: pb.MeasureQualityRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue a measurement of a department in reach, or of all who may see all."""
        reach = departments_in_reach()
        department = request.department or (reach[0] if reach is not None and len(reach) == 1 else "")
        if not Wanted(reach).reaches(department):
            raise Denied("name one of your departments")
        return self._measure(department, request.request_id)

    def GetQualityReport(self, request: pb.GetQualityReportRequest, context: grpc.ServicerContext) -> pb.QualityReport:
        """Return the figures of a day."""
        return report_message(self._quality_report(request.name, _wanted(request)))

    def GetQualityReportPage(
        self, request: pb.GetQualityReportPageRequest, context: grpc.ServicerContext
    ) -> httpbody_pb2.HttpBody:
        """Return the same as a page."""
        wanted = Wanted(departments_in_reach(), request.department)
        page = report_page(self._quality_report(request.name, wanted))
        return httpbody_pb2.HttpBody(content_type="text/html; charset=utf-8", data=page.encode())

    def ListQualityReports(
        self, request: pb.ListQualityReportsRequest, context: grpc.ServicerContext
    ) -> pb.ListQualityReportsResponse:
        """List the totals of days."""
        wanted, size = _wanted(request), paging.page_size_of(request.page_size)
        of_filter = paging.filter_hash("qualityReports", wanted, request.from_day)
        after = str(paging.decode_token(request.page_token, of_filter).get("after", "") or "")
        found = list_reports(self.tools.store, after or day_before(request.from_day), size + 1, wanted)
        token = paging.encode_token({"after": found[size - 1].day}, of_filter) if len(found) > size else ""
        reports = [report_message(item, is_listed=True) for item in found[:size]]
        return pb.ListQualityReportsResponse(quality_reports=reports, next_page_token=token)

    def GetQualityIncident(
        self, request: pb.GetQualityIncidentRequest, context: grpc.ServicerContext
    ) -> pb.QualityIncident:
        """Return an incident with its samples as they are now."""
        incident = self._quality_incident(request.name)
        message = _shown(incident)
        tools = self.tools
        examiner = Examiner(tools.store, tools.vault, tools.dictionary, datetime.now(UTC))
        sampler = Sampler(tools.store, tools.vault, tools.admission(), examiner)
        message.samples.extend(sampler.samples(incident))
        return message

    def ListQualityIncidents(
        self, request: pb.ListQualityIncidentsRequest, context: grpc.ServicerContext
    ) -> pb.ListQualityIncidentsResponse:
        """List the incidents in reach."""
        wanted = Wanted(departments_in_reach(), request.department)
        state, size = STATE_NAMES.get(request.state, ""), paging.page_size_of(request.page_size)
        of_filter = paging.filter_hash("qualityIncidents", wanted, state)
        after = str(paging.decode_token(request.page_token, of_filter).get("after", "") or "")
        found = self._incidents_after(after, size + 1, wanted, state)
        token = paging.encode_token({"after": found[size - 1].id}, of_filter) if len(found) > size else ""
        return pb.ListQualityIncidentsResponse(quality_incidents=map(_shown, found[:size]), next_page_token=token)

    def AcknowledgeQualityIncident(
        self, request: pb.AcknowledgeQualityIncidentRequest, context: grpc.ServicerContext
    ) -> pb.QualityIncident:
        """Note who works on an incident."""
        incident = self._quality_incident(request.name)
        if incident.state not in OPEN:
            raise QualityIncidentClosed(
                "a measurement verified the incident; nothing is left to do", metadata={"name": request.name}
            )
        now = datetime.now(UTC)
        changed = acknowledged(incident, current_call().caller.subject, request.note, now)
        with unchanged_since("", incident.version, request.name):
            return _shown(self.tools.store.incidents.write(changed, [incident_changed(changed, now)]))

    def RemeasureQualityIncident(
        self, request: pb.RemeasureQualityIncidentRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue a measurement of the incident's department."""
        return self._measure(self._quality_incident(request.name).department, request.request_id)

    def _measure(self, department: str, request_id: str) -> operations_pb2.Operation:
        caller = current_call().caller
        owner = Owner(caller.subject, caller.department)
        return start_measuring(self.tools.jobs, department, owner, request_id)

    def _quality_report(self, name: str, wanted: Wanted) -> Report:
        found = find_report(self.tools.store, id_of(name), wanted)
        if found is None:
            raise QualityReportNotFound("there are no figures of this day", metadata={"name": name})
        return found

    def _quality_incident(self, name: str) -> Incident:
        found = self.tools.store.incidents.get(id_of(name))
        if found is None or not Wanted(departments_in_reach()).reaches(found.department):
            raise QualityIncidentNotFound("there is no such incident", metadata={"name": name})
        return found

    def _incidents_after(self, after: str, limit: int, wanted: Wanted, state: str) -> list[Incident]:
        equal = {"department": wanted.department} if wanted.department else {}
        found: list[Incident] = []
        while len(found) < limit and (page := self.tools.store.incidents.page(equal, after, PER_READ)):
            found += [item for item in page if wanted.reaches(item.department) and state in ("", item.state)]
            after = page[-1].id
        return found[:limit]


def _wanted(request: pb.GetQualityReportRequest | pb.ListQualityReportsRequest) -> Wanted:
    return Wanted(
        departments_in_reach(), request.department, DIMENSIONS.get(request.dimension, ""), request.field,
        id_of(request.source),
    )  # fmt: skip


def _shown(incident: Incident) -> pb.QualityIncident:
    return incident_message(incident, incident.is_overdue(datetime.now(UTC)))
