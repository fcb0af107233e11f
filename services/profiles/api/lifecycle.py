"""Lifecycle stages: the rules, what they would do, their use."""

from __future__ import annotations

import grpc
from google.longrunning import operations_pb2
from kehu.profiles.v1 import lifecycle_pb2 as pb

from services.chassis.jobs import Owner
from services.chassis.records import fields_to_change, updated
from services.chassis.server import current_call, validate
from services.profiles.ageing.staging import STAGE, lifecycles
from services.profiles.api.common import Tools
from services.profiles.errors import RuleInvalid

CHANGEABLE = ("stages", "default_stage", "default_display_name")


class LifecyclePart:
    """RPCs of lifecycle stages."""

    tools: Tools

    def GetLifecycle(self, request: pb.GetLifecycleRequest, context: grpc.ServicerContext) -> pb.Lifecycle:
        """Return the rules."""
        rules = lifecycles(self.tools.store)
        return rules.message(rules.get(request.name))

    def UpdateLifecycle(self, request: pb.UpdateLifecycleRequest, context: grpc.ServicerContext) -> pb.Lifecycle:
        """Make a new revision; the one in use stays in use."""
        given, rules = request.lifecycle, lifecycles(self.tools.store)
        rule = rules.get(given.name)
        message = updated(rules.message(rule), given, fields_to_change(request.update_mask, given, CHANGEABLE))
        validate(message)
        for number, stage in enumerate(message.stages):
            if not all(map(_can_hold, stage.conditions)):
                raise RuleInvalid(
                    "a condition has a bound that can be met, that of a tier has tiers and no bound",
                    metadata={"field": f"stages[{number}].conditions"},
                )
        return rules.message(rules.change(rule, message, given.etag, given.name))

    def PreviewLifecycle(
        self, request: pb.PreviewLifecycleRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue a preview of the latest revision."""
        return self._queue(request.request_id, preview=True)

    def ActivateLifecycle(self, request: pb.ActivateLifecycleRequest, context: grpc.ServicerContext) -> pb.Lifecycle:
        """Use the latest revision, if it was previewed, and evaluate it; or none."""
        rules = lifecycles(self.tools.store)
        before = rules.get(request.name).active_revision
        rule = rules.activate(request.name, request.revision, current_call().caller.subject)
        if rule.active_revision not in (0, before):
            self._queue(f"activation/{rule.version}", preview=False)
        return rules.message(rule)

    def EvaluateLifecycle(
        self, request: pb.EvaluateLifecycleRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue an evaluation of the rules in use."""
        return self._queue(request.request_id, preview=False)

    def _queue(self, request_id: str, *, preview: bool) -> operations_pb2.Operation:
        lifecycles(self.tools.store)
        caller = current_call().caller
        owner = Owner(caller.subject, caller.department)
        return self.tools.jobs.start(STAGE, {}, pb.LifecycleEffect(preview=preview), owner, request_id)


def _can_hold(condition: pb.StageCondition) -> bool:
    least, most = condition.HasField("at_least"), condition.HasField("at_most")
    if condition.measure == pb.StageCondition.MEASURE_TIER:
        return bool(condition.tiers) and not (least or most)
    in_order = not (least and most) or condition.at_least <= condition.at_most
    return (least or most) and in_order and not condition.tiers
