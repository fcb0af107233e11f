"""The tickets store in MongoDB: one document per ticket, its words and comments sealed at rest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pymongo
from kehu.tickets.v1 import events_pb2
from pymongo.errors import DuplicateKeyError

from services.chassis import records
from services.chassis.access import Clause, Either, Except
from services.chassis.crypto import Sealer
from services.chassis.errors import Conflict, Unavailable
from services.chassis.identities import MongoIdentities
from services.tickets.domain.sla import SlaPolicy
from services.tickets.domain.ticket import Ticket
from services.tickets.store.documents import (
    CommentRecord,
    Document,
    SlaPolicyRecord,
    TicketRecord,
    comment_of,
    policy_of,
    policy_record,
    ticket_of,
    ticket_record,
)
from services.tickets.store.facts import Facts
from services.tickets.store.port import Comment, TicketFilter, number_of

NUMBER_TRIES = 50  # each lost try means that another ticket got a number meanwhile


class MongoTicketsStore:
    """Keeps tickets in the service's own database; call chassis.records.connect first."""

    def __init__(self, sealer: Sealer, facts: Facts) -> None:
        """Seal words at rest with the key of purpose `tickets`."""
        self._sealer = sealer
        self._facts = facts
        self.identities = MongoIdentities("tickets")

    def next_number(self, day: str) -> str:
        """Count up by compare-and-set on one document a day; a gap after a crash is harmless."""
        counters = records.database("tickets")["counters"]
        with records.driver_errors():
            for _ in range(NUMBER_TRIES):
                found = counters.find_one({"_id": day})
                if found is None:
                    try:
                        counters.insert_one({"_id": day, "last": 1})
                        return number_of(day, 1)
                    except DuplicateKeyError:
                        continue
                last = int(found["last"])
                if counters.update_one({"_id": day, "last": last}, {"$set": {"last": last + 1}}).modified_count:
                    return number_of(day, last + 1)
        raise Unavailable("too many tickets are being opened at once; try again")

    def insert(self, ticket: Ticket, request_id: str = "") -> None:
        """Keep a new ticket."""
        records.insert(ticket_record(ticket, self._sealer), self._facts.of(ticket), request_id=request_id)

    def get(self, ticket_id: str) -> Ticket | None:
        """Return a ticket."""
        found = self._find(ticket_id)
        return ticket_of(found, self._sealer) if found is not None else None

    def _find(self, ticket_id: str) -> Document | None:
        with records.driver_errors():
            return TicketRecord._get_collection().find_one({"_id": str(ticket_id)})

    def seen(self, ticket_id: str, request_id: str) -> bool:
        """Tell whether this request was here."""
        found = self._find(ticket_id) if request_id else None
        return found is not None and request_id in found.get("request_ids", ())  # type: ignore[operator]

    def replace(self, ticket: Ticket, request_id: str = "") -> None:
        """Keep the next version."""
        record = ticket_record(ticket, self._sealer)
        record.version = ticket.version - 1
        records.replace(record, self._facts.of(ticket), request_id=request_id)

    def page(self, narrowed: TicketFilter, before_number: str, limit: int) -> list[Ticket]:
        """Return the newest numbers."""
        query: Document = {"deleted": False, **_narrowing(narrowed)}
        query["number"] = {"$lt": before_number} if before_number else {"$gt": ""}
        with records.driver_errors():
            found = TicketRecord._get_collection().find(query).sort([("number", pymongo.DESCENDING)]).limit(limit)
            return [ticket_of(each, self._sealer) for each in found]

    def opened_for(self, profile_id: str, after_id: str, limit: int) -> list[Ticket]:
        """Return tickets opened under an id; those from before that was kept, by the profile they are linked to."""
        under = {"opened_for": str(profile_id)}
        linked = {"profile_id": str(profile_id), "opened_for": None}
        found = {}
        for query in (under, linked):
            within = {**query, "_id": {"$gt": str(after_id)}, "deleted": False}
            with records.driver_errors():
                rows = TicketRecord._get_collection().find(within).sort([("_id", pymongo.ASCENDING)]).limit(limit)
                found.update({row["_id"]: row for row in rows})
        return [ticket_of(found[key], self._sealer) for key in sorted(found)[:limit]]

    def about_records(self, record_keys: Sequence[str]) -> list[Ticket]:
        """Return tickets about records."""
        found: list[Document] = []
        for key in record_keys:
            with records.driver_errors():
                found += TicketRecord._get_collection().find({"source_record": str(key), "deleted": False})
        return [ticket_of(each, self._sealer) for each in found]

    def states(self, after_id: str, limit: int) -> list[events_pb2.TicketChanged]:
        """Return facts by id."""
        query = {"_id": {"$gt": str(after_id)}}
        with records.driver_errors():
            found = TicketRecord._get_collection().find(query).sort([("_id", pymongo.ASCENDING)]).limit(limit)
            return [self._facts.message(ticket_of(each, self._sealer)) for each in found]

    def add_comment(self, comment: Comment) -> None:
        """Keep a comment."""
        sealed = self._sealer.seal(comment.text.encode(), comment.id.encode())
        records.insert(
            CommentRecord(
                id=comment.id,
                ticket_id=comment.ticket_id,
                author=comment.author,
                sealed_text=sealed,
                said_time=comment.create_time,
            )
        )

    def comment(self, comment_id: str) -> Comment | None:
        """Return a comment."""
        with records.driver_errors():
            found = CommentRecord._get_collection().find_one({"_id": str(comment_id)})
        return comment_of(found, self._sealer) if found is not None else None

    def comments(self, ticket_id: str, after: tuple[datetime, str] | None, limit: int) -> list[Comment]:
        """Return comments in order."""
        query: Document = {"ticket_id": str(ticket_id)}
        if after is not None:
            said, comment_id = after
            query["$or"] = [{"said_time": {"$gt": said}}, {"said_time": said, "_id": {"$gt": comment_id}}]
        order = [("said_time", pymongo.ASCENDING), ("_id", pymongo.ASCENDING)]
        with records.driver_errors():
            found = CommentRecord._get_collection().find(query).sort(order).limit(limit)
            return [comment_of(each, self._sealer) for each in found]

    def erase_comments(self, ticket_id: str) -> None:
        """Delete a ticket's comments."""
        with records.driver_errors():
            CommentRecord._get_collection().delete_many({"ticket_id": str(ticket_id)})

    def insert_policy(self, policy: SlaPolicy) -> None:
        """Keep a new policy."""
        records.insert(policy_record(policy))

    def policy(self, policy_id: str) -> SlaPolicy | None:
        """Return a policy."""
        with records.driver_errors():
            found = SlaPolicyRecord._get_collection().find_one({"_id": str(policy_id)})
        return policy_of(found) if found is not None else None

    def policies(self) -> list[SlaPolicy]:
        """Return all policies."""
        with records.driver_errors():
            found = [policy_of(each) for each in SlaPolicyRecord._get_collection().find({"rank": {"$gte": 0}})]
        return sorted(found, key=lambda each: (each.rank, each.id))

    def replace_policy(self, policy: SlaPolicy) -> None:
        """Keep the next version."""
        record = policy_record(policy)
        record.version = policy.version - 1
        records.replace(record)

    def delete_policy(self, policy: SlaPolicy) -> None:
        """Delete this version."""
        with records.driver_errors():
            gone = SlaPolicyRecord._get_collection().delete_one({"_id": policy.id, "version": policy.version})
        if not gone.deleted_count:
            raise Conflict("the record was changed meanwhile; read it again and repeat")

    def prepare(self) -> None:
        """Create the indexes of what is no record, and take over merges that an earlier release remembered."""
        self.identities.ensure_indexes()
        with records.driver_errors():
            remembered = list(records.database("tickets")["merged_profiles"].find({}))
        for row in remembered:
            self.identities.lead(str(row["_id"]), str(row["survivor"]), 0)


def _narrowing(narrowed: TicketFilter) -> Document:
    wanted = {
        "profile_id": narrowed.profile_id,
        "category": narrowed.category.value if narrowed.category else "",
        "kind": narrowed.kind.value if narrowed.kind else "",
        "department": narrowed.department,
        "assignee": narrowed.assignee,
    }
    query: Document = {field: value for field, value in wanted.items() if value}
    rows = [_clause(clause) for clause in narrowed.rows]
    return {**query, "$and": rows} if rows else query


def _clause(clause: Clause) -> Document:
    """Return what must hold of a ticket as a query; the fields are those of rows.ROW_FIELDS."""
    if isinstance(clause, Either):
        some = [{"$and": [_clause(each) for each in every]} for every in clause.alternatives]
        return {"$or": some} if some else {"department": {"$in": []}}
    if isinstance(clause, Except):
        return {clause.without: {"$nin": ["", None, *sorted(clause.excluded)]}}
    return {"_id" if clause.field == "id" else clause.field: {"$in": sorted(clause.values)}}
