"""Who is in an export: ids in parts of up to 500, in order, so that one look-up finds a person in it, however large.

The parts tell at each download whose data goes to whom (PIPL art. 44, 45), and find the files that hold a person who is
erased or of whom retention takes something; they go with the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import replace

from services.chassis.errors import Conflict
from services.chassis.server import Seen
from services.profiles.exported_values import StoredExport, StoredExportPart
from services.profiles.store import Store

PER_PART = 500  # as many ids as one entry of the audit trail names
PARTS_PER_READ, EXPORTS_PER_READ = 20, 200
READY, WITHDRAWN, EXPIRED = "ready", "withdrawn", "expired"


def file_of(export_id: str) -> str:
    """Return the upload that is the file of an export."""
    return f"export-{export_id}"


def keep_members(store: Store, export_id: str, profile_ids: Sequence[str]) -> None:
    """Keep who is in an export, in the place of what a try that died left."""
    forget_members(store, export_id)
    ordered = sorted(profile_ids)
    for start in range(0, len(ordered), PER_PART):
        part = ordered[start : start + PER_PART]
        store.export_parts.add_missing([StoredExportPart(_place(export_id, part[-1]), export_id, part)])


def _place(export_id: str, last: str) -> str:
    return f"{export_id}/{last}~"  # behind the id itself, so that whoever looks from an id on finds it


def forget_members(store: Store, export_id: str) -> None:
    """Remove the parts of an export."""
    while found := store.export_parts.page({"export": export_id}, "", PARTS_PER_READ):
        for part in found:
            with suppress(Conflict):  # another worker removed it
                store.export_parts.delete(part)


def members(store: Store, export_id: str) -> Iterator[Sequence[str]]:
    """Yield the ids in an export, part by part."""
    after = ""
    while found := store.export_parts.page({"export": export_id}, after, PARTS_PER_READ):
        yield from (part.members for part in found)
        after = found[-1].id


def told_by(store: Store, kept: StoredExport) -> Iterator[Seen]:
    """Yield what a download tells, for the audit trail."""
    for part in members(store, kept.id):
        yield Seen(tuple(part), tuple(kept.shown), tuple(kept.masked))


def holds(store: Store, export_id: str, profile_id: str) -> bool:
    """Tell whether an export has this id in it."""
    after = f"{export_id}/{profile_id}"
    return any(profile_id in part.members for part in store.export_parts.page({"export": export_id}, after, 1))


def _holds_any(store: Store, export_id: str, wanted: Set[str]) -> bool:
    """Tell whether an export has one of these ids in it: a few are looked up, for many all of it is read."""
    if len(wanted) <= PARTS_PER_READ:
        return any(holds(store, export_id, profile_id) for profile_id in wanted)
    return any(not wanted.isdisjoint(part) for part in members(store, export_id))


def withdraw(store: Store, profile_ids: Sequence[str]) -> int:
    """Make files that hold one of these people unreadable for good; return how many. A repeat changes nothing."""
    count, after, wanted = 0, "", frozenset(profile_ids)
    while found := store.exports.page({"state": READY}, after, EXPORTS_PER_READ):
        after = found[-1].id
        for kept in found:
            if _holds_any(store, kept.id, wanted):
                end(store, kept, WITHDRAWN)
                count += 1
    return count


def end(store: Store, kept: StoredExport, state: str) -> None:
    """Remove the file of an export and who was in it; who exported stays known."""
    store.drop_upload(file_of(kept.id), kept.chunks)
    with suppress(Conflict):  # another process ended it
        store.exports.replace(replace(kept, state=state))
    forget_members(store, kept.id)


def checked(store: Store, export_id: str) -> StoredExport:
    """Return an export that is kept; one with a person erased while it was made is withdrawn at once."""
    kept = store.exports.get(export_id)
    assert kept is not None
    for part in members(store, export_id) if kept.state == READY else ():
        if any(item.is_erased for item in store.profiles(part).values()):
            end(store, kept, WITHDRAWN)
            return replace(kept, state=WITHDRAWN)
    return kept
