"""One value of one person, unmasked for a reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import grpc
from kehu.profiles.v1 import reveal_pb2 as pb

from services.chassis.errors import Denied
from services.chassis.server import current_call
from services.profiles.api.common import Tools, profile_in_reach
from services.profiles.believed import Believed
from services.profiles.errors import ProfileNotFound
from services.profiles.messages import CLASSES, classified
from services.profiles.revealing import count_reveal
from services.profiles.vault import ErasedError


class RevealsPart:
    """The RPC that reveals."""

    tools: Tools

    def RevealField(self, request: pb.RevealFieldRequest, context: grpc.ServicerContext) -> pb.RevealFieldResponse:
        """Return one field in full: right and reach first, then the day's count, then the value."""
        call = current_call()
        group = self._revealable(request.field)
        profile = profile_in_reach(self.tools.store, request.name)
        left = count_reveal(self.tools.store, call.caller.subject, datetime.now(UTC), self.tools.reveals_per_day)
        try:
            ciphers = self.tools.vault.ciphers(self.tools.store, [profile])
            values = _values(self.tools.vault.open_golden(profile, ciphers), request.field)
        except ErasedError:
            raise ProfileNotFound("there is no such profile", metadata={"name": request.name}) from None
        why = pb.RevealFieldRequest.ReasonCode.Name(request.reason_code).removeprefix("REASON_CODE_")
        call.reveal(group, f"{request.field} {why} {request.reason}")
        return pb.RevealFieldResponse(
            name=f"profiles/{profile.profile_id}", field=request.field, left_today=left,
            values=[classified(request.field, value) for value in values],
        )  # fmt: skip

    def _revealable(self, field: str) -> str:
        """Return the group of a field that the caller may reveal for the purpose stated.

        Raises:
            Denied: the policy or the dictionary says no.
        """
        definition, call = self.tools.dictionary.get(field), current_call()
        if definition is not None:
            group = f"{CLASSES.get(definition.classification, '')}/{definition.group}"
            if group in call.decision.obligations.revealable and definition.permits(call.caller.purpose):
                return group
        raise Denied(f"revealing {field} is not permitted for this purpose")


def _values(believed: Believed, field: str) -> Sequence[str]:
    if field in ("phone", "email"):
        return believed.phones() if field == "phone" else believed.emails()
    value = believed.golden.value(field)
    return [value] if value else []
