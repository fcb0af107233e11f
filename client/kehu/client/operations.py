"""Long-running operations (AIP-151)."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from google.protobuf import empty_pb2  # noqa: F401 - what many operations end with
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from kehu.client.calls import filled
from kehu.client.connection import Connection, Options, Outgoing
from kehu.client.errors import OperationFailed, status_of
from kehu.client.retrying import pauses

if TYPE_CHECKING:
    from google.rpc import status_pb2

Response = TypeVar("Response", bound=Message)
Metadata = TypeVar("Metadata", bound=Message)
Document = dict[str, Any]


class Operation(Generic[Response, Metadata]):
    """What was begun and goes on by itself, whether it is waited for or not."""

    def __init__(self, document: Document, look: Callable[[str], Document], cancel: Callable[[str], None]) -> None:
        self._document = document
        self._look = look
        self._cancel = cancel

    def __repr__(self) -> str:
        return f"<{self.name} {'done' if self.is_done else 'running'}>"

    @property
    def name(self) -> str:
        """Its name, to find it again: kehu.operation(name)."""
        return str(self._document["name"])

    @property
    def is_done(self) -> bool:
        """Whether it had ended when it was last looked at."""
        return bool(self._document.get("done"))

    @property
    def metadata(self) -> Metadata:
        """How far it was when it was last looked at."""
        return cast(Metadata, typed(self._document.get("metadata")))

    @property
    def error(self) -> status_pb2.Status | None:
        """What ended it, None while nothing has."""
        return status_of(self._document["error"]) if "error" in self._document else None

    @property
    def response(self) -> Response:
        """What came of it.

        Raises:
            OperationFailed: it ended with an error.
            ValueError: it has not ended.
        """
        error = self.error
        if error is not None:
            raise OperationFailed(self.name, error)
        if not self.is_done:
            raise ValueError(f"{self.name} is not done yet: wait() for it")
        return cast(Response, typed(self._document.get("response")))

    def refresh(self) -> None:
        """Look at it anew."""
        self._document = self._look(self.name)

    def cancel(self) -> None:
        """Ask it to end; what it has done stays."""
        self._cancel(self.name)

    def wait(self, timeout_seconds: float = 600.0, progress: Callable[[Metadata], None] | None = None) -> Response:
        """Return what came of it, once it is done; show how far it is meanwhile.

        Raises:
            OperationFailed: it ended with an error.
            TimeoutError: it takes longer; it goes on nevertheless.
        """
        deadline = time.monotonic() + timeout_seconds
        for pause in pauses():
            if self.is_done:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} is not done after {timeout_seconds:g} s")
            if progress is not None:
                progress(self.metadata)
            time.sleep(pause)
            self.refresh()
        return self.response


def read_operation(connection: Connection, options: Options, name: str) -> Document:
    """Return an operation as it is now."""
    label = "GET /v1/{name=operations/*}"
    outgoing = Outgoing("GET", label, f"/v1/{_path(name)}", {}, dict, is_harmless=True)
    document: Document = json.loads(connection.send(outgoing, options).content)
    return document


def cancel_operation(connection: Connection, options: Options, name: str) -> None:
    """Ask an operation to end."""
    label = "POST /v1/{name=operations/*}:cancel"
    connection.send(Outgoing("POST", label, f"/v1/{_path(name)}:cancel", {}, dict, is_harmless=True), options)


def _path(name: str) -> str:
    path = filled(name, "operations/*")
    if path is None:
        raise ValueError("the name of an operation looks like operations/*")
    return path


def typed(document: Document | None) -> Message:
    """Return the message of an Any in JSON, importing its module when no other has.

    Raises:
        LookupError: this client is older than the type.
    """
    said = dict(document or {"@type": "/google.protobuf.Empty"})
    name = str(said.pop("@type")).rpartition("/")[2]
    message = _class(name)()
    value = said.get("value") if name.startswith("google.protobuf.") else said
    return ParseDict(value or {}, message, ignore_unknown_fields=True)


def _class(name: str) -> type[Message]:
    pool = Default()
    try:
        return GetMessageClass(pool.FindMessageTypeByName(name))
    except KeyError:
        package = name.split(".")[1:2]
    try:
        importlib.import_module(f"kehu.client.services.{package[0] if package else ''}")  # and so all its messages
        return GetMessageClass(pool.FindMessageTypeByName(name))
    except (KeyError, ImportError):
        raise LookupError(f"this client does not know {name}: install a newer one") from None
