"""Changes of the data dictionary as values: what differs, what needs a second person, what a revision was."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.profiles.domain.dictionary import Survivorship
from services.profiles.values import Field

READ_BY_PEOPLE = ("display_name", "description", "owner_department", "update_rule")  # changed by anyone with the right
REVIEWED = (
    "format", "classification", "group", "mask", "survivorship", "retention_days", "permitted_purposes",
)  # fmt: skip
ATTRIBUTES = (*READ_BY_PEOPLE, *REVIEWED)
CHOSEN_WITH_ADDRESS = frozenset(("province_code", "city_code", "district_code"))
CREATE, UPDATE, DELETE = "create", "update", "delete"
DRAFT, APPLIED, REJECTED = "draft", "applied", "rejected"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A proposed change of a field's definition; `before` and `after` hold all attributes, or nothing at all.

    `effect` is a FieldEffect as JSON, empty until counted; `samples` are (kind, profile id, record key).
    """

    id: str
    field: str
    kind: str
    before: Mapping[str, object]
    after: Mapping[str, object]
    base_revision: int
    author: str
    reason: str
    state: str = DRAFT
    effect: str = ""
    samples: Sequence[Sequence[str]] = ()
    decided_by: str = ""
    decide_time: datetime | None = None
    decision_reason: str = ""
    revision: int = 0
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class FieldRevision:
    """What a definition was after one of its changes, kept once another took its place."""

    id: str
    field: str
    revision: int
    content: Mapping[str, object] = dataclasses.field(default_factory=dict)
    is_deleted: bool = False
    time: datetime | None = None
    author: str = ""
    approver: str = ""
    reason: str = ""
    change: str = ""
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


def revision_id(field_id: str, revision: int) -> str:
    """Return the id of a revision; those of one field sort by number."""
    return f"{field_id}/{revision:06d}"


def content_of(item: Field) -> dict[str, object]:
    """Return the attributes that people and changes set."""
    return {name: _plain(getattr(item, name)) for name in ATTRIBUTES}


def revision_of(item: Field) -> FieldRevision:
    """Return a definition as history keeps it."""
    return FieldRevision(
        revision_id(item.id, item.revision), item.id, item.revision, content_of(item), item.is_deleted,
        item.update_time, item.author, item.approver, item.reason, item.change,
    )  # fmt: skip


def differing(before: Field | FieldRevision | None, after: Field | FieldRevision | None) -> tuple[str, ...]:
    """Return the attributes that differ; a field that is not there is one with nothing set."""
    one, two = contents(before), contents(after)
    return tuple(name for name in ATTRIBUTES if one[name] != two[name])


def contents(item: Field | FieldRevision | None) -> Mapping[str, object]:
    """Return the attributes of a definition; of one that is not there, with nothing set."""
    if item is None or item.is_deleted:
        return content_of(Field(""))
    return content_of(item) if isinstance(item, Field) else {**content_of(Field("")), **item.content}


def reviewed(names: Sequence[str]) -> list[str]:
    """Return those attributes that only a reviewed change may set."""
    return [name for name in names if name in REVIEWED]


def with_content(item: Field, content: Mapping[str, object]) -> Field:
    """Return a definition that is there, with these attributes."""
    return dataclasses.replace(item, is_deleted=False, **content)  # type: ignore[arg-type]


def survivorship_of(item: Field | None) -> Survivorship:
    """Return how the field's value is chosen: the most trusted source's where nothing or nonsense is said."""
    word = item.survivorship if item is not None and not item.is_deleted else ""
    return Survivorship(word) if word in set(Survivorship) else Survivorship.MOST_TRUSTED


def changeable(item: Field) -> tuple[str, ...]:
    """Return the attributes that may change at all; of a built-in field the class is in the proto."""
    if not item.built_in:
        return ATTRIBUTES
    return READ_BY_PEOPLE if item.id in CHOSEN_WITH_ADDRESS else (*READ_BY_PEOPLE, "survivorship")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (tuple, list)) else value
