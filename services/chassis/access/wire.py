"""Snapshots and audit batches as messages of the access service: what every other process sends and receives."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import grpc
import orjson
from kehu.access.v1 import access_pb2 as pb

from services.chassis.access.holder import RulesRefused
from services.chassis.access.shares import NO_SHARES
from services.chassis.access.snapshot import PolicySnapshot, breathe
from services.chassis.access.tables import Pause, Table, as_bytes, from_bytes, no_pause
from services.chassis.access.values import Revocations, RowFilter
from services.chassis.access.wire_conditions import condition_of, organization_of
from services.chassis.access.wire_quotas import quota_of
from services.chassis.access.wire_shares import shares_of
from services.chassis.audit import TEXTS, AuditEntry, Batch
from services.chassis.errors import Invalid

REFUSALS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
SNAPSHOT_TIMEOUT_SECONDS = 5.0
AUDIT_TIMEOUT_SECONDS = 10.0


class AccessStub(Protocol):
    """The two methods of the access service that every process calls."""

    def GetPolicySnapshot(
        self, request: pb.GetPolicySnapshotRequest, *, timeout: float
    ) -> pb.GetPolicySnapshotResponse:
        """Return what is newer than the snapshot held."""

    def WriteAuditEntries(
        self, request: pb.WriteAuditEntriesRequest, *, timeout: float
    ) -> pb.WriteAuditEntriesResponse:
        """Append a batch."""


def snapshot_fetcher(
    stub: AccessStub, pause: Pause = breathe
) -> Callable[[PolicySnapshot | None], PolicySnapshot | None]:
    """Return the `fetch` of a SnapshotPoller that asks the access service."""

    def fetch(known: PolicySnapshot | None) -> PolicySnapshot | None:
        reply = stub.GetPolicySnapshot(request_for(known), timeout=SNAPSHOT_TIMEOUT_SECONDS)
        return updated(known, reply, pause if known else no_pause)

    return fetch


def batch_writer(stub: AccessStub) -> Callable[[Batch], None]:
    """Return the `write_entries` of a Shipper that sends to the access service."""

    def write(batch: Batch) -> None:
        try:
            stub.WriteAuditEntries(batch_message(batch), timeout=AUDIT_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() in REFUSALS:
                raise Invalid("access refuses the audit batch") from error
            raise

    return write


def request_for(known: PolicySnapshot | None) -> pb.GetPolicySnapshotRequest:
    """Return the request for what is newer than `known`; tables it has need not be sent again."""
    if known is None:
        return pb.GetPolicySnapshotRequest()
    rules, links = known.tables
    return pb.GetPolicySnapshotRequest(
        rules_version=known.rules_version,
        revocations_version=known.revocations.version,
        rules_digest=rules.digest,
        links_digest=links.digest,
        shares_version=known.shares.version,
    )


def updated(
    known: PolicySnapshot | None, reply: pb.GetPolicySnapshotResponse, pause: Pause = no_pause
) -> PolicySnapshot | None:
    """Return the snapshot that `known` becomes by this reply; None when nothing is new.

    Raises:
        RulesRefused: newer rules are damaged, do not compile or cannot be sent; what else is new is in it.
    """
    keys = {key.kid: key.x for key in reply.keys}
    revocations = known.revocations if known else Revocations()
    if reply.HasField("revocations"):
        revocations = _revocations(reply.revocations)
    shares = known.shares if known else NO_SHARES
    if reply.HasField("shares"):
        shares = shares_of(reply.shares)
    kept = None
    if known and (known.keys != keys or reply.HasField("revocations") or reply.HasField("shares")):
        kept = known.with_revocations(revocations, keys).with_shares(shares)
    if reply.rules_withheld:
        raise RulesRefused("access cannot send the newest rules", kept)
    if not reply.HasField("rule_set"):
        return kept
    try:
        return _compiled(reply.rule_set, keys, revocations, pause, known).with_shares(shares)
    except Invalid as error:
        raise RulesRefused(error.message, kept) from error


def _compiled(
    rules: pb.RuleSet, keys: Mapping[str, str], revocations: Revocations, pause: Pause, known: PolicySnapshot | None
) -> PolicySnapshot:
    held = known.tables if known else (None, None)
    return PolicySnapshot(
        rules.policy_version,
        rules.model,
        table_of(rules.rule_table, held[0], pause),
        table_of(rules.link_table, held[1], pause),
        [RowFilter(f.subject, f.department, f.resource, f.field, tuple(f.values)) for f in rules.row_filters],
        keys,
        revocations,
        rules.rules_version,
        conditions=[condition_of(message) for message in rules.conditions],
        organization=organization_of(rules.departments, rules.teams),
        quotas=tuple(quota_of(quota) for quota in rules.quotas),
        pause=pause,
    )


def table_message(table: Table) -> pb.WordTable:
    """Return the message of a table."""
    columns = [zlib.compress(as_bytes(column), 1) for column in (*table.columns, table.positions)]
    words = zlib.compress(orjson.dumps(table.words), 1)
    return pb.WordTable(digest=table.digest, words=words, columns=columns, order=table.order)


def table_of(message: pb.WordTable, held: Table | None = None, pause: Pause = no_pause) -> Table:
    """Return the table of a message, or the one held when it is the same.

    Raises:
        Invalid: it is not the table that was made.
    """
    if held is not None and message.digest == held.digest:
        return held
    try:
        columns = []
        for packed in message.columns:
            pause()
            columns.append(from_bytes(zlib.decompress(packed)))
        words = orjson.loads(zlib.decompress(message.words))
        table = Table(words, columns[:-1], columns[-1], tuple(message.order), pause)
    except (IndexError, TypeError, ValueError, zlib.error):
        raise Invalid("the rules of the snapshot are damaged") from None
    if table.digest != message.digest:
        raise Invalid("the rules of the snapshot are not those that were published")
    return table


def _revocations(found: pb.RevocationSet) -> Revocations:
    return Revocations(frozenset(found.token_ids), dict(found.subjects), found.revocations_version)


def batch_message(batch: Batch) -> pb.WriteAuditEntriesRequest:
    """Return the message of a batch."""
    return pb.WriteAuditEntriesRequest(
        batch_id=batch.batch_id, entries=[entry_message(entry) for entry in batch.entries]
    )


def entry_message(entry: AuditEntry) -> pb.AuditEntry:
    """Return the message of an entry."""
    return pb.AuditEntry(
        policy_version=entry.policy_version,
        profiles=entry.profiles,
        shown_groups=entry.shown,
        masked_groups=entry.masked,
        **{name: getattr(entry, name) for name in TEXTS},
    )


def entry_of(message: pb.AuditEntry) -> AuditEntry:
    """Return the entry of a message."""
    return AuditEntry(
        policy_version=message.policy_version,
        profiles=tuple(message.profiles),
        shown=tuple(message.shown_groups),
        masked=tuple(message.masked_groups),
        **{name: getattr(message, name) for name in TEXTS},
    )
