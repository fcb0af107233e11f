"""Rows that were set apart: made once however often they come, closed when a later row brings their record."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import orjson

from services.chassis.errors import Conflict
from services.profiles.folding import Outcome
from services.profiles.store import Store
from services.profiles.values import Reject, record_key
from services.profiles.vault import Vault

ATTEMPTS_KEPT = 50  # RejectAttempt documents this maximum
FEW = 32  # records whose rejects are asked for in one query
CHANGED = frozenset((Outcome.CREATED, Outcome.UPDATED))


@dataclass(frozen=True, slots=True)
class Admitted:
    """What became of one entry."""

    source_record_id: str
    outcome: Outcome
    profile_id: str = ""
    reject_id: str = ""
    reasons: Sequence[tuple[str, str]] = ()
    is_deletion: bool = False
    warnings: Sequence[tuple[str, str]] = ()
    is_clean: bool = False  # no row of its record was set apart before: see Taken


class Rejects:
    """Makes and closes set-apart rows."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def make(
        self,
        source_id: str,
        operation: str,
        number: int,
        content: Mapping[str, object],
        reasons: Sequence[tuple[str, str]],
    ) -> Reject:
        """Return the set-apart row: of the same row of the same source the same one, so a file again adds none."""
        plain = orjson.dumps(content)
        reject_id = self._vault.reject_token("reject", f"{source_id}\0{number}\0{plain.decode()}")
        record_id = str(content["id"])
        return Reject(
            reject_id, source_id, operation, number, [list(item) for item in reasons],
            self._vault.uploads.seal(plain, f"rejects/{reject_id}".encode()),
            record=self._token(source_id, record_id) if record_id else "",
        )  # fmt: skip

    def _token(self, source_id: str, record_id: str) -> str:
        return self._vault.record_reject_token(record_key(source_id, record_id))

    def close(self, source_id: str, operation: str, admitted: Mapping[int, Admitted], own: Collection[str]) -> None:
        """Close the rows whose records these entries, by number, brought in good order; never one that came later.

        `own` are the rows set apart beside these entries.
        """
        brought = {
            item.source_record_id: number
            for number, item in admitted.items()
            if item.outcome in CHANGED and (own or not item.is_clean)
        }
        if not brought or (len(brought) > FEW and not self._has_open(source_id)):
            return
        numbers = {self._token(source_id, record_id): number for record_id, number in brought.items()}
        for reject in self._store.rejects.among("record", list(numbers)):
            number = numbers[reject.record]
            is_beside = reject.id in own or (operation and reject.operation == operation)
            if reject.state == "open" and not (is_beside and reject.row_number > number):
                self._settle(reject, "corrected", attempt("", operation, number))

    def _has_open(self, source_id: str) -> bool:
        return bool(self._store.rejects.page({"source_id": source_id, "state": "open"}, "", 1))

    def _settle(self, reject: Reject, state: str, entry: Sequence[object]) -> None:
        try:
            self._store.rejects.replace(tried(replace(reject, state=state), entry))
        except Conflict:
            return  # somebody else closed it


def attempt(
    subject: str, operation: str = "", number: int = 0, columns: Collection[str] = (), reasons: Collection[str] = ()
) -> list[object]:
    """Return the entry of a try to take a row in, now."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return [now, subject, operation, number, sorted(columns), sorted(reasons)]


def tried(reject: Reject, entry: Sequence[object]) -> Reject:
    """Return the row with one more try."""
    return replace(reject, attempts=[*reject.attempts, entry][-ATTEMPTS_KEPT:])
