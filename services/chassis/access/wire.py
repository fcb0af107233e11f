"""Snapshots and audit batches as messages of the access service: what every other process sends and receives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import grpc
from kehu.access.v1 import access_pb2 as pb

from services.chassis.access.snapshot import PolicySnapshot
from services.chassis.access.values import Revocations, RowFilter
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


def snapshot_fetcher(stub: AccessStub) -> Callable[[PolicySnapshot | None], PolicySnapshot | None]:
    """Return the `fetch` of a SnapshotPoller that asks the access service."""

    def fetch(known: PolicySnapshot | None) -> PolicySnapshot | None:
        return updated(known, stub.GetPolicySnapshot(request_for(known), timeout=SNAPSHOT_TIMEOUT_SECONDS))

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
    """Return the request for what is newer than `known`."""
    if known is None:
        return pb.GetPolicySnapshotRequest()
    return pb.GetPolicySnapshotRequest(rules_version=known.rules_version, revocations_version=known.revocations.version)


def updated(known: PolicySnapshot | None, reply: pb.GetPolicySnapshotResponse) -> PolicySnapshot | None:
    """Return the snapshot that `known` becomes by this reply; None when nothing is new.

    Raises:
        Invalid: the rules of the reply do not compile.
    """
    keys = {key.kid: key.x for key in reply.keys}
    revocations = known.revocations if known else Revocations()
    if reply.HasField("revocations"):
        revocations = _revocations(reply.revocations)
    if reply.HasField("rules"):
        return _compiled(reply.rules, keys, revocations)
    if known is None or (known.keys == keys and not reply.HasField("revocations")):
        return None
    return known.with_revocations(revocations, keys)


def _compiled(rules: pb.RuleSet, keys: Mapping[str, str], revocations: Revocations) -> PolicySnapshot:
    return PolicySnapshot(
        rules.policy_version,
        rules.model,
        (row.values for row in rules.rules),
        (row.values for row in rules.role_links),
        [RowFilter(f.subject, f.department, f.resource, f.field, tuple(f.values)) for f in rules.row_filters],
        keys,
        revocations,
        rules.rules_version,
    )


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
