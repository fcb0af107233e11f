"""Build the index anew from the owners of the records while the old one answers, then swap (zero downtime)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import grpc
from kehu.profiles.v1 import events_pb2 as profile_events
from kehu.profiles.v1 import profiles_pb2
from kehu.search.v1 import search_pb2 as pb
from kehu.tickets.v1 import events_pb2 as ticket_events
from kehu.tickets.v1 import tickets_pb2

from services.chassis.errors import NotAllowed, Unavailable
from services.chassis.jobs import Job, Paused
from services.search.documents import DocumentMaker
from services.search.store import Engine, IndexDocument, IndexGone

State = TypeVar("State", profile_events.ProfileChanged, ticket_events.TicketChanged)
Reply = TypeVar("Reply")
PAGE = 500  # the largest page the owners give
CALL_SECONDS = 30.0
LATER = "a later rebuild took over; watch that one"


class RebuildSuperseded(NotAllowed):
    """A later rebuild dropped the index that this one was building."""

    reason = "REBUILD_SUPERSEDED"


class ProfileStates(Protocol):
    """The part of ProfilesServiceStub that a rebuild calls."""

    def ListProfileStates(  # noqa: N802
        self, request: profiles_pb2.ListProfileStatesRequest, timeout: float
    ) -> profiles_pb2.ListProfileStatesResponse:
        """Return a page of states."""


class TicketStates(Protocol):
    """The part of TicketsServiceStub that a rebuild calls."""

    def ListTicketStates(  # noqa: N802
        self, request: tickets_pb2.ListTicketStatesRequest, timeout: float
    ) -> tickets_pb2.ListTicketStatesResponse:
        """Return a page of states."""


class Progress:
    """The checkpoint of a rebuild: which index, which stage, which page, how many so far."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.index = str(job.checkpoint.get("index", ""))
        self.stage = str(job.checkpoint.get("stage", "creating"))
        self.page_token = str(job.checkpoint.get("page_token", ""))
        self.profiles = int(str(job.checkpoint.get("profiles", 0)))
        self.tickets = int(str(job.checkpoint.get("tickets", 0)))
        self.replaced = str(job.checkpoint.get("replaced", ""))

    def save(self, stage: str, page_token: str = "") -> None:
        """Save where the next worker would go on."""
        self.stage, self.page_token = stage, page_token
        checkpoint = {
            "index": self.index,
            "stage": stage,
            "page_token": page_token,
            "profiles": self.profiles,
            "tickets": self.tickets,
            "replaced": self.replaced,
        }
        done = self.profiles + self.tickets
        self._job.save(checkpoint, pb.RebuildIndexMetadata(stage=stage, documents_done=done, index=self.index))


class RebuildIndex:
    """The job behind :rebuild. Every stage may be repeated after a crash."""

    def __init__(self, engine: Engine, maker: DocumentMaker, profiles: ProfileStates, tickets: TicketStates) -> None:
        self._engine = engine
        self._maker = maker
        self._profiles = profiles
        self._tickets = tickets

    def __call__(self, job: Job) -> pb.RebuildIndexResponse:
        """Run the stages from the checkpoint on."""
        progress = Progress(job)
        stages: dict[str, Callable[[Progress], None]] = {
            "creating": self._create,
            "tombstones": self._copy_tombstones,
            "profiles": self._copy_profiles,
            "tickets": self._copy_tickets,
            "swapping": self._swap,
            "dropping": self._drop,
        }
        while progress.stage in stages:
            stages[progress.stage](progress)
        return pb.RebuildIndexResponse(index=progress.index, profiles=progress.profiles, tickets=progress.tickets)

    def _create(self, progress: Progress) -> None:
        """Create the index; one left by a rebuild that died here is dropped first."""
        for abandoned in self._engine.aliases().building:
            self._engine.drop(abandoned)
        progress.index = self._engine.create()
        progress.save("tombstones")

    def _copy_tombstones(self, progress: Progress) -> None:
        """Carry over what is gone: an old event must not bring back an erased person after a rebuild."""
        for page in self._engine.tombstones(PAGE):
            self._engine.load(progress.index, [each.document() for each in page])
        progress.save("profiles")

    def _copy_profiles(self, progress: Progress) -> None:
        request = profiles_pb2.ListProfileStatesRequest(page_size=PAGE, page_token=progress.page_token)
        reply = _ask(lambda: self._profiles.ListProfileStates(request, timeout=CALL_SECONDS), "profiles")
        self._load(progress, reply.states, self._maker.of_profile)
        progress.profiles += len(reply.states)
        progress.save("profiles" if reply.next_page_token else "tickets", reply.next_page_token)

    def _copy_tickets(self, progress: Progress) -> None:
        request = tickets_pb2.ListTicketStatesRequest(page_size=PAGE, page_token=progress.page_token)
        reply = _ask(lambda: self._tickets.ListTicketStates(request, timeout=CALL_SECONDS), "tickets")
        self._load(progress, reply.states, self._maker.of_ticket)
        progress.tickets += len(reply.states)
        progress.save("tickets" if reply.next_page_token else "swapping", reply.next_page_token)

    def _load(self, progress: Progress, states: Sequence[State], make: Callable[[State], IndexDocument]) -> None:
        if progress.index not in self._engine.aliases().building:
            raise RebuildSuperseded(LATER)
        self._engine.load(progress.index, [make(state) for state in states])

    def _swap(self, progress: Progress) -> None:
        """Move the alias; which index is replaced is saved first, so that it is dropped whoever dies.

        A run of the same job that lost its lease may have moved the alias already: then nothing is replaced here.
        """
        live = self._engine.aliases().live
        if not progress.replaced and live != progress.index:
            progress.replaced = live
            progress.save("swapping")
        try:
            self._engine.swap(progress.index)
        except IndexGone as error:
            raise RebuildSuperseded(LATER) from error
        progress.save("dropping")

    def _drop(self, progress: Progress) -> None:
        if progress.replaced:
            self._engine.drop(progress.replaced)
        progress.save("done")


def _ask(call: Callable[[], Reply], service: str) -> Reply:
    """Call another service; while it is down the job waits.

    Raises:
        Paused: the service does not answer.
    """
    try:
        return call()
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else None
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise Paused(f"{service} does not answer") from None
        raise
    except Unavailable:
        raise Paused(f"{service} does not answer") from None
