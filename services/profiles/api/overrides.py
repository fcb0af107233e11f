"""A steward's values over those of the sources."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
from google.protobuf import empty_pb2
from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.chassis.errors import Denied
from services.chassis.obligations import SHOW
from services.chassis.records import new_id
from services.chassis.server import current_call
from services.profiles.api.common import Tools, id_of, profile_in_reach
from services.profiles.domain.overrides import read_override
from services.profiles.errors import FieldNotFound, OverrideInvalid
from services.profiles.messages import CLASSES, override_message
from services.profiles.overriding import Overrider
from services.profiles.values import Profile


class OverridesPart:
    """RPCs of overrides."""

    tools: Tools

    def CreateOverride(
        self, request: profiles_pb2.CreateOverrideRequest, context: grpc.ServicerContext
    ) -> resources_pb2.Override:
        """Set a value over those of the sources, and let a job end it when it expires."""
        profile = profile_in_reach(self.tools.store, request.parent)
        self._check_right(request.field)
        now, until = datetime.now(UTC), request.expire_time.ToDatetime(tzinfo=UTC)
        caller = current_call().caller
        if until <= now:
            raise _invalid(request.field, "EXPIRED_ALREADY")
        override = read_override(request.field, request.value, caller.subject, now, request.reason, until)
        if isinstance(override, str):
            raise _invalid(request.field, override)
        override_id = new_id(request.request_id, "override", profile.profile_id, caller.subject)
        overrider = self._overrider()
        anchor_key = overrider.anchor_of(profile, request.field)
        overrider.end_later(self.tools.jobs, profile.profile_id, override_id, anchor_key, until)
        changed = overrider.set(profile.profile_id, override, override_id, anchor_key)
        return next(item for item in self._messages(changed) if id_of(item.name) == override_id)

    def ListOverrides(
        self, request: profiles_pb2.ListOverridesRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ListOverridesResponse:
        """List the overrides in force."""
        profile = profile_in_reach(self.tools.store, request.parent)
        return profiles_pb2.ListOverridesResponse(overrides=self._messages(profile))

    def DeleteOverride(
        self, request: profiles_pb2.DeleteOverrideRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Withdraw an override."""
        _, profile_id, _, override_id = request.name.split("/")
        profile = profile_in_reach(self.tools.store, f"profiles/{profile_id}")
        held = next((item for item in profile.overrides if item.id == override_id), None)
        if held is not None:
            self._check_right(held.name)
        self._overrider().withdraw(profile.profile_id, override_id, current_call().caller.subject)
        return empty_pb2.Empty()

    def _overrider(self) -> Overrider:
        return Overrider(self.tools.store, self.tools.vault, self.tools.dictionary)

    def _check_right(self, field: str) -> None:
        """Refuse who may not see the field unmasked for this purpose: nobody overrules what they may not read."""
        definition = self.tools.dictionary.get(field)
        if definition is None:
            raise FieldNotFound("there is no such field", metadata={"name": f"fields/{field}"})
        name = CLASSES.get(definition.classification, "")
        call = current_call()
        rights = call.decision.obligations
        if (
            not name
            or rights.disposition(name, definition.group) != SHOW
            or not definition.permits(call.caller.purpose)
        ):
            raise Denied(f"setting {field} is not permitted for this purpose")

    def _messages(self, profile: Profile) -> list[resources_pb2.Override]:
        opened = self.tools.vault.open_overrides(profile, self.tools.vault.ciphers(self.tools.store, [profile]))
        now = datetime.now(UTC)
        held = [item for item in profile.overrides if item.id in opened and item.expire_time > now]
        return [override_message(profile.profile_id, item, opened[item.id]) for item in held]


def _invalid(field: str, cause: str) -> OverrideInvalid:
    return OverrideInvalid("the field cannot be set to this", metadata={"field": field, "cause": cause})
