"""What the rest of access asks of its stores; every implementation passes tests/access/test_store.py."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from services.access.domain.checkpoints import Checkpoint
from services.access.domain.policies import Heading, Policy
from services.access.domain.principals import Principal
from services.access.domain.tokens import Revocation
from services.access.domain.trail import Block
from services.access.store.shadows import ShadowTotals
from services.chassis.access.shadow import ShadowCounts, ShadowKey
from services.chassis.paging import Seen


class Principals(Protocol):
    """People and apps."""

    def insert(self, principal: Principal, request_id: str = "") -> Principal:
        """Add one and return it as stored; PrincipalExists when the id is taken."""

    def get(self, principal_id: str) -> Principal | None:
        """Return one by id."""

    def by_handle(self, user_handle: str) -> Principal | None:
        """Return one by what its passkeys know it by; nobody by the empty one."""

    def made_by(self, request_id: str, principal_id: str) -> bool:
        """Tell whether this request created this principal."""

    def save(self, principal: Principal) -> Principal:
        """Write the state if nobody changed it since it was read, else Conflict."""

    def page(self, after: str, limit: int, department: str, locked_at: datetime | None = None) -> list[Principal]:
        """Return up to `limit` with ids after `after`, by id; an empty department means all.

        With `locked_at` only those who have to wait at that time.

        One-time secrets may be left out: never save what a list returned.
        """

    def changed_since(self, when: datetime) -> list[Principal]:
        """Return all changed at or after a time, in no order; one-time secrets may be left out."""


class Revocations(Protocol):
    """Revoked tokens and subjects."""

    def add(self, revocation: Revocation) -> None:
        """Add or renew one."""

    def unexpired(self, now: datetime) -> list[Revocation]:
        """Return all that a living token could still meet."""


class Policies(Protocol):
    """Revisions of the policy; no two carry the same number."""

    def insert(self, policy: Policy, request_id: str = "") -> Policy:
        """Add one and return it as stored; AlreadyExists when id or number is taken."""

    def get(self, policy_id: str) -> Policy | None:
        """Return one by id."""

    def save(self, policy: Policy) -> Policy:
        """Write a new state if nobody changed it, else Conflict; AlreadyExists when the number is taken."""

    def page(self, before: Seen | None, limit: int) -> list[Heading]:
        """Return up to `limit`, the newest first; `before` is the last one seen."""

    def newest_after(self, number: int) -> Policy | None:
        """Return the published one with the highest number above this one."""

    def numbered(self, number: int) -> Policy | None:
        """Return the published one of a number."""


class Blocks(Protocol):
    """The audit chain."""

    def append(self, block: Block) -> None:
        """Add a block; AlreadyExists when its sequence or its batch id is taken."""

    def by_batch(self, batch_id: str) -> Block | None:
        """Return the block of a batch."""

    def get(self, sequence: int) -> Block | None:
        """Return one by sequence."""

    def ascending(self, first: int) -> Iterator[Block]:
        """Walk all blocks from a sequence on, in order, holes left out."""

    def descending(self, last: int, limit: int) -> list[Block]:
        """Return up to `limit` blocks from a sequence downwards."""

    def found(self, term: str, since: datetime, until: datetime, limit: int) -> list[tuple[datetime, int]]:
        """Return time and sequence of up to `limit` blocks with a term in a period, its end excluded, newest first."""

    def remove(self, last: int) -> None:
        """Remove the blocks up to a sequence, that one included."""


class Checkpoints(Protocol):
    """Signed checkpoints, numbered from 1; none is ever changed or removed."""

    def append(self, checkpoint: Checkpoint) -> None:
        """Add one; AlreadyExists when its number is taken."""

    def get(self, number: int) -> Checkpoint | None:
        """Return one."""

    def last(self) -> Checkpoint | None:
        """Return the one with the highest number."""

    def covering(self, first: int, last: int) -> list[Checkpoint]:
        """Return those that end with a block from one sequence to another, both included, in order."""

    def ascending(self, first: int) -> Iterator[Checkpoint]:
        """Walk them in order, holes left out."""


class Shadows(Protocol):
    """Which candidate is decided alongside, and what was counted."""

    def current(self) -> str:
        """Return the id of the candidate, empty for none."""

    def set(self, policy_id: str) -> None:
        """Take a candidate, or none; counts of earlier ones stay."""

    def add(self, policy_id: str, counts: ShadowCounts) -> None:
        """Add what one process counted; different differences beyond 10,000 are in the sums only."""

    def totals(self, policy_id: str) -> ShadowTotals:
        """Return the sums."""

    def page(self, policy_id: str, after: str, limit: int) -> list[tuple[str, ShadowKey, int]]:
        """Return up to `limit` differences with their counts, by place, those after a place."""
