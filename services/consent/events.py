"""What consent listens to: two profiles became one, or one became two again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from kehu.profiles.v1.events_pb2 import ProfileErased, ProfilesMerged, ProfilesUnmerged, SourceLink

from services.chassis.consuming import Event, on_event
from services.chassis.errors import Unavailable
from services.consent.domain.merging import Parting, changes_of, merge_consents, split_consents
from services.consent.domain.records import ProfileConsents, without_identifiers
from services.consent.store import ConsentStore, consents_for

TRIES = 8  # an answer may arrive for either profile between reading and writing


class ConsentConsumer:
    """Merges and splits follow at most seconds after the profiles; doing one twice, or late, changes nothing."""

    name = "consent"

    def __init__(self, store: ConsentStore) -> None:
        self._store = store

    @on_event("profiles", ProfilesMerged)
    def on_profiles_merged(self, event: Event[ProfilesMerged]) -> None:
        """Let the survivor answer for the merged profile: the strictest answer stands, all evidence is kept."""
        told = event.message
        self._merge(told.merged_profile_id, told.profile_id, told.merged_profile_version, event.time)

    def _merge(self, merged_id: str, survivor_id: str, version: int, at: datetime) -> None:
        for _ in range(TRIES):
            merged = self._of(merged_id)
            survivor = self._answering(survivor_id)
            if version <= merged.link_version:
                return
            if survivor.profile_id == merged.profile_id:
                raise Unavailable("the survivor was split off meanwhile: the fact that says so comes first")
            grown, facts = merge_consents(survivor, self._with_strays(merged), at)
            if grown is not survivor and self._store.save_consents([(grown, facts)]):
                continue
            alias = replace(merged, merged_into=survivor_id, link_version=version)
            if not self._store.save_consents([(alias, [])]):
                return
        raise Unavailable("the profiles' consents are being changed by others; the merge is tried again")

    @on_event("profiles", ProfilesUnmerged)
    def on_profiles_unmerged(self, event: Event[ProfilesUnmerged]) -> None:
        """Let the profile answer for itself: what was refused stands on both sides, a grant on the one it was given on.

        The one that was split out is written first: whoever still sees it as an alias loses the race for the other.
        """
        told = event.message
        parting = Parting(
            told.version, told.event_time.ToDatetime(UTC), told.together_since.ToDatetime(UTC), frozenset(told.aliases),
            _keys(told.links), _keys(told.remaining_links),
            {name.profile_id: name.divided_since.ToDatetime(UTC)
             for name in told.former_names if name.HasField("divided_since")},
            {told.profile_id: told.went, **{name.profile_id: name.went for name in told.former_names}},
        )  # fmt: skip
        for name in told.former_names:
            self._merge(name.profile_id, name.merged_into, name.version, event.time)
        for _ in range(TRIES):
            part = self._of(told.unmerged_profile_id)
            whole = self._answering(told.profile_id)
            is_apart = part.profile_id not in whole.family
            if told.version == part.link_version and is_apart:
                return
            if told.version < part.link_version:
                if self._split_late(whole, part, parting):
                    return
                continue
            if whole.profile_id == part.profile_id:  # they are one again already, under this name
                if not self._store.save_consents([(replace(part, merged_into="", link_version=told.version), [])]):
                    return
                continue
            # A merge that was not heard of counts all the same.
            one = merge_consents(whole, part, event.time)[0] if is_apart else whole
            left, out = split_consents(one, part, parting)
            if self._save(part, out, parting) and self._save(whole, left, parting):
                return
        raise Unavailable("the profiles' consents are being changed by others; the split is tried again")

    @on_event("profiles", ProfileErased)
    def on_profile_erased(self, event: Event[ProfileErased]) -> None:
        """Keep the proof of what was answered and take out what names the person."""
        for name in event.message.names:
            for _ in range(TRIES):
                held = self._of(name)
                bare = without_identifiers(held)
                if bare == held or not self._store.save_consents([(bare, [])]):
                    break
            else:
                raise Unavailable("the profile's consents are being changed by others; the erasure is tried again")

    def _split_late(self, whole: ProfileConsents, part: ProfileConsents, parting: Parting) -> bool:
        """Carry out a split of an id that was merged again since: who has it now is told what both had said."""
        home = self._answering(part.profile_id)
        left, out = split_consents(whole, part, parting)
        if home.profile_id == whole.profile_id:
            return self._save(whole, replace(left, family=whole.family), parting)
        gone = {name for name in whole.family - left.family if self._answering(name).profile_id != whole.profile_id}
        out = replace(out, merged_into=part.merged_into, link_version=part.link_version)
        apart = replace(home, family=home.family - out.family - {part.profile_id})
        grown = replace(merge_consents(apart, out, parting.time)[0], family=home.family)
        changes = ((part, out), (home, grown), (whole, replace(left, family=whole.family - gone)))
        return all(self._save(before, after, parting) for before, after in changes)

    def _save(self, before: ProfileConsents, after: ProfileConsents, parting: Parting) -> bool:
        if after == before:
            return True
        return not self._store.save_consents([(after, changes_of(before, after, parting.time))])

    def _of(self, profile_id: str) -> ProfileConsents:
        return self._store.consents([profile_id]).get(profile_id, ProfileConsents(profile_id))

    def _answering(self, profile_id: str) -> ProfileConsents:
        return consents_for(self._store, [profile_id])[profile_id]

    def _with_strays(self, merged: ProfileConsents) -> ProfileConsents:
        """Return an alias with what was answered under its id where it led until now; others as they are."""
        if not merged.merged_into:
            return merged
        held = self._answering(merged.merged_into)
        known = {record.record_id for record in merged.records}
        strays = [
            record for record in held.records
            if record.origin_profile_id == merged.profile_id and record.record_id not in known
        ]  # fmt: skip
        return replace(merged, records=(*merged.records, *strays))


def _keys(links: Iterable[SourceLink]) -> frozenset[str]:
    return frozenset(f"{link.source_id}/{link.source_record_id}" for link in links)
