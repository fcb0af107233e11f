"""A few records on MongoDB in two commands: one reads all that is needed, one writes it all, step by step.

Both need MongoDB 8.0 (`bulkWrite` over several collections) or the embedded server.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

import pymongo
from pymongo import errors as mongo
from pymongo.collection import Collection
from pymongo.operations import InsertOne, ReplaceOne, UpdateOne

from services.chassis import records
from services.chassis.records import Fact, Record
from services.profiles.documents import ProfileWrite, link_document, past_document, profile_of, record_document
from services.profiles.store.protocol import MAX_PER_TOKEN, NONE_COUNTED, Done, Found, Writing
from services.profiles.store.shelf import MongoShelf
from services.profiles.values import Pair

Step: TypeAlias = "InsertOne | ReplaceOne | UpdateOne"
ROUND = "intake"


def look(
    counters: Collection,
    keys: Sequence[str],
    tokens: Sequence[str],
    counted: Mapping[str, int] = NONE_COUNTED,
    reject_tokens: Sequence[str] = (),
) -> Found | None:
    """Return the profiles behind these records and tokens; None where one query cannot tell.

    That is where tokens lead to many, or a profile has ended in another.
    """
    with records.driver_errors():
        found = next(iter(counters.aggregate(_pipeline(keys, tokens, counted, reject_tokens))), None)
    if found is None or len(found["near"]) > MAX_PER_TOKEN:
        return None
    profiles = [profile_of(document) for document in found["profiles"]]
    if any(item.merged_into for item in profiles):
        return None
    wanted_keys, wanted_tokens = set(keys), set(tokens)
    holding = [
        item
        for item in profiles
        if not (wanted_keys.isdisjoint(item.record_keys) and wanted_tokens.isdisjoint(item.tokens))
    ]
    held = {token: {link["_id"] for link in found[f"held{at}"]} for at, token in enumerate(counted)}
    set_apart = frozenset(item["record"] for item in found.get("set_apart", ()))
    data_keys = {item["_id"]: item["wrapped"] for item in found["data_keys"]}
    return Found(holding, data_keys, int(found["count"]), held, set_apart)


def _pipeline(
    keys: Sequence[str], tokens: Sequence[str], counted: Mapping[str, int], reject_tokens: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the query, which starts from the one document of the round: links, then profiles, then their keys.

    Open rejects of the records come then, and who holds a token last, each token bounded on its own.
    """
    only_profile = {"$project": {"p": 1}}
    near = [{"$limit": MAX_PER_TOKEN + 1}, only_profile]
    ids = {"$setUnion": [_each("$own", "p"), _each("$near", "p")]}
    of_records = {"$setUnion": ["$$value", ["$$this.key_id"], _each("$$this.records", "k")]}
    key_ids = {"$reduce": {"input": "$profiles", "initialValue": [], "in": of_records}}
    return [
        {"$match": {"_id": ROUND}},
        {"$project": {"count": 1, "keys": {"$literal": list(keys)}, "tokens": {"$literal": list(tokens)}}},
        {"$lookup": {"from": "links", "localField": "keys", "foreignField": "_id", "pipeline": [only_profile],
                     "as": "own"}},
        {"$lookup": {"from": "links", "localField": "tokens", "foreignField": "t", "pipeline": near, "as": "near"}},
        {"$project": {"count": 1, "near._id": 1, "ids": ids}},
        {"$lookup": {"from": "profiles", "localField": "ids", "foreignField": "_id", "as": "profiles"}},
        {"$set": {"key_ids": key_ids}},
        {"$lookup": {"from": "data_keys", "localField": "key_ids", "foreignField": "_id", "as": "data_keys"}},
        *(_set_apart(reject_tokens) if reject_tokens else ()),
        *(stage for at, (token, enough) in enumerate(counted.items()) for stage in _holders(at, token, enough)),
    ]  # fmt: skip


def _set_apart(reject_tokens: Sequence[str]) -> list[dict[str, Any]]:
    """Return the stages that read which records have open rejects."""
    still = [{"$match": {"state": "open"}}, {"$project": {"record": 1}}]
    return [
        {"$set": {"reject_tokens": {"$literal": list(reject_tokens)}}},
        {"$lookup": {"from": "rejects", "localField": "reject_tokens", "foreignField": "record", "pipeline": still,
                     "as": "set_apart"}},
    ]  # fmt: skip


def _holders(at: int, token: str, enough: int) -> list[dict[str, Any]]:
    """Return the stages that read who holds one token."""
    some = [{"$limit": enough}, {"$project": {"_id": 1}}]
    return [
        {"$set": {f"token{at}": {"$literal": token}}},
        {"$lookup": {"from": "links", "localField": f"token{at}", "foreignField": "t", "pipeline": some,
                     "as": f"held{at}"}},
    ]  # fmt: skip


def _each(documents: str, name: str) -> dict[str, Any]:
    """Return the expression for a field of every document; the embedded server finds none by a path through them."""
    return {"$map": {"input": documents, "as": "each", "in": f"$$each.{name}"}}


def write(database: pymongo.database.Database, pairs: MongoShelf[Pair], writing: Writing) -> Done | None:
    """Write all in order up to the first step that something is in the way of; None then.

    The order is that of the long way, so what was written by then is what a crash there leaves: data keys first, then
    history, links, questions, profiles, and the count of the round, durable together.
    """
    now = datetime.now(UTC)
    before = _before_profiles(database, pairs, writing, now)
    changes = [
        records.operation(cast("Record", ProfileWrite(profile)), list[Fact](facts), now, uuid.uuid4().hex,
                          f"{database.name}.profiles")
        for profile, facts in writing.changes
    ]  # fmt: skip
    counter, alone = f"{database.name}.counters", {"_id": ROUND, "count": writing.rounds + 1}
    after: list[Step] = [
        UpdateOne({"_id": ROUND}, {"$inc": {"count": 1}}, namespace=counter),
        UpdateOne(alone, {"$set": {"count": writing.rounds + 1}}, namespace=counter),
    ]
    with records.driver_errors():
        try:
            done = database.client.bulk_write([*before, *changes, *after], ordered=True, verbose_results=True)
        except mongo.InvalidOperation:
            return None  # a server before MongoDB 8.0
        except mongo.ClientBulkWriteException as error:
            faults = cast("list[dict[str, Any]]", error.write_errors or [])
            if not faults or any(item.get("code") != records.DUPLICATE for item in faults):
                raise
            return None
    records.notify([fact for _, facts in writing.changes for fact in facts])
    start, end = len(before), len(before) + len(changes)
    updated = done.update_results
    lost = [
        profile.profile_id
        for at, (profile, _) in enumerate(writing.changes, start)
        if at in updated and not updated[at].matched_count
    ]
    first = start - len(writing.checks) - len(writing.pairs)
    asked = sum(updated[at].upserted_id is not None for at in range(first, first + len(writing.pairs)))
    return Done(lost, asked, bool(updated[end + 1].matched_count))


def _before_profiles(
    database: pymongo.database.Database, pairs: MongoShelf[Pair], writing: Writing, now: datetime
) -> list[Step]:
    """Return what is written before the profiles; questions come last, and checks after them."""
    steps: list[Step] = []

    def insert(name: str, document: dict[str, object]) -> None:
        steps.append(InsertOne(document, namespace=f"{database.name}.{name}"))

    for key_id, wrapped in writing.data_keys.items():
        insert("data_keys", {"_id": key_id, "wrapped": wrapped})
    for record, profile_id in writing.superseded:
        insert("source_records", record_document(record, profile_id))
    for past in writing.was:
        insert("profile_versions", past_document(past))
    for profile, _ in writing.changes:
        for record in profile.records:
            if record.key in profile.relinked:
                link = link_document(record, profile.profile_id, now)
                ours = {"_id": link.pop("_id"), "p": link.pop("p")}  # another's has that id: the insert is refused
                steps.append(UpdateOne(ours, {"$set": link}, upsert=True, namespace=f"{database.name}.links"))
    for document in map(pairs.new_document, [*writing.pairs, *writing.checks]):
        missing = {"$setOnInsert": document}
        steps.append(UpdateOne({"_id": document.pop("_id")}, missing, upsert=True,
                               namespace=f"{database.name}.match_candidates"))  # fmt: skip
    return steps
