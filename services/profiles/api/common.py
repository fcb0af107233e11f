"""What the parts of the servicer share: their tools, names, pages, the caller's reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import Message
from kehu.profiles.v1 import resources_pb2

from services.chassis import paging
from services.chassis.access import in_reach, values_in_reach
from services.chassis.access.shares import LENT_BY, lent_ids
from services.chassis.errors import FieldViolation, Invalid
from services.chassis.jobs import Jobs
from services.chassis.server import current_call
from services.chassis.server.lending import Lending
from services.chassis.times import china_today
from services.profiles.admission import DERIVED, MAPPABLE, Admission
from services.profiles.aliases import resolve_one
from services.profiles.believed import Believed
from services.profiles.definitions.defining import Definitions
from services.profiles.dictionary import Dictionary
from services.profiles.errors import ProfileNotFound, SourceNotFound
from services.profiles.intake.places import Target
from services.profiles.messages import profile_message, visible_attributes
from services.profiles.relations.networks import NOBODY_ALLOWED, Consents
from services.profiles.remembered import Remembered
from services.profiles.sharing import SharedTaker
from services.profiles.store import Shelf, Store
from services.profiles.store.shelf import Shelved
from services.profiles.training.models import Models
from services.profiles.values import Profile, Source
from services.profiles.vault import Vault

T = TypeVar("T", bound=Shelved)
Part = TypeVar("Part", bound=Message)
DEPARTMENT_FIELD = "owner_department"


@dataclass(frozen=True, slots=True)
class Tools:
    """What the servicer works with; built in main.py."""

    store: Store
    vault: Vault
    taker: SharedTaker
    jobs: Jobs
    dictionary: Dictionary
    sources_at_hand: dict[str, Remembered[Source | None]] = field(default_factory=dict)
    consents: Consents = NOBODY_ALLOWED
    models: Models | None = None
    reveals_per_day: int = 20
    targets: Mapping[str, Target] = field(default_factory=dict)
    lending: Lending = field(default_factory=Lending)

    def match_models(self) -> Models:
        """Return the match models: those by which records are taken in."""
        return self.models or Models(self.store)

    def admission(self) -> Admission:
        """Return what admits records."""
        return Admission(self.store, self.vault, self.taker, self.may_feed)

    def may_feed(self, name: str) -> bool:
        """Tell whether a source may bring this field."""
        return name in MAPPABLE or (name not in DERIVED and self.dictionary.get(name) is not None)

    def definitions(self) -> Definitions:
        """Return what changes definitions."""
        return Definitions(self.store, self.dictionary)

    def source_at_hand(self, name: str) -> Source:
        """Return the source of a resource name, as single writes know it: remembered for moments."""
        source_id = id_of(name)
        known = self.sources_at_hand.get(source_id)
        if known is None:
            self.source(name)
            known = self.sources_at_hand.setdefault(source_id, Remembered(lambda: self.store.sources.get(source_id)))
        return known() or self.source(name)

    def source(self, name: str) -> Source:
        """Return the source of a resource name."""
        found = self.store.sources.get(id_of(name))
        if found is None:
            raise SourceNotFound("there is no such source", metadata={"name": name})
        return found


def id_of(name: str) -> str:
    """Return the last part of a resource name."""
    return name.rpartition("/")[2]


def header_of(parts: Iterator[Part]) -> Part:
    """Take the part with the header from the parts of an upload; it comes first."""
    first = next(parts, None)
    if first is None or first.WhichOneof("part") != "header":
        raise Invalid("send the header first", violations=[FieldViolation("header", "must come before chunks")])
    return first


def page_of(
    shelf: Shelf[T], equal: dict[str, str], page_size: int, page_token: str, kind: str, by: str = "id"
) -> tuple[list[T], str]:
    """Return a page of a shelf, by id or another unique field, and the token of the next."""
    size, of_filter = paging.page_size_of(page_size), paging.filter_hash(kind, sorted(equal.items()))
    after = str(paging.decode_token(page_token, of_filter).get("after", "") or "")
    found = shelf.page(equal, after, size + 1, by)
    token = paging.encode_token({"after": getattr(found[size - 1], by)}, of_filter) if len(found) > size else ""
    return found[:size], token


def departments_in_reach() -> tuple[str, ...] | None:
    """Return the departments whose profiles the caller may reach; empty means all, None means none.

    A row filter on anything but the owner department is one that profiles cannot apply, so nothing is shown.
    """
    reach = values_in_reach(current_call().decision.obligations.row_filter, DEPARTMENT_FIELD)
    return () if reach is None else tuple(sorted(reach)) or None


def is_in_reach(profile: Profile) -> bool:
    """Tell whether the caller's row filter allows this profile: by its department, or because somebody lent it."""
    known = {DEPARTMENT_FIELD: profile.owner_department, LENT_BY["profiles"]: profile.profile_id}
    return in_reach(current_call().decision.obligations.row_filter, known.get)


def page_in_reach(store: Store, after: str, limit: int, department: str) -> list[Profile]:
    """Return living profiles in the caller's reach with ids greater than `after`, by id; of one department or any.

    Those that somebody lent are few, and are looked up one by one.
    """
    departments = departments_in_reach()
    if department and departments is not None:
        departments = (department,) if not departments or department in departments else None
    found = [] if departments is None else store.page_profiles(after, limit, departments)
    known = {item.profile_id for item in found}
    lent = [id for id in lent_ids(current_call().decision.obligations.row_filter) if id > after and id not in known]
    for item in store.profiles(lent).values() if lent else ():
        is_living = not (item.merged_into or item.is_erased)
        if is_living and is_in_reach(item) and department in ("", item.owner_department):
            found.append(item)
    return sorted(found, key=lambda item: item.profile_id)[:limit]


def profile_in_reach(store: Store, name: str) -> Profile:
    """Return the living profile of a current or former name.

    Raises:
        ProfileNotFound: there is none, or the caller may not know of it.
    """
    profile = resolve_one(store, id_of(name))
    if not is_in_reach(profile):
        raise ProfileNotFound("there is no such profile", metadata={"name": name})
    return profile


def shown(tools: Tools, profile: Profile, believed: Believed) -> resources_pb2.Profile:
    """Return the message of a profile with the custom fields the caller may see."""
    call = current_call()
    attributes = visible_attributes(
        believed, tools.dictionary.get, call.decision.obligations, call.caller.purpose, china_today()
    )
    return profile_message(profile, believed, attributes)


def shown_all(tools: Tools, profiles: Sequence[Profile]) -> list[resources_pb2.Profile]:
    """Return the messages of profiles whose data keys still exist."""
    ciphers = tools.vault.ciphers(tools.store, profiles)
    return [
        shown(tools, item, tools.vault.open_golden(item, ciphers)) for item in profiles if item.key_id in ciphers.by_id
    ]


def changed(item: T, names: Sequence[str], read: Callable[[str], object]) -> T:
    """Return the value with these fields replaced by what `read` gives for them."""
    return dataclasses.replace(item, **{name: read(name) for name in names})  # type: ignore[type-var]
