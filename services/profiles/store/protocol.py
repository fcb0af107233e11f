"""What a store of profiles can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from services.chassis.records import Fact
from services.profiles.definitions.proposals import FieldChange, FieldRevision
from services.profiles.domain.blocking import KEY_CANDIDATES_LIMIT
from services.profiles.domain.relations import RelationType
from services.profiles.domain.retention import RecordType
from services.profiles.exported_values import StoredExport, StoredExportPart
from services.profiles.quality.values import DayFigures, StoredQualityRule
from services.profiles.relations.values import HouseholdKey, RelationCode, StoredRelation
from services.profiles.store.incidents import Incidents
from services.profiles.store.shelf import Shelf
from services.profiles.training.values import ModelUse, StoredModel
from services.profiles.values import (
    Ageing,
    Erasure,
    Field,
    LeafPage,
    Pair,
    Profile,
    Reject,
    RevealCount,
    Source,
    StoredHold,
    StoredReceipt,
    StoredRecord,
    StoredRule,
    Unstaged,
)

Changes: TypeAlias = "Sequence[tuple[Profile, Sequence[Fact]]]"
NONE_COUNTED: Mapping[str, int] = {}
MAX_PER_TOKEN = KEY_CANDIDATES_LIMIT  # profiles that one blocking key may lead to


@dataclass(frozen=True, slots=True)
class Found:
    """What a few records need: living profiles, wrapped data keys of theirs, the number of batches written so far.

    `crowded` are the tokens asked for that lead to too many profiles.

    `held` are the keys of the records that carry a token, as of `Store.holders`; `set_apart` those of the tokens asked
    for by which open rejects know their record, None where that was not told.
    """

    profiles: list[Profile]
    data_keys: Mapping[str, bytes]
    rounds: int
    held: dict[str, set[str]] = field(default_factory=dict)
    set_apart: frozenset[str] | None = None
    crowded: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Writing:
    """All of a small batch: new data keys, questions, checks of merges, history, profiles with facts.

    `rounds` is what the look found.
    """

    data_keys: Mapping[str, bytes]
    pairs: Sequence[Pair]
    checks: Sequence[Pair]
    superseded: Sequence[tuple[StoredRecord, str]]
    was: Sequence[Profile]
    changes: Changes
    rounds: int


@dataclass(frozen=True, slots=True)
class Done:
    """Ids of the profiles that lost a race, how many questions were new, whether nobody else wrote since the look."""

    lost: list[str]
    new_pairs: int
    is_alone: bool


class Store(Protocol):
    """The profiles, their keys, their superseded records, uploads, incidents, and shelves of small values."""

    @property
    def sources(self) -> Shelf[Source]:
        """Return the sources."""

    @property
    def fields(self) -> Shelf[Field]:
        """Return the field definitions that were added or changed."""

    @property
    def field_changes(self) -> Shelf[FieldChange]:
        """Return the proposed changes of field definitions."""

    @property
    def field_revisions(self) -> Shelf[FieldRevision]:
        """Return what field definitions were."""

    @property
    def relation_types(self) -> Shelf[RelationType]:
        """Return the types of relationships that were registered."""

    @property
    def relations(self) -> Shelf[StoredRelation]:
        """Return the relationships."""

    @property
    def relation_codes(self) -> Shelf[RelationCode]:
        """Return the codes by which records refer to others."""

    @property
    def household_keys(self) -> Shelf[HouseholdKey]:
        """Return the records by their address to the room."""

    @property
    def rejects(self) -> Shelf[Reject]:
        """Return the set-apart rows."""

    @property
    def rules(self) -> Shelf[StoredRule]:
        """Return the validation rules."""

    @property
    def retention_rules(self) -> Shelf[StoredRule]:
        """Return the retention rules."""

    @property
    def lifecycles(self) -> Shelf[StoredRule]:
        """Return the rules of lifecycle stages."""

    @property
    def unstaged(self) -> Shelf[Unstaged]:
        """Return the profiles whose stage is to be looked at."""

    @property
    def reveals(self) -> Shelf[RevealCount]:
        """Return how many values who revealed on which day."""

    @property
    def exports(self) -> Shelf[StoredExport]:
        """Return the exports."""

    @property
    def export_parts(self) -> Shelf[StoredExportPart]:
        """Return who is in the exports."""

    @property
    def holds(self) -> Shelf[StoredHold]:
        """Return the legal holds."""

    @property
    def receipts(self) -> Shelf[StoredReceipt]:
        """Return the receipts of retention."""

    @property
    def leaves(self) -> Shelf[LeafPage]:
        """Return the leaf hashes behind the receipts."""

    @property
    def erasures(self) -> Shelf[Erasure]:
        """Return the erasure ledger, which is kept apart from all else: no backup of profiles holds it."""

    @property
    def pairs(self) -> Shelf[Pair]:
        """Return the match candidates."""

    @property
    def match_models(self) -> Shelf[StoredModel]:
        """Return the match models that were learnt."""

    @property
    def model_use(self) -> Shelf[ModelUse]:
        """Return which match model is in use."""

    @property
    def quality_rules(self) -> Shelf[StoredQualityRule]:
        """Return the quality rules."""

    @property
    def quality_figures(self) -> Shelf[DayFigures]:
        """Return the quality figures, by day and department."""

    @property
    def incidents(self) -> Incidents:
        """Return the quality incidents."""

    def profiles(self, profile_ids: Sequence[str]) -> dict[str, Profile]:
        """Return profiles by id, aliases as they are."""

    def by_record_keys(self, keys: Sequence[str]) -> list[Profile]:
        """Return the profiles that hold these source records, each once."""

    def by_tokens(self, tokens: Sequence[str]) -> list[Profile]:
        """Return the living profiles that carry any of these tokens, each once."""

    def near(self, tokens: Sequence[str]) -> tuple[list[Profile], frozenset[str]]:
        """Return the same, and those of the tokens that lead to too many, whose holders are not among them."""

    def holders(self, counted: Mapping[str, int]) -> dict[str, set[str]]:
        """Return the keys of the records that carry these tokens: of each as many as it is given with, or all."""

    def look(
        self,
        keys: Sequence[str],
        tokens: Sequence[str],
        counted: Mapping[str, int] = NONE_COUNTED,
        reject_tokens: Sequence[str] = (),
    ) -> Found:
        """Return what `by_record_keys`, `near`, `data_keys`, `rounds` and `holders` do, in one query if it can.

        `reject_tokens` are those of the records, as rejects hold them.
        """

    def write_at_once(self, writing: Writing) -> Done | None:
        """Write a small batch durably in one command and count it as one.

        None when something was in the way: then what is written is what a crash would leave, and the caller goes the
        long way, by the methods below.
        """

    def shared_tokens(self, held: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of (token, id of a living profile) whose token another living profile carries too."""

    def write_profiles(self, changes: Changes) -> list[str]:
        """Insert (version 0) or replace profiles with their facts, durably; return the ids that lost a race."""

    def write_part(self, changes: Changes) -> list[str]:
        """Do the same for a part of a batch, from any thread; durable when `close_round` returns."""

    def close_round(self) -> None:
        """Make the parts written so far durable, and count them as one batch."""

    def estimate_profiles(self) -> int:
        """Return about how many living profiles there are; exact below 128, a tenth off at most times above."""

    def page_profiles(self, after: str, limit: int, departments: Sequence[str]) -> list[Profile]:
        """Return living profiles with a greater id, by id; of these departments, or of all when none is named."""

    def handing_over(self) -> list[Profile]:
        """Return merged profiles whose survivor may not have their records yet."""

    def data_keys(self, key_ids: Sequence[str]) -> dict[str, bytes]:
        """Return wrapped data keys by id; destroyed ones are missing."""

    def add_data_keys(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """Add wrapped data keys; return those that were there before and stay."""

    def page_data_keys(self, after: str, limit: int) -> dict[str, bytes]:
        """Return wrapped data keys with a greater id, by id."""

    def rewrap_data_keys(self, changes: Mapping[str, tuple[bytes, bytes]]) -> None:
        """Replace wrapped data keys, given before and after; those changed or destroyed meanwhile are left."""

    def succeed(self, key_id: str, former: Sequence[str]) -> None:
        """Note durably which data keys a key takes the place of; none when that is done."""

    def former_keys(self, key_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return the data keys that keys are taking the place of, for those where that is not done."""

    def destroy_data_key(self, key_id: str) -> None:
        """Remove a data key for ever: all that it sealed is erased."""

    def reseal_archived(self, changes: Sequence[tuple[StoredRecord, StoredRecord]]) -> None:
        """Replace superseded record versions, given before and after, that are still sealed as before."""

    def reseal_past(self, changes: Sequence[tuple[Profile, Profile]]) -> None:
        """Replace what is sealed of past versions, given before and after, that are still sealed as before."""

    def drop_traces(self, profile_ids: Sequence[str], record_keys: Sequence[str]) -> None:
        """Remove history, superseded versions and links of erased profiles; a repeat changes nothing."""

    def archive(self, superseded: Sequence[tuple[StoredRecord, str]]) -> None:
        """Keep superseded record versions with the profile id they belonged to; a repeat changes nothing."""

    def archived(self, source_id: str, source_record_id: str) -> list[StoredRecord]:
        """Return the superseded versions of a record, oldest first."""

    def keep_past(self, profiles: Sequence[Profile]) -> None:
        """Keep what profiles were (see Profile.past), by id and version; a repeat changes nothing."""

    def past_versions(self, profile_id: str, before: int, limit: int) -> list[Profile]:
        """Return what a profile was in versions below `before`, newest first."""

    def past_at(self, profile_id: str, time: datetime) -> Profile | None:
        """Return the last past version that had come to be by a time."""

    def drop_versions(self, keys: Sequence[str], profile_ids: Sequence[str]) -> None:
        """Remove the superseded versions of these records, and what was believed in past versions of these profiles.

        Which records a past version was derived from stays: a split finds its way by it.
        """

    def ageing(self, kind: RecordType, after: str, limit: int) -> list[Ageing]:
        """Return things of a kind that is no present record with a greater id, by id."""

    def aged(self, kind: RecordType, ids: Sequence[str]) -> list[Ageing]:
        """Return those of these things that are there."""

    def drop_aged(self, kind: RecordType, ids: Sequence[str]) -> None:
        """Remove things of that kind, of past profiles what was believed; what is gone already is not missed."""

    def record_keys(self, source_id: str, after: str, limit: int) -> list[str]:
        """Return keys of records of a source, by key, greater than `after`; empty to start with the first."""

    def add_chunk(self, upload_id: str, number: int, sealed: bytes) -> None:
        """Keep a sealed part of an upload."""

    def chunk(self, upload_id: str, number: int) -> bytes | None:
        """Return a part of an upload."""

    def drop_upload(self, upload_id: str, chunks: int) -> None:
        """Remove an upload's parts."""

    def rounds(self) -> int:
        """Return how many batches of profiles were written so far, by all processes."""
