"""A candidate decided alongside in every process: begin, end, what differed; and what the processes ask."""

from __future__ import annotations

import hashlib

import grpc
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import review_pb2

from services.access.domain.errors import PolicyState
from services.access.domain.policies import Policy
from services.access.methods.policies import PolicyMethods
from services.access.publication import sorted_set
from services.chassis.access.shadow import ShadowCounts, ShadowKey, difference_message
from services.chassis.paging import decode_token, encode_token, filter_hash, page_size_of


class ShadowMethods(PolicyMethods):
    """The shadow methods of AccessService."""

    def StartShadow(
        self, request: review_pb2.StartShadowRequest, context: grpc.ServicerContext
    ) -> review_pb2.ShadowReport:
        """Have a candidate decided alongside, in place of one before it."""
        policy = self._find_policy(request.policy_id)
        if policy.state not in ("draft", "submitted"):
            metadata = {"policy_id": policy.id, "state": policy.state}
            raise PolicyState("Only a draft or a submitted revision can be a candidate.", metadata=metadata)
        self._refuse_faults(policy.content)
        self._context.shadows.set(policy.id)
        return self._report(policy.id)

    def StopShadow(
        self, request: review_pb2.StopShadowRequest, context: grpc.ServicerContext
    ) -> review_pb2.ShadowReport:
        """End it; what was counted stays."""
        policy = self._find_policy(request.policy_id)
        if self._context.shadows.current() == policy.id:
            self._context.shadows.set("")
        return self._report(policy.id)

    def GetShadowReport(
        self, request: review_pb2.GetShadowReportRequest, context: grpc.ServicerContext
    ) -> review_pb2.ShadowReport:
        """Return the sums and a page of differences."""
        policy = self._find_policy(request.policy_id)
        size, of_filter = page_size_of(request.page_size), filter_hash("shadow", policy.id)
        after = str(decode_token(request.page_token, of_filter).get("after") or "")
        reply = self._report(policy.id)
        found = self._context.shadows.page(policy.id, after, size + 1)
        for _, key, count in found[:size]:
            reply.differences.append(difference_message(key, count))
        if len(found) > size:
            reply.next_page_token = encode_token({"after": found[size - 1][0]}, of_filter)
        return reply

    def SyncShadow(self, request: pb.SyncShadowRequest, context: grpc.ServicerContext) -> pb.SyncShadowResponse:
        """Take counts over and return the candidate, its rules when they are news."""
        shadows = self._context.shadows
        if request.policy_id and request.compared:
            shadows.add(request.policy_id, _counts_of(request))
        current = shadows.current()
        policy = self._context.policies.get(current) if current else None
        if policy is None or policy.state == "published":
            return pb.SyncShadowResponse()
        links = sorted({*policy.content.links, *self._context.directory.links()})
        mark = f"{policy.id}-{hashlib.sha256(repr(links).encode()).hexdigest()[:16]}"
        reply = pb.SyncShadowResponse(policy_id=policy.id, mark=mark)
        if mark != request.mark:
            reply.rule_set.CopyFrom(sorted_set(policy.content, policy.number, links, mark))
        return reply

    def _report(self, policy_id: str) -> review_pb2.ShadowReport:
        totals, current = self._context.shadows.totals(policy_id), self._context.shadows.current()
        state: Policy = self._find_policy(policy_id)
        return review_pb2.ShadowReport(
            running=current == policy_id and state.state != "published",
            compared=totals.compared,
            differing=totals.differing,
            failed=totals.failed,
        )


def _counts_of(request: pb.SyncShadowRequest) -> ShadowCounts:
    counts = ShadowCounts(request.compared, request.differing, request.failed)
    for d in request.differences:
        key = ShadowKey(d.subject, d.department, d.purpose, d.resource, d.action, d.before, d.after)
        counts.differences[key] += d.count
    return counts
