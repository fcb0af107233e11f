"""Roles for a while: asked for, approved by the owner of the data, or opened in an emergency."""

from __future__ import annotations

import hashlib
import logging
import uuid
from datetime import UTC, datetime

import grpc
from kehu.access.v1 import requests_pb2 as pb

from services.access.domain import requests as domain
from services.access.domain.anomalies import Alert
from services.access.domain.errors import AccessRequestNotFound, AccessRequestState, NotDataOwner, PersonNeeded
from services.access.domain.principals import Principal
from services.access.domain.requests import AccessRequest
from services.access.methods.approving import watch_approval
from services.access.methods.sessions import SessionMethods
from services.chassis.access import Caller
from services.chassis.errors import Unauthenticated
from services.chassis.paging import decode_seen, encode_seen, filter_hash, page_size_of
from services.chassis.records import etag_of, unchanged_since
from services.chassis.server import current_call

RESOURCE = "accessRequests"
READ_AT_ONCE = 1000  # no page is larger
_log = logging.getLogger("kehu.access")


class RequestMethods(SessionMethods):
    """The methods of AccessService that lend roles."""

    def CreateAccessRequest(
        self, request: pb.CreateAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.AccessRequest:
        """Ask for a role."""
        given = request.access_request
        until = given.end_time.ToDatetime(UTC)
        return self._asked(given.role, given.purpose, given.reason, until, request.request_id)

    def RenewAccessRequest(
        self, request: pb.RenewAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.AccessRequest:
        """Ask for a granted one for longer."""
        known = self._own_request(request.access_request_id)
        domain.check_renewable(known, self._context.now())
        until = request.end_time.ToDatetime(UTC)
        return self._asked(known.role, known.purpose, request.reason, until, request.request_id, known.id)

    def GetAccessRequest(self, request: pb.GetAccessRequestRequest, context: grpc.ServicerContext) -> pb.AccessRequest:
        """Return one."""
        return self._told(self._visible(request.access_request_id))

    def ListAccessRequests(
        self, request: pb.ListAccessRequestsRequest, context: grpc.ServicerContext
    ) -> pb.ListAccessRequestsResponse:
        """Return a page, the newest first."""
        caller, now = self._calling(), self._context.now()
        subject, department = caller.subject, caller.department if self._may("approve") else ""
        if self._oversees():
            subject = department = ""
        size, of_filter = page_size_of(request.page_size), filter_hash(RESOURCE, request.state, subject, department)
        before = decode_seen(request.page_token, of_filter)
        found = self._context.requests.page(subject, department, before, READ_AT_ONCE)
        shown = [row for row in found if request.state in ("", row.state_at(now))][:size]
        last = shown[-1] if len(shown) == size else found[-1] if len(found) == READ_AT_ONCE else None
        token = encode_seen((last.create_time, last.id) if last else None, of_filter)
        messages = [self._told(row) for row in shown]
        return pb.ListAccessRequestsResponse(access_requests=messages, next_page_token=token)

    def ApproveAccessRequest(
        self, request: pb.ApproveAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.AccessRequest:
        """Approve as owner of the department's data."""
        known, by = self._visible(request.access_request_id), self._calling()
        if by.department != known.department:
            raise NotDataOwner("Only an owner of that department's data approves.", metadata=_of(known))
        return self._agreed(domain.approved(self._weighed(known), by.subject, self._context.now()), by.subject)

    def CountersignAccessRequest(
        self, request: pb.CountersignAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.AccessRequest:
        """Approve as the second person."""
        known, by = self._visible(request.access_request_id), self._calling()
        return self._agreed(domain.countersigned(self._weighed(known), by.subject, self._context.now()), by.subject)

    def RejectAccessRequest(
        self, request: pb.RejectAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.AccessRequest:
        """Refuse."""
        known, by = self._answered_for(request.access_request_id), self._calling()
        return self._settled(domain.rejected(known, by.subject, request.comment, self._context.now()))

    def RevokeAccessRequest(
        self, request: pb.RevokeAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.AccessRequest:
        """Take away."""
        known, by = self._answered_for(request.access_request_id), self._calling()
        return self._settled(domain.revoked(known, by.subject, request.comment, self._context.now()))

    def ReviewAccessRequest(
        self, request: pb.ReviewAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.AccessRequest:
        """Close a break-glass with its finding."""
        known, by = self._visible(request.access_request_id), self._calling()
        now = self._context.now()
        return self._settled(domain.reviewed(known, by.subject, request.finding, request.comment, now))

    def CancelAccessRequest(
        self, request: pb.CancelAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.AccessRequest:
        """Withdraw."""
        return self._settled(domain.cancelled(self._own_request(request.access_request_id), self._context.now()))

    def ReturnAccessRequest(
        self, request: pb.ReturnAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.AccessRequest:
        """Give back."""
        return self._settled(domain.returned(self._own_request(request.access_request_id), self._context.now()))

    def BreakGlass(self, request: pb.BreakGlassRequest, context: grpc.ServicerContext) -> pb.AccessRequest:
        """Open an emergency role; the alert is written first, so that none opens unseen."""
        c, person, now = self._context, self._applicant(), self._context.now()
        id = _id_of("BreakGlass", person.subject, request.request_id)
        known = c.requests.get(id)
        if known is not None:
            return self._told(known)
        asked = AccessRequest(
            id, person.subject, person.department, request.role, request.purpose, request.reason,
            now + request.duration.ToTimedelta(), now, domain.GRANTED, emergency=True,
        )  # fmt: skip
        checked = domain.checked(asked, c.directory.policy.content, person.roles)
        domain.require_none_open(c.requests.emergencies(person.subject), now)
        detail = f"{request.role} until {checked.end_time.isoformat(timespec='seconds')}"
        c.alerts.add(Alert(id, "break-glass", 0, person.subject, person.department, now, 1, detail, ()))
        fields = {"access_request": id, "role": request.role, "department": person.department}
        _log.warning("the glass was broken", extra=fields)
        current_call().note(f"break-glass {id}: {request.reason}")
        stored = c.requests.insert(checked)
        try:  # another one may have been opened meanwhile: of two the earlier stays
            domain.require_none_open(domain.earlier_than(id, c.requests.emergencies(person.subject)), now)
        except AccessRequestState:
            c.requests.save(domain.returned(stored, now))
            raise
        c.directory.refresh(at_once=True)
        return self._told(stored)

    def _asked(
        self, role: str, purpose: str, reason: str, until: datetime, request_id: str, renews: str = ""
    ) -> pb.AccessRequest:
        c, person = self._context, self._applicant()
        id = _id_of("Renew" if renews else "Create", person.subject, request_id)
        known = c.requests.get(id)
        if known is not None:
            return self._told(known)
        asked = AccessRequest(
            id, person.subject, person.department, role, purpose, reason, until, c.now(), renews=renews
        )
        checked = domain.checked(asked, c.directory.policy.content, person.roles)
        current_call().note(f"asks for {role}, accessRequests/{id}: {reason}")
        return self._told(c.requests.insert(checked))

    def _applicant(self) -> Principal:
        """Return the person who calls, in the department they call from."""
        person = self._own_principal()
        if person.department != current_call().caller.department:
            raise Unauthenticated("Your department changed: sign in again.")
        return person

    def _calling(self) -> Caller:
        caller = current_call().caller
        if caller.kind != "user":
            raise PersonNeeded("An app neither has nor grants roles for a while; sign in as a person.")
        return caller

    def _may(self, action: str) -> bool:
        return self._context.directory.snapshot().decide(current_call().caller, RESOURCE, action).allowed

    def _oversees(self) -> bool:
        """Tell whether the caller answers for requests of every department."""
        return self._may("countersign") or self._may("review")

    def _visible(self, request_id: str) -> AccessRequest:
        """Return one of the caller's own, or one they answer for; others are as if they were not there."""
        found, caller = self._context.requests.get(request_id), self._calling()
        if found is not None and (found.subject == caller.subject or self._answers_for(found)):
            return found
        raise AccessRequestNotFound("There is no such request.", metadata={"access_request_id": request_id})

    def _own_request(self, request_id: str) -> AccessRequest:
        found = self._visible(request_id)
        if found.subject != self._calling().subject:
            raise AccessRequestNotFound("It is not yours.", metadata={"access_request_id": request_id})
        return found

    def _answered_for(self, request_id: str) -> AccessRequest:
        found = self._visible(request_id)
        if not self._answers_for(found):
            raise NotDataOwner("Only who answers for that department may.", metadata=_of(found))
        return found

    def _answers_for(self, found: AccessRequest) -> bool:
        caller = current_call().caller
        return (caller.department == found.department and self._may("approve")) or self._oversees()

    def _weighed(self, known: AccessRequest) -> AccessRequest:
        """Return a request as the policy in force weighs it, read anew: it may have changed since it was asked for."""
        self._context.directory.refresh(at_once=True)
        return domain.weighed(known, self._context.directory.policy.content)

    def _agreed(self, changed: AccessRequest, by: str) -> pb.AccessRequest:
        watch_approval(self._context, by, (changed.subject, changed.approver), f"{RESOURCE}/{changed.id}")
        return self._settled(changed)

    def _settled(self, changed: AccessRequest) -> pb.AccessRequest:
        c, call = self._context, current_call()
        call.note(f"{changed.state} {changed.role} for {changed.subject}: {changed.comment or changed.reason}")
        with unchanged_since("", changed.version, f"{RESOURCE}/{changed.id}"):
            stored = c.requests.save(changed)
        c.directory.refresh(at_once=True)
        return self._told(stored)

    def _told(self, found: AccessRequest) -> pb.AccessRequest:
        message = pb.AccessRequest(
            name=f"{RESOURCE}/{found.id}", subject=found.subject, department=found.department, role=found.role,
            purpose=found.purpose, reason=found.reason, state=found.state_at(self._context.now()),
            emergency=found.emergency, sensitive=found.sensitive, renews=found.renews and f"{RESOURCE}/{found.renews}",
            approver=found.approver, countersigner=found.countersigner, closer=found.closer, comment=found.comment,
            finding=found.finding, etag=etag_of(found.version),
        )  # fmt: skip
        message.end_time.FromDatetime(found.end_time)
        message.create_time.FromDatetime(found.create_time)
        if found.review_due_time is not None:
            message.review_due_time.FromDatetime(found.review_due_time)
        return message


def _id_of(method: str, subject: str, request_id: str) -> str:
    """Return the id: the same for the same request id of the same person and method."""
    asked = repr((method, subject, request_id))
    return hashlib.sha256(asked.encode()).hexdigest()[:32] if request_id else uuid.uuid4().hex


def _of(found: AccessRequest) -> dict[str, str]:
    return {"department": found.department}
