"""Golden records: read, list, look up, lineage, history, unmerge."""

from __future__ import annotations

from datetime import UTC

import grpc
from kehu.access.v1 import shares_pb2 as access_pb2
from kehu.profiles.v1 import profiles_pb2, resources_pb2, shares_pb2

from services.chassis import paging
from services.chassis.errors import Denied
from services.chassis.records import new_id
from services.chassis.server import current_call
from services.profiles.api.common import (
    Tools,
    departments_in_reach,
    id_of,
    is_in_reach,
    page_in_reach,
    profile_in_reach,
    shown,
    shown_all,
)
from services.profiles.domain.contacts import parse_emails
from services.profiles.domain.documents import parse_resident_id
from services.profiles.domain.phones import parse_phones
from services.profiles.errors import IdentifierUnreadable, ProfileNotFound
from services.profiles.messages import lineage_message, revision_message
from services.profiles.past import profile_at
from services.profiles.values import HISTORY_AT_HAND, Profile, record_key
from services.profiles.vault import ErasedError

LOOKUP_LIMIT = 50
RIGHTS = {"phone": ("personal", "contact"), "email": ("personal", "contact"), "resident_id": ("sensitive", "document")}


class ProfilesPart:
    """RPCs of profiles."""

    tools: Tools

    def GetProfile(
        self, request: profiles_pb2.GetProfileRequest, context: grpc.ServicerContext
    ) -> resources_pb2.Profile:
        """Return a profile by its current or a former name, as it is or was."""
        return self._shown(self._at(request))

    def _at(self, request: profiles_pb2.GetProfileRequest | profiles_pb2.GetProfileLineageRequest) -> Profile:
        """Return the profile now, or what it was; both must be in the caller's reach."""
        profile = profile_in_reach(self.tools.store, request.name)
        if not request.HasField("as_of"):
            return profile
        found = profile_at(self.tools.store, id_of(request.name), request.as_of.ToDatetime(tzinfo=UTC))
        if not is_in_reach(found):
            raise _erased(found)
        return found

    def ShareProfile(self, request: shares_pb2.ShareProfileRequest, context: grpc.ServicerContext) -> access_pb2.Share:
        """Lend a profile that the caller reaches."""
        profile = profile_in_reach(self.tools.store, request.name)
        return self.tools.lending.lend(f"profiles/{profile.profile_id}", request.terms)

    def ListProfiles(
        self, request: profiles_pb2.ListProfilesRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ListProfilesResponse:
        """List the profiles in the caller's reach."""
        of_filter = paging.filter_hash("profiles", departments_in_reach(), request.owner_department)
        size = paging.page_size_of(request.page_size)
        after = str(paging.decode_token(request.page_token, of_filter).get("after", "") or "")
        found = page_in_reach(self.tools.store, after, size + 1, request.owner_department)
        more = len(found) > size
        token = paging.encode_token({"after": found[size - 1].profile_id}, of_filter) if more else ""
        page = shown_all(self.tools, found[:size])
        return profiles_pb2.ListProfilesResponse(profiles=page, next_page_token=token)

    def LookupProfiles(
        self, request: profiles_pb2.LookupProfilesRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.LookupProfilesResponse:
        """Find profiles by an exact identifier, through its blind token."""
        kind = request.WhichOneof("identifier")
        if kind == "source_record":
            name = request.source_record
            key = record_key(id_of(name.source), name.source_record_id)
            found = self.tools.store.by_record_keys([key])
        else:
            if not current_call().decision.obligations.may_search(*RIGHTS[kind]):
                raise Denied(f"looking up by {kind} is not permitted for this purpose")
            found = self._by_identifier(kind, getattr(request, kind))
        reached = [item for item in found if is_in_reach(item)][:LOOKUP_LIMIT]
        return profiles_pb2.LookupProfilesResponse(profiles=shown_all(self.tools, reached))

    def _by_identifier(self, kind: str, text: str) -> list[Profile]:
        """Return the profiles that carry the identifier now; a token may be shared, the value is not."""
        normalized = _normalized(kind, text)
        found = self.tools.store.by_tokens([self.tools.vault.token(kind, normalized)])
        return sorted(found, key=lambda item: item.profile_id)

    def GetProfileLineage(
        self, request: profiles_pb2.GetProfileLineageRequest, context: grpc.ServicerContext
    ) -> resources_pb2.ProfileLineage:
        """Return where each believed value comes from."""
        profile = self._at(request)
        try:
            believed = self.tools.vault.open_golden(profile, self.tools.vault.ciphers(self.tools.store, [profile]))
        except ErasedError:
            raise _erased(profile) from None
        return lineage_message(profile, believed)

    def GetProfileHistory(
        self, request: profiles_pb2.GetProfileHistoryRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.GetProfileHistoryResponse:
        """Return the changes of a profile, newest first."""
        profile = profile_in_reach(self.tools.store, request.name)
        size = paging.page_size_of(request.page_size or HISTORY_AT_HAND)
        of_filter = paging.filter_hash("history", profile.profile_id)
        token = paging.decode_token(request.page_token, of_filter)
        before = paging.number_of(token, "before")
        latest = profile.revisions[-HISTORY_AT_HAND:]
        found = [item for item in reversed(latest) if not before or item.version < before]
        if len(found) <= size:
            oldest = found[-1].version if found else before
            older = self.tools.store.past_versions(profile.profile_id, oldest, size + 1 - len(found))
            found += [revision for past in older for revision in past.revisions]
        page = map(revision_message, found[:size])
        more = paging.encode_token({"before": found[size - 1].version}, of_filter) if len(found) > size else ""
        return profiles_pb2.GetProfileHistoryResponse(revisions=page, next_page_token=more)

    def UnmergeProfile(
        self, request: profiles_pb2.UnmergeProfileRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.UnmergeProfileResponse:
        """Split source records out of a profile."""
        profile = profile_in_reach(self.tools.store, request.name)
        keys = sorted({record_key(id_of(item.source), item.source_record_id) for item in request.source_records})
        parts = self._parted(keys, profile.profile_id) if request.request_id else None
        if parts is None:
            caller = current_call().caller.subject
            parts = self.tools.taker.merger.split(profile.profile_id, keys, new_id(), caller, request.reason)
        found = self.tools.store.profiles(parts)
        left, out = (found[item] for item in parts)
        return profiles_pb2.UnmergeProfileResponse(profile=self._shown(left), new_profile=self._shown(out))

    def _parted(self, keys: list[str], profile_id: str) -> tuple[str, str] | None:
        """Return what an earlier split of this profile left and what it split out, if it split these records out."""
        holders = self.tools.store.by_record_keys(keys)
        if len(holders) != 1 or not set(keys) <= set(holders[0].record_keys):
            return None
        (out,) = holders
        for revision in reversed(out.revisions):
            if revision.kind == "unmerged" and keys in (sorted(revision.source_records), sorted(out.record_keys)):
                left = self.tools.store.profiles([revision.other_profile]).get(revision.other_profile)
                parts = (revision.other_profile, out.profile_id)
                return parts if left and not left.merged_into and profile_id in parts else None
        return None

    def _shown(self, profile: Profile) -> resources_pb2.Profile:
        try:
            believed = self.tools.vault.open_golden(profile, self.tools.vault.ciphers(self.tools.store, [profile]))
        except ErasedError:
            raise _erased(profile) from None
        return shown(self.tools, profile, believed)


def _erased(profile: Profile) -> ProfileNotFound:
    name = f"profiles/{profile.profile_id}"
    return ProfileNotFound("there is no such profile", metadata={"name": name})


def _normalized(kind: str, text: str) -> str:
    """Return the identifier in its standard form.

    Raises:
        IdentifierUnreadable: it is none.
    """
    if kind == "resident_id":
        found = parse_resident_id(text)[0]
    elif kind == "phone":
        phones = parse_phones(text)[0]
        found = phones[0].number if len(phones) == 1 else ""
    else:
        emails = parse_emails(text)[0]
        found = emails[0] if len(emails) == 1 else ""
    if not found:
        raise IdentifierUnreadable("the identifier cannot be read; check it for typos", metadata={"field": kind})
    return found
