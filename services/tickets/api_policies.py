"""The RPCs of SLA policies."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import grpc
from google.protobuf.empty_pb2 import Empty
from kehu.tickets.v1 import tickets_pb2 as pb
from kehu.tickets.v1 import tickets_pb2_grpc

from services.chassis import paging, records
from services.chassis.errors import AlreadyExists
from services.chassis.server import current_call, validate
from services.tickets import updates, wire
from services.tickets.domain.sla import SlaPolicy, check_policy
from services.tickets.domain.ticket import TicketsNotFound
from services.tickets.store import TicketsStore


class PoliciesServicer(tickets_pb2_grpc.TicketsServiceServicer):
    """Serves the SLA policies of kehu.tickets.v1.TicketsService."""

    _store: TicketsStore
    _now: Callable[[], datetime]
    _new_id: Callable[..., str]

    def CreateSlaPolicy(self, request: pb.CreateSlaPolicyRequest, context: grpc.ServicerContext) -> pb.SlaPolicy:
        """Create a policy; a repeated request id returns the first answer."""
        policy_id = self._new_id(request.request_id, "slaPolicies", current_call().caller.subject)
        now = self._now()
        policy = wire.policy_of(request.sla_policy, policy_id, now, now, 1)
        check_policy(policy)
        try:
            self._store.insert_policy(policy)
        except AlreadyExists:
            policy = self._store.policy(policy_id) or policy
        return wire.policy_message(policy)

    def _policy(self, name: str) -> SlaPolicy:
        found = self._store.policy(wire.id_of(name))
        if found is None:
            raise TicketsNotFound("there is no such SLA policy", metadata={"resource": name})
        return found

    def GetSlaPolicy(self, request: pb.GetSlaPolicyRequest, context: grpc.ServicerContext) -> pb.SlaPolicy:
        """Return a policy."""
        return wire.policy_message(self._policy(request.name))

    def ListSlaPolicies(
        self, request: pb.ListSlaPoliciesRequest, context: grpc.ServicerContext
    ) -> pb.ListSlaPoliciesResponse:
        """Return a page of policies."""
        size = paging.page_size_of(request.page_size)
        shape = paging.filter_hash("slaPolicies")
        place = paging.decode_token(request.page_token, shape)
        last = (paging.number_of(place, "rank"), str(place.get("id"))) if place else None
        found = [each for each in self._store.policies() if last is None or (each.rank, each.id) > last]
        reply = pb.ListSlaPoliciesResponse(sla_policies=[wire.policy_message(each) for each in found[:size]])
        if len(found) > size:
            shown = found[size - 1]
            reply.next_page_token = paging.encode_token({"rank": shown.rank, "id": shown.id}, shape)
        return reply

    def UpdateSlaPolicy(self, request: pb.UpdateSlaPolicyRequest, context: grpc.ServicerContext) -> pb.SlaPolicy:
        """Change fields of a policy."""
        fields = records.fields_to_change(request.update_mask, request.sla_policy, updates.POLICY_FIELDS)
        current = self._policy(request.sla_policy.name)
        with records.unchanged_since(request.sla_policy.etag, current.version, request.sla_policy.name):
            message = records.updated(wire.policy_message(current), request.sla_policy, fields)
            validate(message)
            changed = wire.policy_of(message, current.id, current.create_time, self._now(), current.version + 1)
            check_policy(changed)
            self._store.replace_policy(changed)
            return wire.policy_message(changed)

    def DeleteSlaPolicy(self, request: pb.DeleteSlaPolicyRequest, context: grpc.ServicerContext) -> Empty:
        """Delete a policy."""
        current = self._policy(request.name)
        with records.unchanged_since(request.etag, current.version, request.name):
            self._store.delete_policy(current)
        return Empty()
