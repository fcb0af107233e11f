"""The operations of a service as its callers see them: start, look up, list, cancel (AIP-151)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from google.longrunning import operations_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2

from services.chassis import records
from services.chassis.errors import Conflict, NotAllowed, NotFound
from services.chassis.jobs.stores import Document, MongoOperations, OperationStore


class OperationNotFound(NotFound):
    """No operation of this name is visible to the caller."""

    reason = "OPERATION_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who started an operation; people and apps of the same department may watch it."""

    subject: str
    department: str


class Jobs:
    """The operations of one service: start, look up, list, cancel."""

    def __init__(self, service: str, store: OperationStore | None = None) -> None:
        self.service = service
        self.store: OperationStore = store or MongoOperations(service)

    def start(
        self,
        kind: str,
        args: Mapping[str, object],
        metadata: Message,
        owner: Owner,
        request_id: str = "",
    ) -> operations_pb2.Operation:
        """Queue a job and return its operation; a repeated request id returns the first one.

        `args` must hold ids and options only, never a person's data.
        """
        now = datetime.now(UTC)
        job_id = records.new_id(request_id, self.service, kind, owner.subject)
        name = f"operations/{self.service}-{job_id}"
        document: Document = {
            "_id": name, "kind": kind, "args": dict(args), "subject": owner.subject,
            "department": owner.department, "open": True, "done": False, "wake_at": now, "lease": "",
            "attempts": 0, "checkpoint": {}, "note": "", "create_time": now, "update_time": now,
            "metadata": packed(metadata), "response": None, "error": None,
        }  # fmt: skip
        found = self.store.get(name) if request_id else None
        if found is None:
            self.store.insert(document)
            found = document
        return to_operation(found)

    def get(self, name: str, department: str) -> operations_pb2.Operation:
        """Return an operation of this department.

        Raises:
            OperationNotFound: there is none, or it belongs to another department.
        """
        return to_operation(self._visible(name, department))

    def list(self, department: str, limit: int) -> list[operations_pb2.Operation]:
        """Return the department's latest operations, newest first."""
        return [to_operation(document) for document in self.store.newest(department, limit)]

    def cancel(self, name: str, department: str) -> None:
        """End an operation: its worker stops at its next checkpoint.

        Raises:
            NotAllowed: it has ended already.
        """
        document = self._visible(name, department)
        if document["done"]:
            raise NotAllowed("the operation has ended already")
        changes = {**ended(), "lease": "cancelled", "error": {"code": code_pb2.CANCELLED, "reason": "CANCELLED",
                                                               "message": "the operation was cancelled"}}  # fmt: skip
        if not self.store.update(name, str(document["lease"]), changes):
            raise Conflict("the operation moved on meanwhile; try again")

    def _visible(self, name: str, department: str) -> Document:
        found = self.store.get(name)
        if found is None or found["department"] != department:
            raise OperationNotFound("there is no such operation in your department")
        return found


def ended() -> Document:
    """Return the fields of an operation that is over."""
    return {"open": False, "done": True, "update_time": datetime.now(UTC)}


def packed(message: Message) -> Document:
    """Return a message as it is stored."""
    packed = any_pb2.Any()
    packed.Pack(message)
    return {"type_url": packed.type_url, "value": packed.value}


def to_operation(document: Mapping[str, object]) -> operations_pb2.Operation:
    """Return the google.longrunning.Operation of a stored document."""
    operation = operations_pb2.Operation(name=str(document["_id"]), done=bool(document["done"]))
    metadata, response, error = document["metadata"], document["response"], document["error"]
    if isinstance(metadata, Mapping):
        operation.metadata.type_url, operation.metadata.value = metadata["type_url"], metadata["value"]
    if isinstance(response, Mapping):
        operation.response.type_url, operation.response.value = response["type_url"], response["value"]
    if isinstance(error, Mapping):
        operation.error.code, operation.error.message = error["code"], error["message"]
        info = error_details_pb2.ErrorInfo(reason=error["reason"], domain="kehu")
        operation.error.details.add().Pack(info)
    return operation
