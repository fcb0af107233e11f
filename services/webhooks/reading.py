"""Read what an event is about, as the app: the owner decides, masks, narrows and writes the audit entry."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message

from services.chassis.client import Channels
from services.chassis.errors import Unavailable
from services.chassis.server.calls import ACTING_DEPARTMENT, ACTING_FOR, READ_FIELDS
from services.webhooks.domain.catalogue import EventType
from services.webhooks.domain.subscriptions import Subscription

SECONDS = 5.0
NOT_FOR_THE_APP = (
    grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
)  # fmt: skip
AWAY = (
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNAUTHENTICATED,
)  # fmt: skip


class Unreadable(Exception):  # noqa: N818 - of this record: others can be read
    """The owner fails at this record."""


class Reads(Protocol):
    """Reads a resource with an app's rights."""

    def __call__(
        self, subscription: Subscription, event: EventType, resource: str, fields: Collection[str], request_id: str
    ) -> Message | None:
        """Return these fields of it as the app sees them, None when it may not see it or it is gone.

        Of what an event ends nothing is returned if it is gone, None if the app may not read such records.

        Raises:
            Unavailable: the owner does not answer.
            Unreadable: it fails at this record.
        """


class Reader:
    """Reads over gRPC."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    def __call__(
        self, subscription: Subscription, event: EventType, resource: str, fields: Collection[str], request_id: str
    ) -> Message | None:
        """Return these fields."""
        method, empty = event.method, message_factory.GetMessageClass(event.method.output_type)()
        request = message_factory.GetMessageClass(method.input_type)()
        (path,) = event.plan.target_paths
        setattr(request, path[0], resource)
        channel = self._channels.to(event.service, [method.containing_service.full_name])
        call = channel.unary_unary(
            event.plan.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=type(empty).FromString,
        )
        metadata = (
            (ACTING_FOR, subscription.subscriber), (ACTING_DEPARTMENT, subscription.department),
            ("x-purpose", subscription.purpose), (READ_FIELDS, ",".join(sorted(fields))),
            ("x-request-id", f"webhook-{request_id}"),
        )  # fmt: skip
        try:
            reply: Message = call(request, timeout=SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            if event.ends and error.code() is grpc.StatusCode.NOT_FOUND:
                return empty
            if error.code() in NOT_FOR_THE_APP:
                return None
            if error.code() in AWAY:
                raise Unavailable("the owner of the record does not answer") from None
            raise Unreadable(error.code().name) from None
        return None if event.ends else reply
