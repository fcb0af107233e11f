"""Rows that were set apart."""

from __future__ import annotations

import dataclasses

import grpc
from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.chassis.server import current_call
from services.profiles.admission import settings_of
from services.profiles.api.common import Tools, id_of, page_of
from services.profiles.errors import RejectClosed, RejectNotFound, RejectStillRefused, SourceNotFound
from services.profiles.folding import Outcome
from services.profiles.intake.rejecting import attempt, tried
from services.profiles.messages import REJECT_STATES, reject_message
from services.profiles.values import Reject

STATES = {number: state for state, number in REJECT_STATES.items()}


class RejectsPart:
    """RPCs of set-apart rows."""

    tools: Tools

    def ListRejects(
        self, request: profiles_pb2.ListRejectsRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ListRejectsResponse:
        """List set-apart rows without their content."""
        equal = {"state": STATES.get(request.state, "open")}
        if request.source:
            equal["source_id"] = id_of(request.source)
        found, token = page_of(self.tools.store.rejects, equal, request.page_size, request.page_token, "rejects")
        return profiles_pb2.ListRejectsResponse(rejects=map(reject_message, found), next_page_token=token)

    def GetReject(self, request: profiles_pb2.GetRejectRequest, context: grpc.ServicerContext) -> resources_pb2.Reject:
        """Return a set-apart row with its content."""
        reject = self._reject(request.name)
        message = reject_message(reject)
        entry = self.tools.admission().reopen(reject, {})
        message.row.update(entry.values)
        return message

    def ReplayReject(
        self, request: profiles_pb2.ReplayRejectRequest, context: grpc.ServicerContext
    ) -> resources_pb2.Reject:
        """Take in a set-apart row, corrected or as it was."""
        reject = self._reject(request.name)
        if reject.state != "open":
            raise RejectClosed("the row was replayed or corrected already", metadata={"name": request.name})
        source = self.tools.store.sources.get(reject.source_id)
        if source is None:
            raise SourceNotFound("the source is gone", metadata={"name": f"sources/{reject.source_id}"})
        admission = self.tools.admission()
        entry = admission.reopen(reject, request.corrections)
        (admitted,), _ = admission.admit(settings_of(source), [entry], keep_rejects=False)
        subject, codes = current_call().caller.subject, {reason for _, reason in admitted.reasons}
        noted = tried(reject, attempt(subject, columns=request.corrections, reasons=codes))
        if admitted.outcome is Outcome.REJECTED:
            self.tools.store.rejects.replace(noted)
            reasons = ",".join(sorted(codes))
            raise RejectStillRefused("the row is still refused", metadata={"name": request.name, "reasons": reasons})
        return reject_message(self.tools.store.rejects.replace(dataclasses.replace(noted, state="replayed")))

    def _reject(self, name: str) -> Reject:
        found = self.tools.store.rejects.get(id_of(name))
        if found is None:
            raise RejectNotFound("there is no such row", metadata={"name": name})
        return found
