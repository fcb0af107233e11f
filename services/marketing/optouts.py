"""The RPCs about opting out: suppressions by hand, and the unsubscribe link of a message."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
from google.api import httpbody_pb2
from kehu.marketing.v1 import messages_pb2 as pb
from kehu.marketing.v1 import resources_pb2 as res

from services.chassis.errors import AlreadyExists
from services.chassis.identities import one_living
from services.chassis.jobs import Jobs, Owner
from services.chassis.paging import filter_hash, page_size_of
from services.marketing import wire
from services.marketing.domain.errors import LinkInvalid
from services.marketing.domain.suppressions import Suppression
from services.marketing.gate import SUPPRESSION_USE_SECONDS
from services.marketing.jobs import REVOKE
from services.marketing.listing import check_reach, next_token, position_of
from services.marketing.store import MarketingStore

UNSUBSCRIBED = "您已退订，不会再收到此类邮件。You are unsubscribed."
_PAGE = """<!doctype html><html lang="zh-CN"><meta charset="utf-8"><meta name="robots" content="noindex">
<title>退订 / Unsubscribe</title><h1>退订 / Unsubscribe</h1>
<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click">
<p>不再接收此类邮件？ Stop these messages?</p><button>确认退订 / Unsubscribe</button></form></html>"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the servicer is given beside its store; `delivery_of` opens an unsubscribe token."""

    delivery_of: Callable[[str], str | None]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    settle: Callable[[float], None] = time.sleep


class OptOuts:
    """What holds when acknowledged: nothing that was checked before is sent after."""

    def __init__(self, store: MarketingStore, jobs: Jobs, around: Surroundings) -> None:
        self._store = store
        self._jobs = jobs
        self._around = around

    def CreateSuppression(self, request: pb.CreateSuppressionRequest, context: grpc.ServicerContext) -> res.Suppression:
        """Record that a profile must not be written to; it holds when acknowledged."""
        wanted = request.suppression
        kept = self._store.suppress(Suppression(wanted.profile_id, wanted.channel, wanted.purpose_id, wanted.reason))
        self._around.settle(SUPPRESSION_USE_SECONDS)
        return wire.suppression_to_proto(kept)

    def ListSuppressions(
        self, request: pb.ListSuppressionsRequest, context: grpc.ServicerContext
    ) -> pb.ListSuppressionsResponse:
        """List suppressions by id."""
        check_reach("*")
        of = filter_hash("suppressions", request.profile_id)
        size, after = page_size_of(request.page_size), position_of(request.page_token, of)
        found = self._store.suppressions(self._family(request.profile_id), after, size + 1)
        token = next_token([one.suppression_id for one in found], size, of)
        suppressions = [wire.suppression_to_proto(one) for one in found[:size]]
        return pb.ListSuppressionsResponse(suppressions=suppressions, next_page_token=token)

    def Unsubscribe(self, request: pb.UnsubscribeRequest, context: grpc.ServicerContext) -> pb.UnsubscribeResponse:
        """Suppress at once; the consent service is told by a job that is tried until it succeeds.

        It is told once an hour at most: who consented again since may withdraw again by the old link.
        """
        delivery_id = self._around.delivery_of(request.token)
        delivery = self._store.delivery(delivery_id) if delivery_id else None
        if delivery is None:
            raise LinkInvalid("the link is not valid: open it again from the message")
        self._store.suppress(
            Suppression(
                delivery.profile_id, delivery.channel, delivery.purpose_id, "unsubscribed", delivery.address_token
            )
        )
        progress = pb.UnsubscribeResponse(message="suppressed")
        with contextlib.suppress(AlreadyExists):  # another click came at the same moment
            request_id = f"{delivery.delivery_id}-{self._around.now():%Y%m%d%H}"
            args = {"delivery_id": delivery.delivery_id, "request_id": request_id}
            self._jobs.start(REVOKE, args, progress, Owner("svc:marketing", "marketing"), request_id)
        self._around.settle(SUPPRESSION_USE_SECONDS)
        return pb.UnsubscribeResponse(message=UNSUBSCRIBED)

    def GetUnsubscribe(self, request: pb.GetUnsubscribeRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        """Show a page that asks to confirm; it is the same for every token and changes nothing."""
        return httpbody_pb2.HttpBody(content_type="text/html; charset=utf-8", data=_PAGE.encode())

    def _family(self, profile_id: str) -> tuple[str, ...]:
        """Return all ids of the person behind an id; none for an empty one."""
        if not profile_id:
            return ()
        person = one_living(self._store.identities, profile_id)
        return (person, *self._store.identities.family([person]))
