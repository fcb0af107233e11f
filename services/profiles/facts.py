"""The facts of a profile: its state as others may know it, identifiers sealed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kehu.profiles.v1 import events_pb2

from services.chassis.crypto import Sealer
from services.chassis.records import Fact
from services.profiles.believed import Believed
from services.profiles.values import Profile

GENDERS = frozenset(("male", "female"))


def profile_changed(profile: Profile, believed: Believed, version: int, now: datetime, sealer: Sealer) -> Fact:
    """Return the fact that tells a living profile's state at `version`."""
    value = believed.golden.value
    birth_year = value("birth_date")[:4]
    gender = value("gender")
    message = events_pb2.ProfileChanged(
        profile_id=profile.profile_id,
        version=version,
        province_code=value("province_code"),
        city_code=value("city_code"),
        district_code=value("district_code"),
        gender=gender if gender in GENDERS else "",
        birth_year=int(birth_year) if birth_year.isdigit() else 0,
        links=_links(profile),
        sealed_identity=sealer.seal(_identity(believed)),
        owner_department=profile.owner_department,
        tier=profile.tier,
        stage=profile.stage,
        stage_time=profile.stage_time,
        event_time=now,
    )
    return Fact(message, f"profiles/{profile.profile_id}", version)


def _links(profile: Profile) -> list[events_pb2.SourceLink]:
    return [
        events_pb2.SourceLink(source_id=item.source_id, source_record_id=item.source_record_id)
        for item in profile.records
    ]


def _identity(believed: Believed) -> bytes:
    value = believed.golden.value
    return events_pb2.ProfileIdentity(
        display_name=value("name"),
        phones=believed.phones(),
        emails=believed.emails(),
        resident_id=value("resident_id"),
        address=value("address"),
        source_names=believed.source_names,
    ).SerializeToString()


def profile_erased(profile_id: str, names: Sequence[str], version: int, now: datetime) -> Fact:
    """Return the fact that a person of these ids was erased."""
    message = events_pb2.ProfileErased(profile_id=profile_id, version=version, names=names)
    message.event_time.FromDatetime(now)
    return Fact(message, f"profiles/{profile_id}", version)


def profile_ended(profile_id: str, merged_into: str, version: int, now: datetime) -> Fact:
    """Return the fact that a profile is no more: merged, or erased when `merged_into` is empty."""
    message = events_pb2.ProfileChanged(profile_id=profile_id, version=version, deleted=True, merged_into=merged_into)
    message.event_time.FromDatetime(now)
    return Fact(message, f"profiles/{profile_id}", version)


def profiles_merged(survivor_id: str, merged_id: str, merged_version: int, version: int, now: datetime) -> Fact:
    """Return the fact that `merged_id` is an alias of the survivor, since its own version `merged_version`."""
    message = events_pb2.ProfilesMerged(
        profile_id=survivor_id, merged_profile_id=merged_id, version=version, merged_profile_version=merged_version
    )
    message.event_time.FromDatetime(now)
    return Fact(message, f"profiles/{survivor_id}", version)


def profiles_unmerged(was: Profile, alive: Profile, leaving: Profile, now: datetime) -> Fact:
    """Return the fact that the records of `alive` came out of the profile `was`, with its next version.

    `leaving` is what was to be done: since when both had been one, and what other ids they had.
    """
    message = events_pb2.ProfilesUnmerged(
        profile_id=was.profile_id, unmerged_profile_id=alive.profile_id, version=alive.version + 1,
        aliases=alive.aliases, links=_links(alive), remaining_links=_links(was),
    )  # fmt: skip
    message.event_time.FromDatetime(now)
    for item in leaving.former:
        if not item.merged_into:
            message.went = item.went
            message.together_since.FromDatetime(item.divided_since or now)
            continue
        message.former_names.add(
            profile_id=item.profile_id, merged_into=item.merged_into, version=item.version, went=item.went,
            divided_since=item.divided_since,
        )  # fmt: skip
    return Fact(message, f"profiles/{alive.profile_id}", message.version)
