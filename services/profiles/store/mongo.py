"""The store on MongoDB: every query an equality or a bounded range on an index."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from pymongo import errors as mongo
from pymongo.collection import Collection
from pymongo.operations import InsertOne, ReplaceOne
from pymongo.write_concern import WriteConcern

from services.chassis import records
from services.chassis.records import Fact, Record
from services.profiles.definitions.proposals import FieldChange, FieldRevision
from services.profiles.documents import (
    ProfileDocument,
    ProfileWrite,
    link_document,
    past_document,
    past_id,
    past_profile,
    profile_of,
    record_document,
    record_of,
)
from services.profiles.domain.relations import RelationType
from services.profiles.exported_values import StoredExport, StoredExportPart
from services.profiles.quality.values import DayFigures, StoredQualityRule
from services.profiles.relations.values import HouseholdKey, RelationCode, StoredRelation
from services.profiles.store import at_once
from services.profiles.store.asking import find_together
from services.profiles.store.at_once import ROUND
from services.profiles.store.incidents import MongoIncidents
from services.profiles.store.mongo_ageing import NOT_BELIEVED, AgeingPart
from services.profiles.store.mongo_keys import KeysPart
from services.profiles.store.protocol import MAX_PER_TOKEN, NONE_COUNTED, Changes, Done, Found, Writing
from services.profiles.store.shared import SharedTokens, holders
from services.profiles.store.shelf import MongoShelf, T
from services.profiles.training.values import ModelUse, StoredModel
from services.profiles.values import (
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
    record_key,
)

LEDGER = "erasures"  # in a database of its own, which no backup of the others holds
CLAIM_IS_FRESH = timedelta(seconds=10)  # a claim is followed by its profile within milliseconds
KEYS_PER_QUERY, TOKENS_PER_QUERY, LINKS_PER_TOKEN = 32, 16, 6 * MAX_PER_TOKEN  # at least
ID_SPACE = 16**8
ESTIMATE_BITS, ESTIMATED_FROM, MIDDLE = 24, 128, "80000000"  # windows of 2^-24 of all ids, then sixteen times as wide
INDEXED = (("field_changes", "field"), ("field_changes", "state"), ("field_revisions", "field"), ("relations", "one"),
           ("relations", "other"), ("relation_codes", "record"), ("household_keys", "record"),
           ("profile_versions", "p"), ("exports", "state"), ("exports", "canary"), ("export_parts", "export"),
)  # fmt: skip
LAST_PLACE = "g"  # after every hexadecimal id


class MongoStore(KeysPart, AgeingPart):
    """Profiles in the service's own database."""

    def __init__(self, service: str = "profiles") -> None:
        self._service = service
        self._window = ID_SPACE // 4096  # follows how close together ids lie
        self.sources: MongoShelf[Source] = MongoShelf(Source, lambda: self._collection("sources"))
        self.fields: MongoShelf[Field] = MongoShelf(Field, lambda: self._collection("field_definitions"))
        self.field_changes: MongoShelf[FieldChange] = MongoShelf(FieldChange, lambda: self._collection("field_changes"))
        self.field_revisions = self._shelf(FieldRevision, "field_revisions")
        self.relation_types = self._shelf(RelationType, "relation_types")
        self.relations = self._shelf(StoredRelation, "relations")
        self.relation_codes = self._shelf(RelationCode, "relation_codes")
        self.household_keys = self._shelf(HouseholdKey, "household_keys")
        self.rejects: MongoShelf[Reject] = MongoShelf(Reject, lambda: self._collection("rejects"))
        self.erasures: MongoShelf[Erasure] = MongoShelf(Erasure, lambda: self._collection("erasures"))
        self.pairs: MongoShelf[Pair] = MongoShelf(Pair, lambda: self._collection("match_candidates"))
        self.rules: MongoShelf[StoredRule] = MongoShelf(StoredRule, lambda: self._collection("validation_rules"))
        self.retention_rules = self._shelf(StoredRule, "retention_rules")
        self.lifecycles = self._shelf(StoredRule, "lifecycles")
        self.unstaged = self._shelf(Unstaged, "unstaged")
        self.holds: MongoShelf[StoredHold] = MongoShelf(StoredHold, lambda: self._collection("legal_holds"))
        self.receipts: MongoShelf[StoredReceipt] = MongoShelf(StoredReceipt, lambda: self._collection("receipts"))
        self.leaves: MongoShelf[LeafPage] = MongoShelf(LeafPage, lambda: self._collection("receipt_leaves"))
        self.reveals = self._shelf(RevealCount, "reveals")
        self.exports = self._shelf(StoredExport, "exports")
        self.export_parts = self._shelf(StoredExportPart, "export_parts")
        self.match_models = self._shelf(StoredModel, "match_models")
        self.model_use = self._shelf(ModelUse, "model_use")
        self.quality_rules = self._shelf(StoredQualityRule, "quality_rules")
        self.quality_figures = self._shelf(DayFigures, "quality_figures")
        self.incidents = MongoIncidents()

    def _shelf(self, kind: type[T], name: str) -> MongoShelf[T]:
        return MongoShelf(kind, lambda: self._collection(name))

    def _collection(self, name: str) -> Collection:
        own = records.database(self._service)
        return (own.client[f"{own.name}_{LEDGER}"] if name == LEDGER else own)[name]

    @property
    def _profiles(self) -> Collection:
        return ProfileDocument._get_collection()

    def prepare(self) -> None:
        """Create the indexes of the collections that are no records, and the intake counter."""
        with records.driver_errors():
            self._collection("links").create_index([("t", 1)])
            self._collection("links").create_index([("p", 1)])
            self._collection("rejects").create_index([("state", 1), ("source_id", 1)])
            self._collection("rejects").create_index([("record", 1)])
            for name, field in INDEXED:
                self._collection(name).create_index([(field, 1), ("_id", 1)])
            self._collection("match_candidates").create_index([("state", 1), ("place", 1)])
            self._collection("match_candidates").create_index([("month", 1)])
            self._collection("receipts").create_index([("run", 1)])
            self._collection("receipt_leaves").create_index([("run", 1)])
            self._collection("match_candidates").create_index([("one", 1)])
            self._collection("match_candidates").create_index([("other", 1)])
            self._collection("erasures").create_index([("place", 1)])
            self._collection("source_records").create_index([("s", 1), ("i", 1)])
            self._collection("counters").update_one({"_id": ROUND}, {"$setOnInsert": {"count": 0}}, upsert=True)

    def profiles(self, profile_ids: Sequence[str]) -> dict[str, Profile]:
        """Return profiles by id."""
        found = self._find("profiles", "_id", profile_ids)
        return {str(document["_id"]): profile_of(document) for document in found}

    def by_record_keys(self, keys: Sequence[str]) -> list[Profile]:
        """Return the profiles that hold these records."""
        links = self._find("links", "_id", keys, {"p": 1})
        wanted = set(keys)
        return [item for item in self._living(link["p"] for link in links) if not wanted.isdisjoint(item.record_keys)]

    def by_tokens(self, tokens: Sequence[str]) -> list[Profile]:
        """Return the profiles that carry any of these tokens, none for tokens that lead to too many."""
        return self.near(tokens)[0]

    def near(self, tokens: Sequence[str]) -> tuple[list[Profile], frozenset[str]]:
        """Return the same, and the tokens that lead to too many."""
        wanted = set(tokens)
        owners: defaultdict[str, set[str]] = defaultdict(set)
        for link in self._links_of(list(wanted)):
            for token in wanted.intersection(link["t"]):
                owners[token].add(link["p"])
        crowded = frozenset(token for token, ids in owners.items() if len(ids) > MAX_PER_TOKEN)
        found = self._living(item for token, ids in owners.items() if token not in crowded for item in ids)
        return [item for item in found if not wanted.isdisjoint(item.tokens)], crowded

    def _links_of(self, tokens: Sequence[str]) -> list[dict[str, Any]]:
        """Return the links of tokens; one that leads to very many takes the room of no other."""
        found = list(self._find("links", "t", tokens, {"p": 1, "t": 1}, LINKS_PER_TOKEN))
        counts = Counter(token for link in found for token in link["t"])
        full = {token for token in tokens if counts[token] >= LINKS_PER_TOKEN}
        if not full or len(tokens) == 1:
            return found
        parts = [[token for token in tokens if token not in full], *([token] for token in full)]
        return [link for part in parts if part for link in self._links_of(part)]

    def holders(self, counted: Mapping[str, int]) -> dict[str, set[str]]:
        """Return the keys of the records that carry these tokens."""
        return holders(self._collection("links"), counted)

    def look(
        self,
        keys: Sequence[str],
        tokens: Sequence[str],
        counted: Mapping[str, int] = NONE_COUNTED,
        reject_tokens: Sequence[str] = (),
    ) -> Found:
        """Return what a few records need, by one query or by several."""
        found = at_once.look(self._collection("counters"), keys, tokens, counted, reject_tokens)
        if found is None:
            rounds, mine, (others, crowded) = self.rounds(), self.by_record_keys(keys), self.near(tokens)
            profiles = {item.profile_id: item for item in (*mine, *others)}
            found = Found(list(profiles.values()), {}, rounds, self.holders(counted), crowded=crowded)
        return found

    def write_at_once(self, writing: Writing) -> Done | None:
        """Write a small batch in one command."""
        return at_once.write(records.database(self._service), self.pairs, writing)

    def shared_tokens(self, held: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those whose token another living profile carries too."""
        return SharedTokens(self._collection("links"), self._living).among(held)

    def _living(self, profile_ids: Iterable[str]) -> list[Profile]:
        """Return the living profiles behind these ids, each once."""
        found: dict[str, Profile] = {}
        waiting = set(profile_ids)
        while waiting:
            loaded = self.profiles(sorted(waiting))
            found.update({key: item for key, item in loaded.items() if not item.merged_into})
            waiting = {item.merged_into for item in loaded.values() if item.merged_into} - set(found)
        return list(found.values())

    def _find(
        self,
        collection: str,
        name: str,
        values: Sequence[str],
        projection: Mapping[str, int] | None = None,
        limit: int = 0,
    ) -> Iterator[dict[str, Any]]:
        least = KEYS_PER_QUERY if name == "_id" else TOKENS_PER_QUERY
        carrier = self._collection("counters"), ROUND
        return find_together(carrier, self._collection(collection), name, values, least, projection, limit)

    def write_profiles(self, changes: Changes) -> list[str]:
        """Write a part and close the round."""
        lost = self.write_part(changes)
        if len(lost) < len(changes):
            self.close_round()
        return lost

    def write_part(self, changes: Changes) -> list[str]:
        """Claim the links of records that joined or changed, then insert or replace profiles with their facts."""
        lost = self._claim([profile for profile, _ in changes])
        writes = [
            (cast("Record", ProfileWrite(profile)), list[Fact](facts))
            for profile, facts in changes
            if profile.profile_id not in lost
        ]
        handing = [item for item, _ in changes if item.is_handing_over]
        self._add("handovers", [{"_id": item.profile_id} for item in handing])
        return [*lost, *records.bulk_write(writes)]

    def close_round(self) -> None:
        """Make what was just written durable: a journaled write, on a majority where asked, takes all before it along.

        The embedded server syncs its journal for each update of a bulk write, so the bulk itself goes without.
        """
        with records.driver_errors():
            self._collection("counters").update_one({"_id": ROUND}, {"$inc": {"count": 1}})

    def _unsynced(self, name: str) -> Collection:
        """Return a collection for writes that a later one makes durable."""
        return self._collection(name).with_options(write_concern=WriteConcern(w=1, j=False))

    def _claim(self, profiles: Sequence[Profile]) -> set[str]:
        """Write links; return the profiles whose records belong to others."""
        now = datetime.now(UTC)
        owners: dict[str, tuple[Profile, dict[str, object]]] = {}
        for profile in profiles:
            due = set(profile.record_keys if profile.version == 0 else profile.relinked)
            for record in profile.records if not profile.merged_into else ():
                if record.key in due:
                    owners[record.key] = (profile, link_document(record, profile.profile_id, now))
        known = set(self._add("links", [document for _, document in owners.values()]))
        return self._reclaim({key: owners[key] for key in owners if key in known}, now) if known else set()

    def _reclaim(self, owners: Mapping[str, tuple[Profile, dict[str, object]]], now: datetime) -> set[str]:
        """Take over links that are ours or that nobody stands behind; return the profiles that may not."""
        links = {link["_id"]: link for link in self._find("links", "_id", list(owners), {})}
        held = {key: item.profile_id for item in self.by_record_keys(list(owners)) for key in item.record_keys}
        aliases = {
            key for key, item in self.profiles([link["p"] for link in links.values()]).items() if item.merged_into
        }
        lost, operations = set(), []
        for key, (profile, document) in owners.items():
            link = links.get(key)
            if link is None or not _may_claim(profile, held.get(key, ""), link, aliases, now):
                lost.add(profile.profile_id)
            elif (link["p"], link["t"]) != (document["p"], document["t"]):
                operations.append(ReplaceOne({"_id": key, "p": link["p"], "c": link["c"]}, document))
        if operations:
            with records.driver_errors():
                self._unsynced("links").bulk_write(operations, ordered=False)
        return lost

    def estimate_profiles(self) -> int:
        """Return how many there are by those in a window of the id space: to count all takes some servers seconds."""
        found = shift = 0
        for shift in range(ESTIMATE_BITS, -1, -4):
            start = MIDDLE if shift else ""
            window = {"p": {"$gte": start, "$lt": _window_end(start, ID_SPACE >> shift)}}
            with records.driver_errors():
                found = len({link["p"] for link in self._collection("links").find(window, {"_id": 0, "p": 1})})
            if found >= ESTIMATED_FROM:
                break
        return found << shift

    def page_profiles(self, after: str, limit: int, departments: Sequence[str]) -> list[Profile]:
        """Return living profiles by id, through windows of the id space about as wide as a page."""
        found, start = list[Profile](), after
        while len(found) < limit and start < LAST_PLACE:
            end = _window_end(start, self._window)
            with records.driver_errors():
                links = list(self._collection("links").find({"p": {"$gt": start, "$lte": end}}, {"_id": 0, "p": 1}))
            ids = sorted({link["p"] for link in links})
            for at in range(0, len(ids), limit):
                part = self.profiles(ids[at : at + limit])
                found += [part[key] for key in sorted(part) if _is_of(part[key], departments)]
                if len(found) >= limit:
                    break
            if not max(1, limit // 4) <= len(ids) <= limit * 2:  # an empty window is too narrow for any page
                wanted = max(limit, 2)
                self._window = min(max(self._window * wanted // (len(ids) + wanted // 8 + 1), 1), ID_SPACE)
            start = end
        return found[:limit]

    def handing_over(self) -> list[Profile]:
        """Return merged profiles that still hold records; strike those that are through off the list."""
        with records.driver_errors():
            listed = [item["_id"] for item in self._collection("handovers").find({})]
        found = [item for item in self.profiles(listed).values() if item.is_handing_over]
        if done := set(listed) - {item.profile_id for item in found}:
            with records.driver_errors():
                self._collection("handovers").delete_many({"_id": {"$in": sorted(done)}})
        return found

    def archive(self, superseded: Sequence[tuple[StoredRecord, str]]) -> None:
        """Keep superseded record versions."""
        self._add("source_records", [record_document(record, profile_id) for record, profile_id in superseded])

    def _add(self, name: str, documents: Sequence[dict[str, object]]) -> list[str]:
        """Insert documents and return the ids that were there before; durable with the profiles they go with."""
        if not documents:
            return []
        with records.driver_errors():
            try:
                self._unsynced(name).bulk_write([InsertOne(item) for item in documents], ordered=False)
            except mongo.BulkWriteError as error:
                return [str(documents[place]["_id"]) for place in records.places_taken(error)]
        return []

    def archived(self, source_id: str, source_record_id: str) -> list[StoredRecord]:
        """Return superseded versions."""
        with records.driver_errors():
            found = list(self._collection("source_records").find({"s": source_id, "i": source_record_id}))
        return sorted((record_of(item) for item in found), key=lambda record: record.number)

    def keep_past(self, profiles: Sequence[Profile]) -> None:
        """Keep what profiles were."""
        self._add("profile_versions", [past_document(item) for item in profiles])

    def past_versions(self, profile_id: str, before: int, limit: int) -> list[Profile]:
        """Return what a profile was, newest first."""
        return self._past({"p": profile_id, "_id": {"$lt": past_id(profile_id, before)}}, limit)

    def past_at(self, profile_id: str, time: datetime) -> Profile | None:
        """Return the last past version by a time."""
        return next(iter(self._past({"p": profile_id, "since": {"$lte": time}}, 1)), None)

    def _past(self, query: Mapping[str, object], limit: int) -> list[Profile]:
        with records.driver_errors():
            found = list(self._collection("profile_versions").find(query).sort("_id", -1).limit(limit))
        return [past_profile(item) for item in found]

    def drop_versions(self, keys: Sequence[str], profile_ids: Sequence[str]) -> None:
        """Remove superseded versions and what profiles were."""
        with records.driver_errors():
            self.drop_superseded(keys)
            self._collection("profile_versions").update_many({"p": {"$in": list(profile_ids)}}, NOT_BELIEVED)

    def record_keys(self, source_id: str, after: str, limit: int) -> list[str]:
        """Return a page of a source's record keys; "0" is the character after the "/" of a key."""
        query = {"_id": {"$gt": after or record_key(source_id, ""), "$lt": f"{source_id}0"}}
        with records.driver_errors():
            return [
                str(found["_id"])
                for found in self._collection("links").find(query, {"_id": 1}).sort("_id", 1).limit(limit)
            ]

    def add_chunk(self, upload_id: str, number: int, sealed: bytes) -> None:
        """Keep a part."""
        with records.driver_errors():
            part = {"_id": f"{upload_id}/{number}", "sealed": sealed, "at": datetime.now(UTC)}
            self._collection("upload_chunks").insert_one(part)

    def chunk(self, upload_id: str, number: int) -> bytes | None:
        """Return a part."""
        with records.driver_errors():
            found = self._collection("upload_chunks").find_one({"_id": f"{upload_id}/{number}"})
        return found["sealed"] if found else None

    def drop_upload(self, upload_id: str, chunks: int) -> None:
        """Remove the parts."""
        for number in range(chunks):
            with records.driver_errors():
                self._collection("upload_chunks").delete_one({"_id": f"{upload_id}/{number}"})

    def rounds(self) -> int:
        """Return the number of batches written."""
        with records.driver_errors():
            found = self._collection("counters").find_one({"_id": ROUND})
        return int(found["count"]) if found else 0


def _may_claim(profile: Profile, holder_id: str, link: Mapping[str, Any], aliases: set[str], now: datetime) -> bool:
    """Say whether a record may be linked to the profile: it holds it, or nobody does and the claim is not fresh."""
    if holder_id:
        return holder_id == profile.profile_id
    if link["p"] in aliases or link["p"] in (profile.profile_id, *profile.apart):
        return True
    return bool(now - link["c"] > CLAIM_IS_FRESH)


def _window_end(start: str, width: int) -> str:
    """Return the id that ends a window of `width` 2^32ths of the id space after `start`."""
    head = int((start[:8] or "0").ljust(8, "0"), 16) if start else 0
    return f"{head + width:08x}" if head + width < ID_SPACE else LAST_PLACE


def _is_of(profile: Profile, departments: Sequence[str]) -> bool:
    return not profile.merged_into and (not departments or profile.owner_department in departments)
