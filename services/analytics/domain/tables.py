"""The tables of the lake: their columns, what makes a row one, which row wins. No direct identifier in any."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import Final, Literal

CHINA: Final = timezone(timedelta(hours=8), "CST")
Kind = Literal["string", "int64", "int32", "bool", "timestamp"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table: rows of equal `key` are one thing; `order` says which state of it is newer.

    Without `order` the table is a log: a row whose key is there already is dropped. With it the table is a state:
    a row not newer than the one that is there is dropped. `partition` is a string column the files are laid out by.
    `added` are columns that files of earlier releases do not have: NULL in their rows.
    """

    name: str
    columns: dict[str, Kind]
    key: tuple[str, ...]
    order: str = ""
    partition: str = ""
    sort: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


INTERACTIONS: Final = Table(
    name="interactions",
    columns={
        "message_id": "string",
        "profile_id": "string",
        "event_type": "string",
        "event_time": "timestamp",
        "amount_cents": "int64",
        "channel": "string",
        "category": "string",
        "basket_id": "string",
        "product_id": "string",
        "quantity": "int32",
        "record": "string",  # keyed token of the source record, NULL when not known
        "month": "string",  # YYYY-MM of event_time in UTC
    },
    key=("message_id",),
    partition="month",
    sort=("profile_id", "event_time"),
    added=("record",),
)
# States carry the partition `part`: "recent" rows, one or more per key, are later than the one "base" row.
PROFILES: Final = Table(
    name="profiles",
    columns={
        "profile_id": "string",
        "version": "int64",
        "deleted": "bool",
        "merged_into": "string",
        "province_code": "string",
        "city_code": "string",
        "district_code": "string",
        "gender": "string",
        "birth_year": "int32",
        "tier": "string",
        "owner_department": "string",
        "event_time": "timestamp",
        "stage": "string",
        "part": "string",
    },
    key=("profile_id",),
    order="version",
    partition="part",
    sort=("profile_id",),
    added=("stage",),
)
ALIASES: Final = Table(
    name="aliases",
    columns={
        "profile_id": "string",
        "survivor_id": "string",
        "event_time": "timestamp",
        "version": "int64",  # of the profile whose id it is: its merges and splits in their order
        "part": "string",
    },
    key=("profile_id",),
    order="version",
    partition="part",
    sort=("profile_id",),
    added=("version",),
)
# Source records of split profiles, by keyed token, with the profile they went to or stayed with. Few: only splits
# make rows.
MOVED: Final = Table(
    name="moved_records",
    columns={"record": "string", "profile_id": "string", "event_time": "timestamp", "part": "string"},
    key=("record",),
    order="event_time",
    partition="part",
    sort=("record",),
)
CONSENTS: Final = Table(
    name="consents",
    columns={
        "profile_id": "string",
        "purpose_id": "string",
        "channel": "string",
        "state": "string",
        "version": "int64",
        "event_time": "timestamp",
        "part": "string",
    },
    key=("profile_id", "purpose_id", "channel"),
    order="version",  # of the profile's consents: clocks of processes differ
    partition="part",
    sort=("profile_id",),
)
DELIVERIES: Final = Table(
    name="deliveries",
    columns={
        "campaign_id": "string",
        "run_id": "string",
        "profile_id": "string",
        "channel": "string",
        "outcome": "string",
        "skip_reason": "string",
        "version": "int64",
        "event_time": "timestamp",
        "part": "string",
    },
    key=("run_id", "profile_id"),
    order="version",
    partition="part",
    sort=("run_id", "profile_id"),
)
SCORES: Final = Table(
    name="scores",
    columns={
        "profile_id": "string",
        "rfm_recency": "int32",
        "rfm_frequency": "int32",
        "rfm_monetary": "int32",
        "rfm_segment": "string",
        "recency_days": "int32",
        "baskets": "int64",
        "monetary_cents": "int64",
        "definition_version": "string",
        "data_cutoff": "timestamp",
        "tenure_days": "int32",
    },
    key=("profile_id",),
    sort=("profile_id",),
    added=("tenure_days",),
)
# Scores of profiles that were merged or split since the last computation; a NULL segment: it has none any more.
RESCORED: Final = Table(
    name="rescored",
    columns={**SCORES.columns, "event_time": "timestamp", "part": "string"},
    key=("profile_id",),
    order="event_time",
    partition="part",
    sort=("profile_id",),
    added=("tenure_days",),
)
APART: Final = Table(
    name="interactions_apart",
    columns={
        "operation": "string",
        "row_number": "int64",
        "reason": "string",
        "event_time": "timestamp",
    },
    key=("operation", "row_number"),
)
# Ids of erased people: rows of theirs that come later are removed again.
ERASED: Final = Table(
    name="erased",
    columns={"profile_id": "string", "event_time": "timestamp"},
    key=("profile_id",),
)
_ALL: Final = (INTERACTIONS, PROFILES, ALIASES, MOVED, CONSENTS, DELIVERIES, SCORES, RESCORED, APART, ERASED)
TABLES: Final = {table.name: table for table in _ALL}
