"""google.longrunning.Operations for every service: look up, list and cancel its jobs."""

from __future__ import annotations

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2

from services.chassis.jobs import Jobs
from services.chassis.paging import page_size_of
from services.chassis.server.calls import current_call


class OperationsServicer(operations_pb2_grpc.OperationsServicer):
    """Shows the operations of the caller's own department."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def GetOperation(
        self, request: operations_pb2.GetOperationRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Return one operation."""
        return self._jobs.get(request.name, current_call().caller.department)

    def ListOperations(
        self, request: operations_pb2.ListOperationsRequest, context: grpc.ServicerContext
    ) -> operations_pb2.ListOperationsResponse:
        """Return the latest operations, newest first, one page only."""
        found = self._jobs.list(current_call().caller.department, page_size_of(request.page_size))
        return operations_pb2.ListOperationsResponse(operations=found)

    def CancelOperation(
        self, request: operations_pb2.CancelOperationRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """End an operation at its next checkpoint."""
        self._jobs.cancel(request.name, current_call().caller.department)
        return empty_pb2.Empty()
