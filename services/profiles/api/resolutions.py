"""The full pass over all stored records."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
from google.longrunning import operations_pb2
from kehu.profiles.v1 import resolution_pb2 as pb

from services.chassis.jobs import Owner
from services.chassis.server import current_call
from services.profiles.api.common import Tools
from services.profiles.resolution.resolving import RESOLVE


class ResolutionsPart:
    """RPCs of the full pass."""

    tools: Tools

    def ResolveProfiles(
        self, request: pb.ResolveProfilesRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue a full pass, or a schedule of them."""
        caller = current_call().caller
        start = request.start_time.ToDatetime(tzinfo=UTC) if request.HasField("start_time") else datetime.now(UTC)
        args = {
            "merge_limit": request.merge_limit, "minutes": request.interval_minutes, "start": start.isoformat(),
        }  # fmt: skip
        progress = pb.ResolutionProgress(dry_run=not request.merge_limit)
        owner = Owner(caller.subject, caller.department)
        return self.tools.jobs.start(RESOLVE, args, progress, owner, request.request_id)
