"""Recertification: owners see what is to be confirmed in their department, and answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import grpc
from kehu.access.v1 import recertification_pb2 as pb

from services.access.domain import recertification as domain
from services.access.domain.errors import PersonNeeded, RecertificationNotFound
from services.access.domain.recertification import Grant, Recertification
from services.access.methods.requests import RequestMethods
from services.access.recertifying import OVERSEES, RESOURCE, answerers, grants_in, judged, settle
from services.chassis.access import Caller
from services.chassis.errors import FieldViolation, Invalid
from services.chassis.paging import decode_seen, decode_token, encode_seen, encode_token, filter_hash, page_size_of
from services.chassis.records import unchanged_since
from services.chassis.server import current_call

SEES_ALL = ("principals", "list")


class RecertificationMethods(RequestMethods):
    """The methods of AccessService by which owners confirm roles."""

    def ListRecertifications(
        self, request: pb.ListRecertificationsRequest, context: grpc.ServicerContext
    ) -> pb.ListRecertificationsResponse:
        """Return a page, the newest first."""
        department = "" if self._may_do(*SEES_ALL) else self._person_calling().department
        size, of_filter = page_size_of(request.page_size), filter_hash(RESOURCE, department)
        before = decode_seen(request.page_token, of_filter)
        found = self._context.recertifications.page(department, before, size)
        last = found[-1] if len(found) == size else None
        token = encode_seen((last.start_time, last.id) if last else None, of_filter)
        return pb.ListRecertificationsResponse(recertifications=map(_review_message, found), next_page_token=token)

    def GetRecertification(
        self, request: pb.GetRecertificationRequest, context: grpc.ServicerContext
    ) -> pb.Recertification:
        """Return one."""
        review = self._visible_review(request.recertification_id)
        message = _review_message(review)
        message.counts.update(Counter(grant.state for grant in grants_in(self._context, review)))
        return message

    def ListRecertificationGrants(
        self, request: pb.ListRecertificationGrantsRequest, context: grpc.ServicerContext
    ) -> pb.ListRecertificationGrantsResponse:
        """Return a page by id."""
        review = self._visible_review(request.recertification_id)
        found, token = self._grants(review, request.state, request.page_size, request.page_token)
        return pb.ListRecertificationGrantsResponse(grants=map(_grant_message, found), next_page_token=token)

    def PreviewRecertification(
        self, request: pb.PreviewRecertificationRequest, context: grpc.ServicerContext
    ) -> pb.PreviewRecertificationResponse:
        """Tell what would become of a page of those nobody answered."""
        review = self._visible_review(request.recertification_id)
        found, token = self._grants(review, domain.OPEN, request.page_size, request.page_token)
        reply, who = pb.PreviewRecertificationResponse(next_page_token=token), answerers(self._context)
        for grant in found:
            state, reason = judged(self._context, grant, who)
            state = domain.REVOKED if state == domain.REVOKING else state
            reply.outcomes.add(grant=_grant_message(grant), outcome=state, reason=reason)
        return reply

    def AnswerRecertification(
        self, request: pb.AnswerRecertificationRequest, context: grpc.ServicerContext
    ) -> pb.AnswerRecertificationResponse:
        """Check all answers, then write and carry out each."""
        c, caller, now = self._context, self._person_calling(), self._context.now()
        review = self._visible_review(request.recertification_id)
        owners, oversees = answerers(c).owners.get(review.department, ()), self._may_do(*OVERSEES)
        _refuse_twice([answer.grant_id for answer in request.answers])
        wanted = []
        for answer in request.answers:
            known = c.recertifications.grant(answer.grant_id)
            if known is None or known.recertification_id != review.id:
                raise RecertificationNotFound("It has no such role.", metadata={"recertification_id": review.id})
            by = (caller.subject, caller.department)
            given = (answer.decision, by, answer.comment, owners, oversees, now)
            wanted.append((known, domain.answered(review, known, *given)))  # type: ignore[arg-type]
        done = []
        for known, changed in wanted:
            with unchanged_since("", known.version, f"{RESOURCE}/{review.id}/grants/{known.id}"):
                stored = c.recertifications.save_grant(changed) if changed != known else known
                done.append(settle(c, stored, now))
            current_call().note(f"{done[-1].state} {known.role} of {known.subject}: {changed.comment}")
        return pb.AnswerRecertificationResponse(grants=map(_grant_message, done))

    def _grants(self, review: Recertification, state: str, page_size: int, page_token: str) -> tuple[list[Grant], str]:
        size, of_filter = page_size_of(page_size), filter_hash(RESOURCE, review.id, state)
        after = str(decode_token(page_token, of_filter).get("after", ""))
        found = self._context.recertifications.grants(review.id, state, after, size)
        return found, encode_token({"after": found[-1].id}, of_filter) if len(found) == size else ""

    def _visible_review(self, review_id: str) -> Recertification:
        """Return one of the department, or any for who may list principals; others are as if they were not there."""
        found = self._context.recertifications.get(review_id)
        caller = self._person_calling()
        if found is not None and (found.department == caller.department or self._may_do(*SEES_ALL)):
            return found
        raise RecertificationNotFound("There is no such review.", metadata={"recertification_id": review_id})

    def _may_do(self, resource: str, action: str) -> bool:
        return self._context.directory.snapshot().decide(current_call().caller, resource, action).allowed

    def _person_calling(self) -> Caller:
        caller = current_call().caller
        if caller.kind != "user":
            raise PersonNeeded("People confirm roles; sign in as a person.")
        return caller


def _refuse_twice(ids: Sequence[str]) -> None:
    twice = [n for n, id in enumerate(ids) if id in ids[:n]]
    if twice:
        violations = [FieldViolation(f"answers[{n}].grant_id", "is there already") for n in twice]
        raise Invalid("A role is answered twice.", violations=violations)


def _review_message(review: Recertification) -> pb.Recertification:
    return pb.Recertification(
        name=f"{RESOURCE}/{review.id}", department=review.department, state=review.state,
        start_time=review.start_time, due_time=review.due_time, escalated=review.escalated,
    )  # fmt: skip


def _grant_message(grant: Grant) -> pb.RecertificationGrant:
    return pb.RecertificationGrant(
        grant_id=grant.id, subject=grant.subject, department=grant.department, role=grant.role,
        of_policy=grant.of_policy, state=grant.state, answerer=grant.answerer, comment=grant.comment,
        answer_time=grant.answer_time,
    )  # fmt: skip
