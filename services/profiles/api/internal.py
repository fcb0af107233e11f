"""What only other services ask: which profile a record belongs to, addresses to write to, states for a rebuild."""

from __future__ import annotations

from datetime import datetime

import grpc
from kehu.profiles.v1 import events_pb2, profiles_pb2

from services.chassis import paging
from services.profiles.aliases import resolve
from services.profiles.api.common import Tools
from services.profiles.believed import Believed
from services.profiles.facts import profile_changed
from services.profiles.values import Profile, record_key

STATES_PER_PAGE = 500


class InternalPart:
    """RPCs for services."""

    tools: Tools

    def ResolveSourceRecords(
        self, request: profiles_pb2.ResolveSourceRecordsRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ResolveSourceRecordsResponse:
        """Return the profile of each source record."""
        keys = {record_key(request.source_id, item): item for item in request.source_record_ids}
        found = self.tools.store.by_record_keys(list(keys))
        owners = {key: item.profile_id for item in found for key in item.record_keys}
        return profiles_pb2.ResolveSourceRecordsResponse(
            profile_ids={record_id: owners[key] for key, record_id in keys.items() if key in owners}
        )

    def BatchGetContacts(
        self, request: profiles_pb2.BatchGetContactsRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.BatchGetContactsResponse:
        """Return where to write to people, in the order asked."""
        living = resolve(self.tools.store, list(request.profile_ids))
        opened = self._opened(list({item.profile_id: item for item in living.values()}.values()))
        reply = profiles_pb2.BatchGetContactsResponse()
        for asked in request.profile_ids:
            believed = opened.get(living[asked].profile_id) if asked in living else None
            addresses = (believed.phones() if request.channel == "sms" else believed.emails()) if believed else []
            if believed and addresses:
                name = believed.golden.value("name")
                reply.contacts.add(profile_id=asked, display_name=name, address=addresses[0])
        return reply

    def ListProfileStates(
        self, request: profiles_pb2.ListProfileStatesRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ListProfileStatesResponse:
        """Return a page of the present states of all living profiles."""
        size = min(paging.page_size_of(request.page_size or STATES_PER_PAGE), STATES_PER_PAGE)
        of_filter = paging.filter_hash("states")
        after = str(paging.decode_token(request.page_token, of_filter).get("after", "") or "")
        found = self.tools.store.page_profiles(after, size + 1, ())
        page = found[:size]
        token = paging.encode_token({"after": page[-1].profile_id}, of_filter) if len(found) > size else ""
        opened = self._opened(page)
        states = [self._state(item, opened[item.profile_id]) for item in page if item.profile_id in opened]
        return profiles_pb2.ListProfileStatesResponse(states=states, next_page_token=token)

    def _opened(self, profiles: list[Profile]) -> dict[str, Believed]:
        ciphers = self.tools.vault.ciphers(self.tools.store, profiles)
        living = [item for item in profiles if item.key_id in ciphers.by_id]
        return {item.profile_id: self.tools.vault.open_golden(item, ciphers) for item in living}

    def _state(self, profile: Profile, believed: Believed) -> events_pb2.ProfileChanged:
        changed_at: datetime = profile.update_time
        fact = profile_changed(profile, believed, profile.version, changed_at, self.tools.vault.events)
        assert isinstance(fact.message, events_pb2.ProfileChanged)
        return fact.message
