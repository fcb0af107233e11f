"""Answer /v1/operations by the service an operation's name begins with: operations/{service}-{uuid}."""

from __future__ import annotations

from google.longrunning import operations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from gateway.problems import refusal
from gateway.reasons import Reason
from gateway.routes.derived import DerivedRoute
from gateway.transcoding.catalog import Binding, Method
from services.chassis.server import plans_by_path

# The proto of google.longrunning cannot carry our options; services.chassis.server.plans has the rights.
FORMS = {
    "GetOperation": (Binding("GET", "/v1/{name=operations/*}", ""), True),
    "CancelOperation": (Binding("POST", "/v1/{name=operations/*}:cancel", "*"), False),
}


def operation_methods() -> list[Method]:
    """Return the routed methods of google.longrunning.Operations; their service is found per request."""
    service = operations_pb2.DESCRIPTOR.services_by_name["Operations"]
    return [operation_method(service.methods_by_name[name]) for name in FORMS]


def operation_method(descriptor: MethodDescriptor) -> Method:
    """Return one method of google.longrunning.Operations with its route and rule."""
    binding, is_read = FORMS[descriptor.name]
    path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
    return Method(
        service="operations",
        full_name=descriptor.full_name,
        path=path,
        request=descriptor.input_type,
        response=descriptor.output_type,
        bindings=(binding,),
        plan=plans_by_path([descriptor.containing_service.full_name])[path],
        is_upload=False,
        is_lines=False,
        is_read=is_read,
    )


class OperationRoute(DerivedRoute):
    """A method of google.longrunning.Operations, sent to the service named by the operation."""

    def service(self, message: Message) -> str:
        """Return the service whose name begins the operation's id.

        Raises:
            Problem: 404, no service has such operations.
        """
        name: str = message.name
        service = name.removeprefix("operations/").partition("-")[0]
        if service == self.method.service or service not in self.edge.upstreams.services:
            raise refusal(404, Reason.UNKNOWN_OPERATION, "operations are named operations/{service}-{id}")
        return service
