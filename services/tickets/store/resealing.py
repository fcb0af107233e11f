"""Seal anew what an older key of `tickets.key` sealed, so that the older key can be destroyed."""

from __future__ import annotations

import pymongo

from services.chassis import records
from services.chassis.crypto import Sealer, key_id_of
from services.tickets.store.documents import CommentRecord, TicketRecord

PAGE = 500


def reseal(sealer: Sealer) -> int:
    """Seal all tickets and comments by the newest key and return how many were not; others may write meanwhile.

    Each keeps its cipher: who calls need not know which one the installation asks for.

    Raises:
        SealBroken: something carries a key that is not in the file.
    """
    done = 0
    while found := sum(_reseal(each, sealer) for each in (TicketRecord, CommentRecord)):
        done += found  # again until nothing is left: a process that wrote meanwhile may not have noticed the key yet
    return done


def _reseal(kind: type[TicketRecord | CommentRecord], sealer: Sealer) -> int:
    collection, newest, stale, after = kind._get_collection(), sealer.newest_key_id, 0, ""
    with records.driver_errors():
        while True:
            query = collection.find({"_id": {"$gt": after}}, {"sealed_text": 1})
            page = list(query.sort([("_id", pymongo.ASCENDING)]).limit(PAGE))
            for row in page:
                before, place = bytes(row["sealed_text"]), str(row["_id"]).encode()
                if key_id_of(before) != newest:
                    stale += 1
                    fresh = sealer.sealed_again(before, place)
                    collection.update_one({"_id": row["_id"], "sealed_text": before}, {"$set": {"sealed_text": fresh}})
            if len(page) < PAGE:
                return stale
            after = page[-1]["_id"]
