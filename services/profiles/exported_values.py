"""What is stored of an export, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class StoredExport:
    """An export; the file is an upload of `chunks` parts and `size` bytes, `canary` the id in it that is nobody's.

    `shown` and `masked` are the field groups of which the file has a value; `state` is ready, withdrawn because a
    person in it was erased, or expired.
    """

    id: str
    recipient: str
    department: str
    purpose: str
    format: str
    rows: int
    chunks: int
    size: int
    canary: str
    expire_time: datetime
    shown: Sequence[str] = ()
    masked: Sequence[str] = ()
    state: str = "ready"
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredExportPart:
    """Ids of profiles in an export, in order; its own id says after the export's which is the last."""

    id: str
    export: str
    members: Sequence[str]
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None
