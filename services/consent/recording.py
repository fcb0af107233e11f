"""Append consent records by compare-and-set, and acknowledge withdrawals only when they hold everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from kehu.consent.v1 import events_pb2

from services.chassis.errors import Conflict, KehuError
from services.consent.domain.decision import USE_WITHIN_SECONDS
from services.consent.domain.errors import NoticeNotFound, PurposeNotFound
from services.consent.domain.records import (
    ConsentRecord,
    ConsentState,
    ProfileConsents,
    accepted,
    after_what_stands,
    append,
    changed,
)
from services.consent.domain.registry import LegalBasis, Notice, Purpose
from services.consent.store import ConsentStore, consents_for

TRIES = 8  # a profile is rarely written twice at once; a batch and a merge may meet


@dataclass(frozen=True, slots=True)
class Wish:
    """A record somebody wants appended to a profile; `is_of_now` when it was answered this moment."""

    profile_id: str
    record: ConsentRecord
    is_of_now: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """The record that now answers a wish, and the profile that holds it."""

    profile_id: str
    record: ConsentRecord


Outcome = Kept | KehuError


class Recorder:
    """Takes wishes; `settle` waits that many seconds before a withdrawal is acknowledged."""

    def __init__(self, store: ConsentStore, settle: Callable[[float], None]) -> None:
        self._store = store
        self._settle = settle

    def record(self, wish: Wish, now: datetime) -> Kept:
        """Append one record.

        Raises:
            KehuError: it was refused.
        """
        (outcome,) = self.record_many([wish], now)
        if isinstance(outcome, KehuError):
            raise outcome
        return outcome

    def record_many(self, wishes: Sequence[Wish], now: datetime) -> list[Outcome]:
        """Append records, each profile's at once, and return what became of each, in order."""
        outcomes: dict[int, Outcome] = {}
        checked: dict[int, Wish] = {}
        terms = self._terms({wish.record.purpose_id for wish in wishes})
        for index, wish in enumerate(wishes):
            try:
                purpose, notice = self._terms_of(terms, wish.record)
                checked[index] = replace(wish, record=accepted(wish.record, purpose, notice, now))
            except KehuError as error:
                outcomes[index] = error
        lawful = frozenset(name for name, (held, _) in terms.items() if held.legal_basis is not LegalBasis.CONSENT)
        withdrew = self._write(checked, outcomes, lawful)
        if withdrew:
            self._settle(USE_WITHIN_SECONDS)
        return [outcomes[index] for index in range(len(wishes))]

    def _terms(self, purpose_ids: set[str]) -> dict[str, tuple[Purpose, Notice | None]]:
        found = {}
        for purpose_id in purpose_ids:
            purpose = self._store.purpose(purpose_id)
            if purpose is not None:
                found[purpose_id] = (purpose, self._store.notice(purpose.notice_id) if purpose.notice_id else None)
        return found

    def _terms_of(
        self, terms: dict[str, tuple[Purpose, Notice | None]], record: ConsentRecord
    ) -> tuple[Purpose, Notice | None]:
        if record.purpose_id not in terms:
            raise PurposeNotFound(record.purpose_id)
        purpose, notice = terms[record.purpose_id]
        if purpose.notice_id and notice is None and record.state is ConsentState.GRANTED:
            raise NoticeNotFound(purpose.notice_id)
        return purpose, notice

    def _write(self, wishes: dict[int, Wish], outcomes: dict[int, Outcome], lawful: frozenset[str]) -> bool:
        """Write until no profile lost the race; say whether somebody withdrew what had been granted.

        `lawful` are the purposes that need no grant: a refusal withdraws there what the law allows.
        """
        withdrew = False
        waiting = dict(wishes)
        for _ in range(TRIES):
            if not waiting:
                return withdrew
            answering = consents_for(self._store, [wish.profile_id for wish in waiting.values()])
            split = self._split_meanwhile(answering)
            batch = _Batch(lawful)
            for index, wish in waiting.items():
                if wish.profile_id not in split:
                    batch.add(index, answering[wish.profile_id], wish)
            lost = set(self._store.save_consents(batch.changes()))
            outcomes |= batch.outcomes_without(lost)
            withdrew = withdrew or batch.withdrew
            again = {index for index, wish in waiting.items() if wish.profile_id in split}
            waiting = {index: waiting[index] for index in (*batch.indexes_of(lost), *again)}
        raise Conflict("the profile's consents are being changed by others: try again")

    def _split_meanwhile(self, answering: Mapping[str, ProfileConsents]) -> set[str]:
        """Return ids that were aliases when read and answer for themselves now: their survivor is too new to tell."""
        aliases = [profile_id for profile_id, consents in answering.items() if consents.profile_id != profile_id]
        found = self._store.consents(aliases) if aliases else {}
        return {profile_id for profile_id in aliases if profile_id in found and not found[profile_id].merged_into}


def _given_under(wish: Wish, answering: ProfileConsents) -> ConsentRecord:
    """Return the record with the id it was given under, where another answers for that."""
    if wish.profile_id == answering.profile_id:
        return wish.record
    return replace(wish.record, origin_profile_id=wish.profile_id)


class _Batch:
    """What one round of writing does to the profiles it touches."""

    def __init__(self, lawful: frozenset[str]) -> None:
        self.withdrew = False
        self._lawful = lawful
        self._consents: dict[str, ProfileConsents] = {}
        self._answered: dict[str, dict[tuple[str, str], ConsentRecord]] = {}
        self._held_by: dict[int, str] = {}
        self._outcomes: dict[int, Outcome] = {}

    def add(self, index: int, answering: ProfileConsents, wish: Wish) -> None:
        profile_id, record = answering.profile_id, _given_under(wish, answering)
        consents = self._consents.setdefault(profile_id, answering)
        self._held_by[index] = profile_id
        known = next((kept for kept in consents.records if kept.record_id == record.record_id), None)
        if known is not None:  # the same request came before
            self._outcomes[index] = Kept(profile_id, known)
            self._note_withdrawal(consents, known)
            return
        try:
            grown, kept, fact = append(consents, after_what_stands(consents, record) if wish.is_of_now else record)
        except KehuError as error:
            self._outcomes[index] = error
            return
        self._note_withdrawal(consents, kept)
        self._consents[profile_id] = grown
        self._outcomes[index] = Kept(profile_id, kept)
        if fact is not None:
            self._answered.setdefault(profile_id, {})[kept.purpose_id, kept.channel] = kept

    def _note_withdrawal(self, consents: ProfileConsents, record: ConsentRecord) -> None:
        granted = any(
            held.state is ConsentState.GRANTED and held.purpose_id == record.purpose_id for held in consents.records
        )
        could = granted or record.purpose_id in self._lawful
        self.withdrew = self.withdrew or (could and record.state is not ConsentState.GRANTED)

    def changes(self) -> list[tuple[ProfileConsents, Sequence[events_pb2.ConsentChanged]]]:
        """Return what is written of each profile; facts of one version tell what stands after all of its answers."""
        return [
            (self._consents[profile_id], [changed(self._consents[profile_id], record) for record in answered.values()])
            for profile_id, answered in self._answered.items()
        ]

    def outcomes_without(self, lost: set[str]) -> dict[int, Outcome]:
        return {index: self._outcomes[index] for index, held in self._held_by.items() if held not in lost}

    def indexes_of(self, lost: set[str]) -> list[int]:
        return [index for index, held in self._held_by.items() if held in lost]
