"""Snapshots and audit batches as messages of the access service: what every other process sends and receives."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import grpc
from kehu.access.v1 import access_pb2 as pb

from services.chassis.access.roles import Pause, Row, in_slices, no_pause
from services.chassis.access.rules import LINK_WORDS, RULE_WORDS
from services.chassis.access.snapshot import PolicySnapshot, breathe
from services.chassis.access.values import Revocations, RowFilter
from services.chassis.access.wire_conditions import condition_of, organization_of
from services.chassis.access.wire_quotas import quota_of
from services.chassis.audit import TEXTS, AuditEntry, Batch
from services.chassis.errors import Invalid

REFUSALS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
SNAPSHOT_TIMEOUT_SECONDS = 5.0
AUDIT_TIMEOUT_SECONDS = 10.0


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from walking through what is built here, now and later.

    Walking through 100,000 rules holds up every thread for a tenth of a second. A snapshot has no cycles: it goes
    when nobody holds it any more.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


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
    """Return the request for what is newer than `known`."""
    if known is None:
        return pb.GetPolicySnapshotRequest()
    return pb.GetPolicySnapshotRequest(rules_version=known.rules_version, revocations_version=known.revocations.version)


def updated(
    known: PolicySnapshot | None, reply: pb.GetPolicySnapshotResponse, pause: Pause = no_pause
) -> PolicySnapshot | None:
    """Return the snapshot that `known` becomes by this reply; None when nothing is new.

    Raises:
        Invalid: the rules of the reply do not compile.
    """
    keys = {key.kid: key.x for key in reply.keys}
    revocations = known.revocations if known else Revocations()
    if reply.HasField("revocations"):
        revocations = _revocations(reply.revocations)
    if reply.HasField("rules"):
        with uncollected():
            return _compiled(reply.rules, keys, revocations, pause, known.rules.rows if known else ())
    if known is None or (known.keys == keys and not reply.HasField("revocations")):
        return None
    return known.with_revocations(revocations, keys)


def _compiled(
    rules: pb.RuleSet, keys: Mapping[str, str], revocations: Revocations, pause: Pause, former: Sequence[Row]
) -> PolicySnapshot:
    """Compile rules; the words and the rows that the former ones have too are held once, not twice."""
    words = [sys.intern(word) for word in in_slices(rules.words, pause)]
    return PolicySnapshot(
        rules.policy_version,
        rules.model,
        _rows(words, rules.rule_words, RULE_WORDS, in_slices(former, pause)),
        _rows(words, rules.link_words, LINK_WORDS),
        [RowFilter(f.subject, f.department, f.resource, f.field, tuple(f.values)) for f in rules.row_filters],
        keys,
        revocations,
        rules.rules_version,
        conditions=[condition_of(message) for message in rules.conditions],
        organization=organization_of(rules.departments, rules.teams),
        quotas=tuple(quota_of(quota) for quota in rules.quotas),
        pause=pause,
    )


def coded(rows: Iterable[Row], width: int, known: dict[str, int]) -> list[int]:
    """Return rows as numbers of words, `width` each, 0 for a field that a row has not; adds new words to `known`."""
    numbers: list[int] = []
    for row in rows:
        numbers += [known.setdefault(word, len(known)) for word in row]
        numbers += [0] * (width - len(row))
    return numbers


def _rows(words: list[str], numbers: Iterable[int], width: int, former: Iterable[Row] = ()) -> Iterator[Row]:
    """Yield the rows that `coded` wrote, those of `former` themselves where they are equal.

    Raises:
        Invalid: a number has no word, or the last row is short.
    """
    held = {row: row for row in former}
    try:
        for numbered in zip(*[iter(numbers)] * width, strict=True):
            row = tuple([words[number] for number in numbered if number])
            yield held.get(row, row)
    except (IndexError, ValueError):
        raise Invalid("the rules of the snapshot are damaged") from None


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
