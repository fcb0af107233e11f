"""Who may do this, and what may they do."""

from __future__ import annotations

import grpc
from kehu.access.v1 import review_pb2

from services.access.domain.differences import rule_words
from services.access.domain.policies import purposes_of
from services.access.domain.questions import Able, what_can, who_can
from services.access.domain.simulation import caller_of
from services.access.methods.policies import PolicyMethods
from services.chassis.errors import FieldViolation, Invalid
from services.chassis.paging import decode_token, encode_token, filter_hash, number_of, page_size_of

PEOPLE_ASKED = 5_000  # per page: when few may, pages are short, not slow


class QuestionMethods(PolicyMethods):
    """The question methods of AccessService."""

    def WhoCan(self, request: review_pb2.WhoCanRequest, context: grpc.ServicerContext) -> review_pb2.WhoCanResponse:
        """Return a page of people and apps, by subject."""
        c = self._context
        if request.action not in c.inventory.actions.get(request.resource, ()):
            violation = FieldViolation("action", "name a resource and an action that some RPC has")
            raise Invalid("No RPC has this resource and action.", violations=[violation])
        record = dict(request.record)
        key = (request.resource, request.action, request.purpose, sorted(record.items()))
        size, of_filter = page_size_of(request.page_size), filter_hash("whoCan", *key)
        after = str(decode_token(request.page_token, of_filter).get("after") or "")
        waiting = [person for person in c.directory.everybody() if person[0] > after]
        snapshot, purposes = c.directory.snapshot(), self._purposes(request.purpose)
        reply, last = review_pb2.WhoCanResponse(policy_version=snapshot.version), ""
        ways = c.inventory.narrowings(request.resource, request.action)
        asked = who_can(snapshot, waiting[:PEOPLE_ASKED], request.resource, request.action, purposes, record, ways)
        for (subject, _), able in zip(waiting, asked, strict=False):
            last = subject
            if able is not None:
                reply.people.append(_able_message(able))
                if len(reply.people) == size:
                    break
        if last and last != waiting[-1][0]:
            reply.next_page_token = encode_token({"after": last}, of_filter)
        return reply

    def WhatCan(self, request: review_pb2.WhatCanRequest, context: grpc.ServicerContext) -> review_pb2.WhatCanResponse:
        """Return a page of methods, and all field groups."""
        c, subject = self._context, request.subject
        department = request.department or dict(c.directory.everybody()).get(subject, "")
        if not department:
            violation = FieldViolation("subject", "name somebody who may sign in, or give the department too")
            raise Invalid("Nobody who may sign in has this name.", violations=[violation])
        size, of_filter = page_size_of(request.page_size), filter_hash("whatCan", subject, department)
        after = number_of(decode_token(request.page_token, of_filter), "after")
        purposes, snapshot = self._purposes(), c.directory.snapshot()
        found = list(what_can(snapshot, subject, department, purposes, c.inventory))
        reply = review_pb2.WhatCanResponse(
            policy_version=snapshot.version, names=sorted(snapshot.names(caller_of(subject, department, "")))
        )
        for resource, action, reasons, rule, rows in found[after : after + size]:
            words = rule_words(rule)
            reply.methods.add(
                resource=resource, action=action, purposes=reasons, rows=rows, rule=words.english, rule_zh=words.chinese
            )
        for purpose in purposes[1:]:
            seen = snapshot.obligations(caller_of(subject, department, purpose))
            for group in sorted(seen.shown | seen.masked | seen.searchable):
                reply.fields.add(
                    group=group,
                    purpose=purpose,
                    seen="shown" if group in seen.shown else "masked" if group in seen.masked else "hidden",
                    searchable=group in seen.searchable,
                )
        if len(found) > after + size:
            reply.next_page_token = encode_token({"after": after + size}, of_filter)
        return reply

    def _purposes(self, only: str = "") -> list[str]:
        """Return the purposes to ask about, none first; one that is named alone."""
        return [only] if only else ["", *sorted(purposes_of(self._context.directory.policy.content))]


def _able_message(able: Able) -> review_pb2.AblePerson:
    words = rule_words(able.rule)
    return review_pb2.AblePerson(
        subject=able.subject,
        department=able.department,
        purposes=able.purposes,
        rule=words.english,
        rule_zh=words.chinese,
        rows=able.rows,
        rows_judged=able.judged,
        shown_groups=sorted(able.sees.shown),
        masked_groups=sorted(able.sees.masked),
    )
