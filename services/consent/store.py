"""Where purposes, notices and consents are kept: the port, MongoDB, and memory for tests."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from kehu.consent.v1 import events_pb2

from services.chassis import records
from services.chassis.errors import AlreadyExists, Conflict
from services.chassis.records import Fact
from services.consent.documents import (
    ConsentsDocument,
    NoticeDocument,
    PurposeDocument,
    consents_document,
    consents_of,
    notice_document,
    notice_of,
    purpose_document,
    purpose_of,
)
from services.consent.domain.records import ProfileConsents
from services.consent.domain.registry import Notice, Purpose

ALIAS_HOPS = 16  # merges of merges; a longer chain is taken for a loop and answers for itself

Change = tuple[ProfileConsents, Sequence[events_pb2.ConsentChanged]]


class ConsentStore(Protocol):
    """The port: reads return None for what is not there, writes are compare-and-set on `version`."""

    def purpose(self, purpose_id: str) -> Purpose | None:
        """Return a purpose."""

    def purposes(self, after: str, limit: int) -> list[Purpose]:
        """Return purposes by id, after the given one."""

    def save_purpose(self, purpose: Purpose, request_id: str = "") -> Purpose:
        """Insert (version 0) or replace; AlreadyExists, Conflict."""

    def notice(self, notice_id: str) -> Notice | None:
        """Return a notice."""

    def notices(self, after: str, limit: int) -> list[Notice]:
        """Return notices by id, after the given one."""

    def save_notice(self, notice: Notice, request_id: str = "") -> Notice:
        """Insert (version 0) or replace; AlreadyExists, Conflict."""

    def was_requested(self, kind: type[Purpose] | type[Notice], resource_id: str, request_id: str) -> bool:
        """Say whether one of the last writes of the resource carried this request id."""

    def consents(self, profile_ids: Sequence[str]) -> dict[str, ProfileConsents]:
        """Return the consents of those profiles that have any, in one query."""

    def save_consents(self, changes: Sequence[Change]) -> list[str]:
        """Write consents with their facts, each at once; return the profile ids that lost the race."""


def consents_for(store: ConsentStore, profile_ids: Sequence[str]) -> dict[str, ProfileConsents]:
    """Return for each id asked about the consents that answer for it: its own, or its survivor's."""
    found = store.consents(list(dict.fromkeys(profile_ids)))
    for _ in range(ALIAS_HOPS):
        missing = {c.merged_into for c in found.values() if c.merged_into} - found.keys()
        if not missing:
            break
        found |= {wanted: ProfileConsents(wanted) for wanted in missing} | store.consents(sorted(missing))
    return {wanted: _answering(found, wanted) for wanted in profile_ids}


def _answering(found: dict[str, ProfileConsents], profile_id: str) -> ProfileConsents:
    answering = found.get(profile_id) or ProfileConsents(profile_id)
    for _ in range(ALIAS_HOPS):
        if not answering.merged_into:
            break
        answering = found.get(answering.merged_into) or ProfileConsents(answering.merged_into)
    return answering


def fact_of(message: events_pb2.ConsentChanged) -> Fact:
    """Return the fact to publish."""
    return Fact(message, f"profiles/{message.profile_id}", message.version)


class MongoConsentStore:
    """The service's own database."""

    def purpose(self, purpose_id: str) -> Purpose | None:
        """Return a purpose."""
        with records.driver_errors():
            found = PurposeDocument.objects(id=purpose_id).limit(1)
            return next((purpose_of(document) for document in found), None)

    def purposes(self, after: str, limit: int) -> list[Purpose]:
        """Return purposes by id, after the given one."""
        with records.driver_errors():
            return [purpose_of(d) for d in PurposeDocument.objects(id__gt=after).order_by("id").limit(limit)]

    def save_purpose(self, purpose: Purpose, request_id: str = "") -> Purpose:
        """Insert or replace."""
        document = purpose_document(purpose)
        write = records.insert if purpose.version == 0 else records.replace
        write(document, request_id=request_id)
        return purpose_of(document)

    def notice(self, notice_id: str) -> Notice | None:
        """Return a notice."""
        with records.driver_errors():
            found = NoticeDocument.objects(id=notice_id).limit(1)
            return next((notice_of(document) for document in found), None)

    def notices(self, after: str, limit: int) -> list[Notice]:
        """Return notices by id, after the given one."""
        with records.driver_errors():
            return [notice_of(d) for d in NoticeDocument.objects(id__gt=after).order_by("id").limit(limit)]

    def save_notice(self, notice: Notice, request_id: str = "") -> Notice:
        """Insert or replace."""
        document = notice_document(notice)
        write = records.insert if notice.version == 0 else records.replace
        write(document, request_id=request_id)
        return notice_of(document)

    def was_requested(self, kind: type[Purpose] | type[Notice], resource_id: str, request_id: str) -> bool:
        """Say whether one of the last writes carried this request id."""
        document = PurposeDocument if kind is Purpose else NoticeDocument
        with records.driver_errors():
            found = document.objects(id=resource_id).only("request_ids").limit(1)
            return bool(request_id) and any(request_id in row.request_ids for row in found)

    def consents(self, profile_ids: Sequence[str]) -> dict[str, ProfileConsents]:
        """Return the consents of those profiles that have any."""
        wanted = {"_id": {"$in": [str(profile_id) for profile_id in profile_ids]}}
        fields = {"records": 1, "merged_into": 1, "version": 1, "family": 1, "link_version": 1}
        with records.driver_errors():
            rows = list(ConsentsDocument._get_collection().find(wanted, fields))
        return {str(row["_id"]): consents_of(row) for row in rows}

    def save_consents(self, changes: Sequence[Change]) -> list[str]:
        """Write consents with their facts."""
        writes = [(consents_document(c), [fact_of(fact) for fact in facts]) for c, facts in changes]
        return records.bulk_write(writes)


class MemoryConsentStore:
    """Everything in memory; passes the same conformance suite. `facts` holds what was published, in order."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self._purposes: dict[str, Purpose] = {}
        self._notices: dict[str, Notice] = {}
        self._consents: dict[str, ProfileConsents] = {}
        self._requests: set[tuple[str, str, str]] = set()
        self._lock = threading.RLock()

    def purpose(self, purpose_id: str) -> Purpose | None:
        """Return a purpose."""
        return self._purposes.get(purpose_id)

    def purposes(self, after: str, limit: int) -> list[Purpose]:
        """Return purposes by id."""
        return [self._purposes[key] for key in sorted(self._purposes) if key > after][:limit]

    def save_purpose(self, purpose: Purpose, request_id: str = "") -> Purpose:
        """Insert or replace."""
        with self._lock:
            known = self._purposes.get(purpose.purpose_id)
            _compare(known.version if known else None, purpose.version)
            now = datetime.now(UTC)
            saved = replace(
                purpose,
                version=purpose.version + 1,
                create_time=purpose.create_time or now,
                update_time=now,
            )
            self._purposes[purpose.purpose_id] = saved
            self._requests.add(("Purpose", purpose.purpose_id, request_id))
            return saved

    def notice(self, notice_id: str) -> Notice | None:
        """Return a notice."""
        return self._notices.get(notice_id)

    def notices(self, after: str, limit: int) -> list[Notice]:
        """Return notices by id."""
        return [self._notices[key] for key in sorted(self._notices) if key > after][:limit]

    def save_notice(self, notice: Notice, request_id: str = "") -> Notice:
        """Insert or replace."""
        with self._lock:
            known = self._notices.get(notice.notice_id)
            _compare(known.version if known else None, notice.version)
            now = datetime.now(UTC)
            created = notice.create_time or now
            saved = replace(notice, version=notice.version + 1, create_time=created, update_time=now)
            self._notices[notice.notice_id] = saved
            self._requests.add(("Notice", notice.notice_id, request_id))
            return saved

    def was_requested(self, kind: type[Purpose] | type[Notice], resource_id: str, request_id: str) -> bool:
        """Say whether a write carried this request id."""
        return bool(request_id) and (kind.__name__, resource_id, request_id) in self._requests

    def consents(self, profile_ids: Sequence[str]) -> dict[str, ProfileConsents]:
        """Return the consents of those profiles that have any."""
        with self._lock:
            return {key: self._consents[key] for key in profile_ids if key in self._consents}

    def save_consents(self, changes: Sequence[Change]) -> list[str]:
        """Write consents with their facts."""
        lost = []
        with self._lock:
            for consents, facts in changes:
                known = self._consents.get(consents.profile_id)
                if (known.version if known else 0) != consents.version:
                    lost.append(consents.profile_id)
                    continue
                self._consents[consents.profile_id] = replace(consents, version=consents.version + 1)
                self.facts += [fact_of(fact) for fact in facts]
        return lost


def _compare(stored: int | None, given: int) -> None:
    if stored is not None and given == 0:
        raise AlreadyExists("a record with this name or key exists already")
    if (stored or 0) != given:
        raise Conflict("the record was changed meanwhile; read it again and repeat")
