"""Evaluate audiences: once per rule and data version, then page through the result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from kehu.analytics.v1 import audience_pb2

from services.analytics.domain.audience import compile_audience
from services.analytics.domain.errors import StalePageToken
from services.analytics.domain.tables import SCORES
from services.analytics.engine import Params
from services.analytics.warehouse import Pinned, Warehouse

PAGE_LIMIT: Final = 500
_GROUP_ROWS: Final = 20_480  # rows read to answer a page


@dataclass(frozen=True, slots=True)
class AudiencePage:
    """Some ids of an audience, its size, and whether more follow."""

    profile_ids: tuple[str, ...]
    total: int
    next_offset: int  # 0 at the end


class Audiences:
    """Audiences over the warehouse; results are files beside the tables, named by rule and data version."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def pin(self, versions: Mapping[str, int] | None = None) -> Pinned:
        """Fix the data an evaluation sees."""
        return self._warehouse.pin([SCORES], versions)

    def count(self, rule: audience_pb2.AudienceRule, pinned: Pinned) -> int:
        """Return the size of an audience."""
        path = self._warehouse.derived.find(_name(rule, pinned))
        if path is not None:
            with _opened(path) as file:
                return int(file.metadata.num_rows)
        statement, params = self.statement(rule, pinned)
        (row,) = self._warehouse.engine.rows(f"SELECT count(*) FROM ({statement})", params)
        return int(str(row[0]))

    def page(self, rule: audience_pb2.AudienceRule, pinned: Pinned, offset: int, page_size: int) -> AudiencePage:
        """Return ids by rising id from an offset; cost grows with the page once the audience is evaluated.

        Raises:
            StalePageToken: an erasure deleted the evaluated audience at this moment.
        """
        path = self._warehouse.derived.file(_name(rule, pinned), lambda draft: self._evaluate(rule, pinned, draft))
        with _opened(path) as file:
            total = int(file.metadata.num_rows)
            ids = _slice(file, offset, min(page_size, total - offset)) if offset < total else []
        end = offset + len(ids)
        return AudiencePage(tuple(ids), total, end if end < total else 0)

    def _evaluate(self, rule: audience_pb2.AudienceRule, pinned: Pinned, draft: Path) -> None:
        statement, params = self.statement(rule, pinned)
        self._warehouse.engine.copy(f"{statement} ORDER BY p.profile_id", params, draft, _GROUP_ROWS)

    def statement(self, rule: audience_pb2.AudienceRule, pinned: Pinned) -> tuple[str, Params]:
        """Return the one statement of a rule over a data version, with its parameters."""
        query = compile_audience(rule, pinned.cutoff, has_aliases=pinned.has_aliases)
        return self._warehouse.statement(pinned, sorted(query.tables), query.sql, query.params, query.since)


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise StalePageToken("the data of this audience changed; start again") from error


def _name(rule: audience_pb2.AudienceRule, pinned: Pinned) -> str:
    versions = "".join(f"/{name}={version}" for name, version in sorted(pinned.versions.items()))
    return f"audience-{hashlib.sha256((rule_digest(rule) + versions).encode()).hexdigest()}"


def rule_digest(rule: audience_pb2.AudienceRule) -> str:
    """Return a digest that is equal for equal rules."""
    return hashlib.sha256(rule.SerializeToString(deterministic=True)).hexdigest()


def _slice(file: pq.ParquetFile, offset: int, count: int) -> list[str]:
    """Read `count` ids from `offset`, touching only the row groups that hold them."""
    ids: list[str] = []
    start = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        low, high = max(offset, start), min(offset + count, start + rows)
        if low < high:
            column = file.read_row_group(group, columns=["profile_id"]).column(0)
            ids += column.slice(low - start, high - low).to_pylist()
        start += rows
    return ids
