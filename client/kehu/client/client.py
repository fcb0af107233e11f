"""A client for one app or person and one purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message
from kehu.client.calls import filled
from kehu.client.connection import Connection, Options, Outgoing
from kehu.client.operations import Operation, cancel_operation, read_operation
from kehu.client.services import Services

if TYPE_CHECKING:
    import httpx
    from kehu.client.signing import SignIn


class Kehu(Services):
    """The API, one attribute per service: kehu.profiles.get_profile(name="profiles/…").

    Every refusal is a KehuProblem. `timeout_seconds` bounds a try, `deadline_seconds` a call with all its repeats.
    Repeated are calls that were not done (429) and, where that does no harm, calls that got no answer: reads,
    deletions, and writes with a request_id, which gets a value by itself; with `repeats_writes` all writes.
    `authority` is a PEM file of the authorities to trust in place of the public ones. Safe to use from several threads.
    """

    def __init__(
        self,
        base_url: str,
        sign_in: SignIn | None,
        purpose: str = "",
        *,
        timeout_seconds: float = 10.0,
        deadline_seconds: float = 20.0,
        repeats_writes: bool = False,
        authority: Path | None = None,
        allow_plaintext: bool = False,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._options = Options(purpose, timeout_seconds, deadline_seconds, repeats_writes)
        self._connection = Connection(
            base_url, sign_in, authority=authority, allow_plaintext=allow_plaintext, transport=transport
        )

    def __enter__(self) -> Kehu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Kehu {self._connection.base_url} for {self._options.purpose or 'no purpose'}>"

    def close(self) -> None:
        """Close the connections, also those of clients made by `using`."""
        self._connection.close()

    def using(
        self,
        *,
        purpose: str | None = None,
        timeout_seconds: float | None = None,
        deadline_seconds: float | None = None,
    ) -> Kehu:
        """Return a client with the same connections and token whose calls have another purpose or other bounds."""
        known = self._options
        other = Kehu.__new__(Kehu)
        other._connection = self._connection
        other._options = replace(
            known,
            purpose=known.purpose if purpose is None else purpose,
            timeout_seconds=timeout_seconds or known.timeout_seconds,
            deadline_seconds=deadline_seconds or known.deadline_seconds,
        )
        return other

    def operation(self, name: str) -> Operation[Message, Message]:
        """Return a long-running operation that was begun before, by its name."""
        connection, options = self._connection, self._options
        return Operation(
            read_operation(connection, options, name),
            lambda name: read_operation(connection, options, name),
            lambda name: cancel_operation(connection, options, name),
        )

    def view(self, profile: str) -> dict[str, Any]:
        """Return what each service knows of a customer, as JSON; a part that may not be seen says so."""
        path = filled(profile, "profiles/*")
        if path is None:
            raise ValueError("profile must look like profiles/*")
        label = "GET /v1/profiles/{profile_id}:view"
        outgoing = Outgoing("GET", label, f"/v1/{path}:view", {}, dict, is_harmless=True)
        document: dict[str, Any] = json.loads(self._connection.send(outgoing, self._options).content)
        return document

    def headers(self) -> dict[str, str]:
        """Return token and purpose as headers, for other tools that call the gateway; good for a while."""
        return self._connection.headers(self._options)
