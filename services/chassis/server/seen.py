"""What a reply told: whose data, and which field groups of it had a value. Ids and names of groups, never a value.

Read after the obligations were applied, from the same data classes; a field of text holds ids of profiles when its name
says `profile`, or when it is a resource name that begins with `profiles/` (tests/chassis/test_seen.py holds the rule
against every proto).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from kehu.options.v1 import options_pb2 as options

from services.chassis.obligations import MASK, RIGHTS_KNOWN, SHOW, Rights, data_class, value_type

CLASSES = {options.CLASSIFICATION_PERSONAL: "personal", options.CLASSIFICATION_SENSITIVE: "sensitive"}
PROFILE_FIELD = re.compile(r"(^|_)profiles?(_ids?)?$|_profile_ids?$|^profile_ids?$")
NAME_FIELDS = ("name", "parent", "target")
PROFILE_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
COLLECTION = "profiles/"

# What to do with a field: take ids, or walk into its message, its messages, its map.
Kind = Literal["profile", "name", "one", "many", "map"]


@dataclass(frozen=True, slots=True)
class Steps:
    """What to look at in a message: of each group and what became of it the fields, those with presence apart."""

    groups: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...]
    fields: tuple[tuple[str, Kind], ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """Ids of profiles, and field groups such as `personal/contact` shown and masked, each sorted."""

    profiles: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


NOTHING = Seen()


def seen_in(request: Message | None, reply: Message | None, rights: Rights) -> Seen:
    """Return what was asked for and told."""
    found = _Found(rights)
    if request is not None:
        found.walk(request, ids_only=True)
    if reply is not None:
        found.walk(reply)
    return Seen(tuple(sorted(found.profiles)), tuple(sorted(found.groups[SHOW])), tuple(sorted(found.groups[MASK])))


class _Found:
    def __init__(self, rights: Rights) -> None:
        self._rights, self._known = rights, _known_steps(rights)
        self.profiles: set[str] = set()
        self.groups: dict[str, set[str]] = {SHOW: set(), MASK: set()}

    def walk(self, message: Message, ids_only: bool = False) -> None:
        descriptor = message.DESCRIPTOR
        found = self._known.get(descriptor)
        if found is None:
            found = self._known[descriptor] = steps(descriptor, self._rights)
        if not ids_only:
            self._note(message, found)
        for name, kind in found.fields:
            if kind in ("profile", "name"):
                value = getattr(message, name)
                if value:
                    self._take(value, kind == "name")
            elif kind == "one":
                if message.HasField(name):
                    self.walk(getattr(message, name), ids_only)
            else:
                held = getattr(message, name)
                for inner in held.values() if kind == "map" else held:
                    self.walk(inner, ids_only)

    def _note(self, message: Message, found: Steps) -> None:
        for group, right, present, filled in found.groups:
            groups = self.groups[right]
            if group not in groups and (
                any(map(message.HasField, present)) or any(getattr(message, name) for name in filled)
            ):
                groups.add(group)

    def _take(self, value: str | Iterable[str], is_name: bool) -> None:
        for text in (value,) if isinstance(value, str) else value:
            if is_name and not text.startswith(COLLECTION):
                continue
            found = text.removeprefix(COLLECTION).partition("/")[0]
            if found not in self.profiles and PROFILE_ID.fullmatch(found):
                self.profiles.add(found)


@lru_cache(maxsize=RIGHTS_KNOWN)
def _known_steps(rights: Rights) -> dict[Descriptor, Steps]:
    """Return where the steps of each message are kept for these rights; looked up once for a whole reply."""
    return {}


def steps(descriptor: Descriptor, rights: Rights) -> Steps:
    """Return what to look at in a message: only what can hold an id or a classified value."""
    groups: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for field in descriptor.fields:
        found = _group(field, rights)
        if found[0]:
            groups.setdefault(found, ([], []))[0 if field.has_presence else 1].append(field.name)
    told = tuple((*key, tuple(present), tuple(filled)) for key, (present, filled) in groups.items())
    return Steps(told, tuple(_fields(descriptor)))


def _fields(descriptor: Descriptor) -> Iterator[tuple[str, Kind]]:
    for field in descriptor.fields:
        if value_type(field) is not None:
            if _matters(field, frozenset()):
                is_map = field.message_type.GetOptions().map_entry
                yield field.name, "map" if is_map else "many" if field.is_repeated else "one"
        elif field.type == FieldDescriptor.TYPE_STRING and PROFILE_FIELD.search(field.name):
            yield field.name, "profile"
        elif field.type == FieldDescriptor.TYPE_STRING and field.name in NAME_FIELDS:
            yield field.name, "name"


def _group(field: FieldDescriptor, rights: Rights) -> tuple[str, str]:
    """Return the group of a field and what became of it; nothing for what is hidden or no personal data."""
    found = data_class(field)
    name = CLASSES.get(found.classification, "") if found is not None else ""
    own = field.GetOptions().HasExtension(options.data)
    if found is None or not name or (value_type(field) is not None and not own):
        return "", ""
    right = rights.disposition(name, found.group)
    return (f"{name}/{found.group}", right) if right in (SHOW, MASK) else ("", "")


def _matters(field: FieldDescriptor, above: frozenset[str]) -> bool:
    """Tell whether a message can hold an id of a profile or a classified value, however deep."""
    kind = value_type(field)
    if kind is None:
        found = data_class(field)
        is_text = field.type == FieldDescriptor.TYPE_STRING
        named = is_text and bool(PROFILE_FIELD.search(field.name) or field.name in NAME_FIELDS)
        return named or (found is not None and found.classification in CLASSES)
    if kind.full_name in above:
        return False
    return any(_matters(inner, above | {kind.full_name}) for inner in kind.fields)
