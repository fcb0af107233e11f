"""Shares: kept for the services that own the records, read and ended by who gave or has them."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
from kehu.access.v1 import shares_pb2 as pb

from services.access.domain import shares as domain
from services.access.domain.errors import PersonNeeded, ShareExists, ShareLimit, ShareNotFound
from services.access.domain.names import living
from services.access.domain.shares import DEPARTMENT, Lent
from services.access.methods.requests import READ_AT_ONCE, RequestMethods
from services.chassis.paging import decode_seen, encode_seen, filter_hash, page_size_of
from services.chassis.records import etag_of, new_id, unchanged_since
from services.chassis.server import current_call

RESOURCE = "shares"


class ShareMethods(RequestMethods):
    """The methods of AccessService that keep shares."""

    def CreateShare(self, request: pb.CreateShareRequest, context: grpc.ServicerContext) -> pb.Share:
        """Keep a share; the service that asks has seen that the lender reaches the record and may lend it."""
        c, terms, now = self._context, request.terms, self._context.now()
        if not request.lender.startswith("user:"):
            raise PersonNeeded("An app lends nothing; sign in as a person.")
        # the same request id for another record, borrower or purpose is another share
        id = new_id(terms.request_id, RESOURCE, request.lender, request.target, terms.borrower, terms.purpose)
        known = c.shares.get(id)
        if known is not None:
            return self._share(known)
        resource, _, record_id = request.target.partition("/")
        wished = Lent(
            id, resource, record_id, record_id, terms.borrower, terms.purpose, terms.reason, request.lender,
            request.department, request.lender_purpose, terms.end_time.ToDatetime(UTC), now,
        )  # fmt: skip
        share = domain.checked(wished, c.directory.policy.content, c.directory.everybody())
        self._refuse_another(share, now)
        self._require_room(share, now)
        stored = c.shares.insert(share)
        moved = domain.followed(stored, lambda lent_id: living(lent_id, c.names.of))
        if moved != stored:  # it was merged while it was lent
            stored = c.shares.save(moved)
        c.directory.refresh(at_once=True)
        return self._share(stored)

    def GetShare(self, request: pb.GetShareRequest, context: grpc.ServicerContext) -> pb.Share:
        """Return one."""
        return self._share(self._known_share(request.share_id))

    def ListShares(self, request: pb.ListSharesRequest, context: grpc.ServicerContext) -> pb.ListSharesResponse:
        """Return a page, the newest first."""
        now = self._context.now()
        lender, borrowers, department = self._whose(request.view)
        size = page_size_of(request.page_size)
        of_filter = filter_hash(RESOURCE, request.view, request.in_force, lender, borrowers, department)
        before = decode_seen(request.page_token, of_filter)
        found = self._context.shares.page(lender, borrowers, department, before, READ_AT_ONCE)
        told = [share for share in found if share.is_in_force(now) or not request.in_force][:size]
        last = told[-1] if len(told) == size else found[-1] if len(found) == READ_AT_ONCE else None
        token = encode_seen((last.create_time, last.id) if last else None, of_filter)
        return pb.ListSharesResponse(shares=map(self._share, told), next_page_token=token)

    def RevokeShare(self, request: pb.RevokeShareRequest, context: grpc.ServicerContext) -> pb.Share:
        """End one."""
        c, call = self._context, current_call()
        known = self._known_share(request.share_id)
        ended = domain.closed(known, call.caller.subject, call.caller.department, c.now())
        call.note(f"{ended.state} {RESOURCE}/{known.id} of {known.target} to {known.borrower}")
        with unchanged_since("", known.version, f"{RESOURCE}/{known.id}"):
            stored = c.shares.save(ended)
        c.directory.refresh(at_once=True)
        return self._share(stored)

    def _whose(self, view: str) -> tuple[str, tuple[str, ...], str]:
        """Return lender, borrowers and lender's department of the shares of a view; all empty for every share."""
        caller = current_call().caller
        borrowers = (caller.subject, f"{DEPARTMENT}{caller.department}")
        if view == "by_me":
            return caller.subject, (), ""
        if view != "all":
            return "", borrowers, ""
        if self._oversees():
            return "", (), ""
        return caller.subject, borrowers, caller.department if self._may("approve") else ""

    def _known_share(self, share_id: str) -> Lent:
        """Return one that the caller gave, has or answers for; others are as if they were not there."""
        found, caller = self._context.shares.get(share_id), current_call().caller
        if found is not None:
            is_own = found.lender == caller.subject or found.is_lent_to(caller.subject, caller.department)
            if is_own or (caller.department == found.department and self._may("approve")) or self._oversees():
                return found
        raise ShareNotFound("There is no such share.", metadata={"share_id": share_id})

    def _refuse_another(self, share: Lent, now: datetime) -> None:
        for known in self._context.shares.of_records([share.record_id]):
            if known.is_in_force(now) and known.is_like(share):
                metadata = {"share_id": known.id}
                raise ShareExists("You lend them this for this purpose already: end that first.", metadata=metadata)

    def _require_room(self, share: Lent, now: datetime) -> None:
        of_borrower, of_lender, in_all = self._context.shares.counts(share.borrower, share.lender, now)
        for found, most, told in (
            (of_borrower, domain.MOST_OF_A_BORROWER, "The borrower has as many shares as they may: ask for a role."),
            (of_lender, domain.MOST_OF_A_LENDER, "You lend as much as one person may: end some."),
            (in_all, domain.MOST, "There are as many shares as there may be."),
        ):
            if found >= most:
                raise ShareLimit(told, metadata={"limit": str(most)})

    def _share(self, found: Lent) -> pb.Share:
        message = pb.Share(
            name=f"{RESOURCE}/{found.id}", target=found.target, borrower=found.borrower, purpose=found.purpose,
            reason=found.reason, lender=found.lender, department=found.department, closer=found.closer,
            state=found.state_at(self._context.now()), etag=etag_of(found.version),
        )  # fmt: skip
        message.end_time.FromDatetime(found.end_time)
        message.create_time.FromDatetime(found.create_time)
        return message
