"""The gRPC face of tickets: parse, load, ask the domain, save, reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import grpc
from google.protobuf.empty_pb2 import Empty
from kehu.access.v1 import shares_pb2 as access_pb2
from kehu.tickets.v1 import shares_pb2
from kehu.tickets.v1 import tickets_pb2 as pb

from services.chassis import paging, records
from services.chassis.errors import AlreadyExists, Conflict, EtagMismatch, FieldViolation, Invalid, Unavailable
from services.chassis.identities import one_living
from services.chassis.server import current_call, validate
from services.chassis.server.lending import Lending
from services.chassis.times import CHINA
from services.tickets import rows, updates, wire
from services.tickets.api_policies import PoliciesServicer
from services.tickets.domain import ticket as rules
from services.tickets.domain.ticket import Status, Ticket, TicketParent, TicketsNotFound
from services.tickets.store import Comment, TicketFilter, TicketsStore

WRITE_TRIES = 3  # lost races are repeated as long as the caller did not name an etag
NUMBER_TRIES = 50  # of numbers that were given already
STATES_PAGE = 500  # the proto documents this maximum
Change = Callable[[Ticket], Ticket]
Verb = (
    pb.RespondTicketRequest
    | pb.PauseTicketRequest
    | pb.ResumeTicketRequest
    | pb.ResolveTicketRequest
    | pb.ReopenTicketRequest
)


def now_in_milliseconds() -> datetime:
    """Return the time as the database keeps it, so that a reply and a later read agree."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class TicketsServicer(PoliciesServicer):
    """Serves kehu.tickets.v1.TicketsService."""

    def __init__(
        self,
        store: TicketsStore,
        clock: Callable[[], datetime] = now_in_milliseconds,
        new_id: Callable[..., str] = records.new_id,
        lending: Lending | None = None,
    ) -> None:
        self._lending = lending or Lending()
        self._store = store
        self._now = clock
        self._new_id = new_id

    def CreateTicket(self, request: pb.CreateTicketRequest, context: grpc.ServicerContext) -> pb.Ticket:
        """Open a ticket; a repeated request id returns the first answer."""
        caller = current_call().caller
        ticket_id = self._new_id(request.request_id, "tickets", caller.subject)
        known = self._store.get(ticket_id) if request.request_id else None
        if known is not None:
            return self._reply(known)
        draft = self._draft(request.ticket, ticket_id, caller.department)
        self._check_parent(ticket_id, draft.parent_id)
        opened = rules.open_ticket(draft, self._store.policies())
        return self._reply(self._after_merge(self._kept(opened, request.request_id)))

    def _kept(self, opened: Ticket, request_id: str) -> Ticket:
        """Write a new ticket and return it, or the one that the same request wrote at this moment.

        Raises:
            Unavailable: its numbers were all given before: the counter is behind, as after a restore.
        """
        for _ in range(NUMBER_TRIES):
            try:
                self._store.insert(opened, request_id)
                return opened
            except AlreadyExists:
                known = self._store.get(opened.id)
                if known is not None:
                    return known
                opened = replace(opened, number=self._next_number(opened.create_time))
        raise Unavailable("the ticket numbers of today are being counted up; try again")

    def _next_number(self, now: datetime) -> str:
        return self._store.next_number(now.astimezone(CHINA).strftime("%Y%m%d"))

    def _after_merge(self, ticket: Ticket) -> Ticket:
        """Follow a merge or a split that became known between reading the profile and writing the ticket."""
        for _ in range(WRITE_TRIES):
            customer = rules.customer_of(ticket, self._store.identities)
            if customer == ticket.profile_id:
                return ticket
            moved = rules.follow(ticket, customer, self._now())
            try:
                self._store.replace(moved)
                return moved
            except Conflict:
                ticket = self._store.get(ticket.id) or moved
        return ticket

    def _draft(self, message: pb.Ticket, ticket_id: str, department: str) -> Ticket:
        if message.kind not in wire.KINDS:
            violation = FieldViolation("ticket.kind", "say request, work_order or complaint")
            raise Invalid("a ticket needs a kind", violations=[violation])
        now = self._now()
        draft = Ticket(
            id=ticket_id,
            number=self._next_number(now),
            kind=wire.KINDS[message.kind],
            status=Status.NEW,
            priority=wire.PRIORITIES[message.priority or pb.PRIORITY_NORMAL],
            channel=wire.CHANNELS[message.channel],
            subject=message.subject,
            description=message.description,
            profile_id="",
            opened_for=wire.id_of(message.profile),
            source_record=wire.record_key_of(message),
            department=message.department or department,
            assignee="",
            parent_id=wire.id_of(message.parent),
            create_time=now,
            update_time=now,
        )
        return replace(draft, profile_id=rules.customer_of(draft, self._store.identities))

    def _check_parent(self, ticket_id: str, parent_id: str) -> None:
        ancestors: tuple[str, ...] = ()
        while parent_id and len(ancestors) <= rules.MAX_PARENTS and ticket_id not in ancestors:
            parent = self._store.get(parent_id)
            if parent is None or parent.deleted or (not ancestors and not rows.visible(parent, rows.of_call())):
                if ancestors:
                    break  # nothing is above a deleted ticket any more
                violation = FieldViolation("ticket.parent", "name a ticket that exists")
                raise TicketParent("the parent does not exist", violations=[violation])
            ancestors += (parent_id,)
            parent_id = parent.parent_id
        rules.check_parent(ticket_id, ancestors)

    def _reply(self, ticket: Ticket) -> pb.Ticket:
        return wire.ticket_message(ticket, self._now())

    def _visible(self, name: str) -> Ticket:
        """Return a ticket in the caller's rows.

        Raises:
            TicketsNotFound: there is none, or not for this caller.
        """
        found = self._store.get(wire.id_of(name))
        if found is None or found.deleted or not rows.visible(found, rows.of_call()):
            raise TicketsNotFound("there is no such ticket", metadata={"resource": name})
        return found

    def GetTicket(self, request: pb.GetTicketRequest, context: grpc.ServicerContext) -> pb.Ticket:
        """Return a ticket."""
        return self._reply(self._visible(request.name))

    def ShareTicket(self, request: shares_pb2.ShareTicketRequest, context: grpc.ServicerContext) -> access_pb2.Share:
        """Lend a ticket that the caller sees."""
        return self._lending.lend(f"tickets/{self._visible(request.name).id}", request.terms)

    def ListTickets(self, request: pb.ListTicketsRequest, context: grpc.ServicerContext) -> pb.ListTicketsResponse:
        """Return a page of tickets."""
        size = paging.page_size_of(request.page_size)
        narrowed = TicketFilter(
            profile_id=one_living(self._store.identities, wire.id_of(request.profile)),
            category=wire.CATEGORIES.get(request.status_category),
            kind=wire.KINDS.get(request.kind),
            department=request.department,
            assignee=request.assignee,
            rows=rows.of_call(),
        )
        shape = paging.filter_hash("tickets", narrowed)
        before = str(paging.decode_token(request.page_token, shape).get("before") or "")
        found = self._store.page(narrowed, before, size + 1)
        reply = pb.ListTicketsResponse(tickets=[self._reply(each) for each in found[:size]])
        if len(found) > size:
            reply.next_page_token = paging.encode_token({"before": found[size - 1].number}, shape)
        return reply

    def UpdateTicket(self, request: pb.UpdateTicketRequest, context: grpc.ServicerContext) -> pb.Ticket:
        """Change fields of a ticket."""
        fields = records.fields_to_change(request.update_mask, request.ticket, updates.TICKET_FIELDS)
        policies = self._store.policies()

        def edited(ticket: Ticket) -> Ticket:
            message = records.updated(self._reply(ticket), request.ticket, fields)
            validate(message)
            change = updates.ticket_edit(message, fields)
            if change.parent_id:
                self._check_parent(ticket.id, change.parent_id)
            made = rules.edit(ticket, change, policies, self._now())
            if change.opened_for is None and change.source_record is None:
                return made
            return replace(made, profile_id=rules.customer_of(made, self._store.identities))

        made = self._changed(request.ticket.name, request.ticket.etag, "", edited)
        names_customer = not {"profile", "source_record"}.isdisjoint(fields)
        return self._reply(self._after_merge(made) if names_customer else made)

    def DeleteTicket(self, request: pb.DeleteTicketRequest, context: grpc.ServicerContext) -> Empty:
        """Delete a ticket and its comments; these first, so that a crash leaves none behind."""

        def erased(ticket: Ticket) -> Ticket:
            self._store.erase_comments(ticket.id)
            return rules.erase(ticket, self._now())

        self._changed(request.name, request.etag, "", erased)
        self._store.erase_comments(wire.id_of(request.name))  # one may have come meanwhile
        return Empty()

    def _change(self, name: str, etag: str, request_id: str, change: Change) -> pb.Ticket:
        return self._reply(self._changed(name, etag, request_id, change))

    def _changed(self, name: str, etag: str, request_id: str, change: Change) -> Ticket:
        """Change a ticket by compare-and-set; repeats a lost race unless the caller named an etag."""
        for left in reversed(range(WRITE_TRIES)):
            ticket = self._visible(name)
            if self._store.seen(ticket.id, request_id):
                return ticket
            try:
                with records.unchanged_since(etag, ticket.version, name):
                    changed = change(ticket)
                    self._store.replace(changed, request_id)
                    return changed
            except Conflict:
                if etag or not left:
                    raise
        raise AssertionError("unreachable")

    def AssignTicket(self, request: pb.AssignTicketRequest, context: grpc.ServicerContext) -> pb.Ticket:
        """Give a ticket to somebody."""
        return self._change(
            request.name,
            request.etag,
            _asked(request),
            lambda ticket: rules.assign(ticket, request.assignee, self._now()),
        )

    def RespondTicket(self, request: pb.RespondTicketRequest, context: grpc.ServicerContext) -> pb.Ticket:
        """Record an answer to the customer."""
        return self._verb(request, rules.respond)

    def PauseTicket(self, request: pb.PauseTicketRequest, context: grpc.ServicerContext) -> pb.Ticket:
        """Stop the clocks."""
        return self._verb(request, rules.pause)

    def ResumeTicket(self, request: pb.ResumeTicketRequest, context: grpc.ServicerContext) -> pb.Ticket:
        """Start the clocks again."""
        return self._verb(request, rules.resume)

    def ResolveTicket(self, request: pb.ResolveTicketRequest, context: grpc.ServicerContext) -> pb.Ticket:
        """End the work."""
        return self._verb(request, rules.resolve)

    def ReopenTicket(self, request: pb.ReopenTicketRequest, context: grpc.ServicerContext) -> pb.Ticket:
        """Open a resolved ticket again."""
        return self._verb(request, rules.reopen)

    def _verb(
        self,
        request: Verb,
        rule: Callable[[Ticket, datetime], Ticket],
    ) -> pb.Ticket:
        return self._change(request.name, request.etag, _asked(request), lambda ticket: rule(ticket, self._now()))

    def CreateComment(self, request: pb.CreateCommentRequest, context: grpc.ServicerContext) -> pb.Comment:
        """Add a comment; a repeated request id returns the first answer."""
        ticket = self._visible(request.parent)
        author = current_call().caller.subject
        comment_id = self._new_id(request.request_id, "comments", ticket.id, author)
        comment = Comment(comment_id, ticket.id, author, request.comment.text, self._now())
        try:
            self._store.add_comment(comment)
        except AlreadyExists:
            comment = self._store.comment(comment_id) or comment
        self._check_words(ticket, request.parent)
        return wire.comment_message(comment)

    def _check_words(self, before: Ticket, name: str) -> None:
        """Take a comment back when the words of its ticket were erased while it was written.

        Raises:
            TicketsNotFound: the ticket was deleted.
            EtagMismatch: its customer was erased.
        """
        ticket = self._store.get(before.id)
        if ticket is not None and not ticket.deleted and (ticket.subject or not before.subject):
            return
        self._store.erase_comments(before.id)
        self._visible(name)
        raise EtagMismatch(name)

    def ListComments(self, request: pb.ListCommentsRequest, context: grpc.ServicerContext) -> pb.ListCommentsResponse:
        """Return a page of comments."""
        ticket = self._visible(request.parent)
        size = paging.page_size_of(request.page_size)
        shape = paging.filter_hash("comments", ticket.id)
        after = paging.decode_seen(request.page_token, shape)
        found = self._store.comments(ticket.id, after, size + 1)
        reply = pb.ListCommentsResponse(comments=[wire.comment_message(each) for each in found[:size]])
        if len(found) > size:
            last = found[size - 1]
            reply.next_page_token = paging.encode_seen((last.create_time, last.id), shape)
        return reply

    def ListTicketStates(
        self, request: pb.ListTicketStatesRequest, context: grpc.ServicerContext
    ) -> pb.ListTicketStatesResponse:
        """Return a page of ticket states for search."""
        size = request.page_size or STATES_PAGE
        shape = paging.filter_hash("states")
        after = str(paging.decode_token(request.page_token, shape).get("after") or "")
        found = self._store.states(after, size + 1)
        reply = pb.ListTicketStatesResponse(states=found[:size])
        if len(found) > size:
            reply.next_page_token = paging.encode_token({"after": found[size - 1].ticket_id}, shape)
        return reply


def _asked(request: pb.AssignTicketRequest | Verb) -> str:
    """Return what a ticket remembers of a request: its id stands for one verb of one caller."""
    return records.remembered(request.request_id, current_call().caller.subject, request.DESCRIPTOR.name)
