"""The call being served: who asks, with what rights, until when; read by servicers and by the client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

from services.chassis.access import Caller, Decision, FieldGrant
from services.chassis.server.seen import Seen

CERTIFICATE_HEADER = "x-client-certificate"  # thumbprint (RFC 8705) of the certificate the caller connected with
ACTING_FOR, ACTING_DEPARTMENT = "x-acting-for", "x-acting-department"  # of the app that a service of `acting` names
READ_FIELDS = "x-read-fields"  # beside them: the fields of the reply that are wanted, separated by commas
CALLER_ADDRESS = "x-caller-address"  # metadata between our processes: where the call came from, as the gateway saw it


@dataclass(slots=True)
class Call:
    """One served call; `authorization` is the caller's own token, forwarded to other services.

    `field_grants` are the rules about field groups of the policy that decided it; `thumbprint` is of the certificate
    the caller connected with, empty for none; `revealed` are the groups the servicer revealed,
    `emergency` is the break-glass the caller has open, `only` the fields of the reply that are wanted (None: all).
    """

    caller: Caller
    decision: Decision
    request_id: str
    deadline: float
    authorization: str = ""
    field_grants: Sequence[FieldGrant] = ()
    thumbprint: str = ""
    emergency: str = ""
    only: frozenset[str] | None = None
    revealed: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    told: list[Iterable[Seen]] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Have the audit entry say what was done, as its reason; never personal data."""
        self.notes.append(what)

    def tell(self, seen: Iterable[Seen]) -> None:
        """Have the trail say, beside the call's own entry, whose data a reply hands out that is no message of ours."""
        self.told.append(seen)

    def reveal(self, group: str, why: str) -> None:
        """Show a field group in the reply to this call in full; the audit entry says `why`."""
        self.revealed.add(group)
        self.note(why)

    def seconds_left(self) -> float:
        """Return how many seconds the caller still waits, never less than 0."""
        return max(self.deadline - time.monotonic(), 0.0)


_current: ContextVar[Call | None] = ContextVar("kehu_call", default=None)


def current_call() -> Call:
    """Return the call being served.

    Raises:
        LookupError: outside a call, such as in a job.
    """
    call = _current.get()
    if call is None:
        raise LookupError("no call is being served here")
    return call


def find_call() -> Call | None:
    """Return the call being served, or None in a job or a consumer."""
    return _current.get()


class serving_call:  # noqa: N801 - a context manager; a generator of one costs three times as much
    """Make `call` the current one while the block runs."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._token = _current.set(self._call)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
