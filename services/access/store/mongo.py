"""The stores in MongoDB; documents are private to this file."""

from __future__ import annotations

import base64
from dataclasses import asdict, replace
from datetime import datetime
from typing import ClassVar

import mongoengine
import orjson
import pymongo

from services.access.domain.errors import PrincipalExists
from services.access.domain.policies import Content, Heading, Policy
from services.access.domain.principals import Authenticator, Credential, Principal
from services.access.domain.tables import PolicyTest
from services.access.domain.tokens import Revocation
from services.access.domain.vocabulary import FIRST_DEPARTMENTS
from services.access.store import mongo_trail
from services.chassis import records
from services.chassis.access import RowFilter
from services.chassis.access.conditions import from_plain
from services.chassis.access.quotas import Quota
from services.chassis.crypto import Sealer
from services.chassis.errors import AlreadyExists
from services.chassis.paging import Seen


class PrincipalRecord(records.Record):
    """A person or an app."""

    kind = mongoengine.StringField()
    login = mongoengine.StringField()
    department = mongoengine.StringField()
    roles = mongoengine.ListField(mongoengine.StringField())
    secret_hash = mongoengine.StringField()
    totp_secret = mongoengine.StringField()
    enabled = mongoengine.BooleanField()
    failures = mongoengine.IntField()
    locked_until = mongoengine.DateTimeField()
    totp_step = mongoengine.IntField()
    credentials = mongoengine.ListField(mongoengine.DictField())
    issuer = mongoengine.StringField()
    external_id = mongoengine.StringField()
    directory_id = mongoengine.StringField()
    invitation_hash = mongoengine.StringField()
    invitation_end = mongoengine.DateTimeField()
    recovery_hashes = mongoengine.ListField(mongoengine.StringField())
    authenticators = mongoengine.ListField(mongoengine.DictField())
    user_handle = mongoengine.StringField()
    inviter = mongoengine.StringField()
    invite_time = mongoengine.DateTimeField()
    bootstrap_hash = mongoengine.StringField()
    meta: ClassVar[dict[str, object]] = {
        "db_alias": "access", "collection": "principals", "auto_create_index": False, "strict": False,
        "indexes": [*records.RECORD_INDEXES, "update_time", {"fields": ["user_handle"], "sparse": True}],
    }  # fmt: skip


class PolicyRecord(records.Record):
    """A policy revision; its content as JSON, for it is read whole and never changed."""

    state = mongoengine.StringField()
    number = mongoengine.IntField()
    base = mongoengine.IntField()
    comment = mongoengine.StringField()
    content = mongoengine.StringField()
    rule_count = mongoengine.IntField()
    author = mongoengine.StringField()
    submitter = mongoengine.StringField()
    approver = mongoengine.StringField()
    meta: ClassVar[dict[str, object]] = {
        "db_alias": "access", "collection": "policies", "auto_create_index": False, "strict": False,
        "indexes": [
            *records.RECORD_INDEXES, ("-create_time", "-_id"), {"fields": ["number"], "unique": True, "sparse": True},
        ],
    }  # fmt: skip


RECORDS: tuple[type[records.Record], ...] = (PrincipalRecord, PolicyRecord)


def ensure_indexes() -> None:
    """Create the indexes of the collections that are no records; idempotent."""
    with records.driver_errors():
        mongo_trail.ensure_indexes()
        records.database("access")["revocations"].create_index("expire_time")


class MongoPrincipals:
    """People and apps; one-time secrets are sealed."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def insert(self, principal: Principal, request_id: str = "") -> Principal:
        """Add one."""
        record = self._record(principal)
        try:
            records.insert(record, request_id=request_id)
        except AlreadyExists as error:
            raise PrincipalExists("This login is taken.", metadata={"principal_id": principal.id}) from error
        return self._value(record)

    def get(self, principal_id: str) -> Principal | None:
        """Return one by id."""
        with records.driver_errors():
            record = next(iter(PrincipalRecord.objects(id=principal_id).limit(1)), None)
        return self._value(record) if record else None

    def by_handle(self, user_handle: str) -> Principal | None:
        """Return one by what its passkeys know it by."""
        if not user_handle:
            return None
        with records.driver_errors():
            record = next(iter(PrincipalRecord.objects(user_handle=user_handle).limit(1)), None)
        return self._value(record) if record else None

    def made_by(self, request_id: str, principal_id: str) -> bool:
        """Tell whether this request created this principal."""
        with records.driver_errors():
            record = next(iter(PrincipalRecord.objects(id=principal_id).limit(1)), None)
        return bool(request_id) and record is not None and request_id in record.request_ids

    def save(self, principal: Principal) -> Principal:
        """Write the state if nobody changed it."""
        record = self._record(principal)
        records.replace(record)
        return self._value(record)

    def page(self, after: str, limit: int, department: str, locked_at: datetime | None = None) -> list[Principal]:
        """Return a page by id."""
        found = PrincipalRecord.objects(id__gt=after)
        if department:
            found = found.filter(department=department)
        if locked_at is not None:
            found = found.filter(locked_until__gt=locked_at)
        with records.driver_errors():
            return [_without_secret(record) for record in found.order_by("id").limit(limit)]

    def changed_since(self, when: datetime) -> list[Principal]:
        """Return the changed ones."""
        with records.driver_errors():
            return [_without_secret(record) for record in PrincipalRecord.objects(update_time__gte=when)]

    def _record(self, principal: Principal) -> PrincipalRecord:
        values = asdict(principal)
        values["totp_secret"] = self._sealed(principal.totp_secret, principal.id) or None
        values["user_handle"] = principal.user_handle or None
        for row in values["authenticators"]:
            row["secret"] = self._sealed(row["secret"], f"{principal.id}/{row['id']}")
        return PrincipalRecord(id=principal.id, **values)

    def _value(self, record: PrincipalRecord) -> Principal:
        bare, sealed = _without_secret(record), {row["id"]: row["secret"] for row in record.authenticators}
        opened = [replace(a, secret=self._opened(sealed[a.id], f"{record.id}/{a.id}")) for a in bare.authenticators]
        totp_secret = self._opened(record.totp_secret, record.id)
        return replace(bare, totp_secret=totp_secret, authenticators=tuple(opened))

    def _sealed(self, secret: str, about: str) -> str:
        return base64.b64encode(self._sealer.seal(secret.encode(), about.encode())).decode() if secret else ""

    def _opened(self, sealed: str | None, about: str) -> str:
        return self._sealer.open(base64.b64decode(sealed), about.encode()).decode() if sealed else ""


def _without_secret(record: PrincipalRecord) -> Principal:
    """Return a principal for reading: one broken seal must not stop the policy of all."""
    return Principal(
        record.kind, record.login, record.department, tuple(record.roles), record.secret_hash or "", "",
        record.enabled, record.failures, record.locked_until, record.totp_step, record.version,
        record.create_time, record.update_time, tuple(Credential(**row) for row in record.credentials),
        record.issuer or "", record.external_id or "", record.directory_id or "",
        record.invitation_hash or "", record.invitation_end, tuple(record.recovery_hashes),
        tuple(_authenticator(row) for row in record.authenticators), record.user_handle or "",
        record.inviter or "", record.invite_time, record.bootstrap_hash or "",
    )  # fmt: skip


def _authenticator(row: dict[str, object]) -> Authenticator:
    return Authenticator(**{**row, "secret": "", "transports": tuple(row["transports"])})  # type: ignore[arg-type]


class MongoRevocations:
    """Revocations; expired ones are removed when others are added."""

    def add(self, revocation: Revocation) -> None:
        """Add or renew one; what two processes write at once is the later of both."""
        row = {"at": revocation.at, "expire_time": revocation.expire_time}
        with records.driver_errors():
            self._rows().update_one({"_id": revocation.id}, {"$max": row}, upsert=True)
            self._rows().delete_many({"expire_time": {"$lt": revocation.at}})

    def unexpired(self, now: datetime) -> list[Revocation]:
        """Return those still of use."""
        with records.driver_errors():
            found = list(self._rows().find({"expire_time": {"$gt": now}}))
        return [Revocation(row["_id"], row["at"], row["expire_time"]) for row in found]

    def _rows(self) -> pymongo.collection.Collection:
        return records.database("access")["revocations"]


class MongoPolicies:
    """Policy revisions; a unique index keeps numbers apart, so that one publication wins."""

    def insert(self, policy: Policy, request_id: str = "") -> Policy:
        """Add one."""
        record = _policy_record(policy)
        records.insert(record, request_id=request_id)
        return _policy(record)

    def get(self, policy_id: str) -> Policy | None:
        """Return one by id."""
        with records.driver_errors():
            record = next(iter(PolicyRecord.objects(id=policy_id).limit(1)), None)
        return _policy(record) if record else None

    def save(self, policy: Policy) -> Policy:
        """Write a new state if nobody changed it."""
        record = _policy_record(policy)
        records.replace(record)
        return _policy(record)

    def page(self, before: Seen | None, limit: int) -> list[Heading]:
        """Return a page, the newest first; contents stay where they are."""
        found = PolicyRecord.objects(records.before_seen("create_time", before)).exclude("content")
        with records.driver_errors():
            return [self._heading(record) for record in found.order_by("-create_time", "-id").limit(limit)]

    def newest_after(self, number: int) -> Policy | None:
        """Return the highest; contents are large, so no other one is read."""
        with records.driver_errors():
            record = next(iter(PolicyRecord.objects(number__gt=number).order_by("-number").limit(1)), None)
        return _policy(record) if record else None

    def numbered(self, number: int) -> Policy | None:
        """Return one."""
        with records.driver_errors():
            record = next(iter(PolicyRecord.objects(number=number).limit(1)), None)
        return _policy(record) if record else None

    def _heading(self, record: PolicyRecord) -> Heading:
        rule_count = record.rule_count
        if rule_count is None and (whole := self.get(record.id)):  # written before rules were counted
            rule_count = len(whole.content.rules)
        return Heading(
            record.id, record.state, record.number or 0, record.base, record.comment or "", record.author,
            record.submitter or "", record.approver or "", record.version, record.create_time, record.update_time,
            rule_count or 0,
        )  # fmt: skip


def _policy_record(policy: Policy) -> PolicyRecord:
    content = orjson.dumps(policy.content).decode()
    return PolicyRecord(
        id=policy.id, state=policy.state, number=policy.number or None, base=policy.base, comment=policy.comment,
        content=content, rule_count=len(policy.content.rules), author=policy.author, submitter=policy.submitter,
        approver=policy.approver, version=policy.version, create_time=policy.create_time,
        update_time=policy.update_time,
    )  # fmt: skip


def _policy(record: PolicyRecord) -> Policy:
    raw = orjson.loads(record.content)
    content = Content(
        tuple(tuple(row) for row in raw["rules"]),
        tuple(tuple(row) for row in raw["links"]),
        tuple(RowFilter(**{**row, "values": tuple(row["values"])}) for row in raw["row_filters"]),
        raw["model"],
        tuple(PolicyTest(**test) for test in raw.get("tests", ())),
        tuple(from_plain(each) for each in raw.get("conditions", ())),
        tuple((name, parent) for name, parent in raw.get("departments", FIRST_DEPARTMENTS)),
        tuple((name, tuple(members)) for name, members in raw.get("teams", ())),
        tuple(Quota(**row) for row in raw.get("quotas", ())),
    )
    return Policy(
        record.id, record.state, record.number or 0, record.base, record.comment or "", content, record.author,
        record.submitter or "", record.approver or "", record.version, record.create_time, record.update_time,
    )  # fmt: skip
