"""One suite for both implementations of the stores: in memory and on a MongoDB-wire server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.access.defaults import default_content
from services.access.domain.errors import PrincipalExists
from services.access.domain.policies import Policy
from services.access.domain.principals import Authenticator, Principal
from services.access.domain.tables import PolicyTest
from services.access.domain.tokens import Revocation
from services.access.store import memory, mongo
from services.access.store.ports import Policies, Principals, Revocations
from services.chassis import records
from services.chassis.access import NamedCondition, RowFilter
from services.chassis.access.conditions import Network
from services.chassis.crypto import Sealer
from services.chassis.errors import AlreadyExists, Conflict
from tests.access.stores import BOTH, emptied

KEY = Ed25519PrivateKey.generate()
NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


@dataclass
class Stores:
    """One implementation."""

    principals: Principals
    policies: Policies
    revocations: Revocations


@pytest.fixture(params=BOTH)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    if request.param == "memory":
        yield Stores(memory.MemoryPrincipals(), memory.MemoryPolicies(), memory.MemoryRevocations())
        return
    with emptied(request, "principals", "policies", "revocations"):
        records.ensure_indexes(mongo.RECORDS)
        mongo.ensure_indexes()
        sealer = Sealer("access", tmp_path)
        yield Stores(mongo.MongoPrincipals(sealer), mongo.MongoPolicies(), mongo.MongoRevocations())


def person(login: str = "ann", **changes: object) -> Principal:
    made = Principal("user", login, "sales", ("role:seller",), "hash", "JBSWY3DPEHPK3PXPJBSWY3DP")
    return replace(made, **changes)


def policy(policy_id: str = "p1", **changes: object) -> Policy:
    content = replace(
        default_content(),
        links=(("role:seller", "role:agent", "sales"),),
        row_filters=(RowFilter("role:seller", "*", "tickets", "department", ("$department",)),),
        conditions=(NamedCondition("inside", Network(("10.0.0.0/8",)), True, "the office"),),
        departments=(("sales", ""), ("sales-east", "sales")),
        teams=(("team-a", ("user:ann", "user:bo")),),
    )
    content = replace(content, tests=(PolicyTest("销售", "# 表\nrole: role:seller\n"),))
    return replace(Policy(policy_id, "draft", 0, 1, "why", content, "user:ann"), **changes)


def test_a_principal_comes_back_as_it_was_written(stores: Stores) -> None:
    stored = stores.principals.insert(person(locked_until=NOW, failures=6, totp_step=77, bootstrap_hash="x"))

    found = stores.principals.get("user-ann")

    assert found is not None
    assert (found.version, found.roles, found.totp_secret) == (1, ("role:seller",), "JBSWY3DPEHPK3PXPJBSWY3DP")
    assert (found.locked_until, found.failures, found.totp_step, found.bootstrap_hash) == (NOW, 6, 77, "x")
    assert stored.version == 1
    assert stores.principals.get("user-nobody") is None


def test_second_factors_come_back_as_they_were_written_and_their_secrets_are_sealed(stores: Stores) -> None:
    code = Authenticator("a" * 12, "totp", "手机", NOW, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", 9, last_use_time=NOW)
    key = Authenticator(
        "b" * 12,
        "webauthn",
        "钥匙",
        NOW,
        credential_id="AQID",
        public_key="BAUG",
        sign_count=3,
        transports=("usb", "nfc"),
    )
    begun = Authenticator("c" * 12, "webauthn", "新", NOW, "challenge", activation_end=NOW)
    stores.principals.insert(person(authenticators=(code, key, begun), user_handle="aGFuZGxl"))
    stores.principals.insert(person("bo"))

    found = stores.principals.by_handle("aGFuZGxl")

    assert found is not None
    assert (found.id, found.authenticators) == ("user-ann", (code, key, begun))
    assert stores.principals.save(replace(found, authenticators=(key,))).authenticators == (key,)
    assert stores.principals.by_handle("") is None
    assert stores.principals.by_handle("bm9ib2R5") is None


def test_a_login_is_taken_once(stores: Stores) -> None:
    stores.principals.insert(person(), "request-1")

    with pytest.raises(PrincipalExists):
        stores.principals.insert(person(), "request-2")
    assert stores.principals.made_by("request-1", "user-ann")
    assert not stores.principals.made_by("request-2", "user-ann")
    assert not stores.principals.made_by("", "user-ann")


def test_the_slower_of_two_changes_is_refused(stores: Stores) -> None:
    first = stores.principals.insert(person())
    second = stores.principals.save(replace(first, enabled=False, locked_until=None))

    assert second.version == 2
    with pytest.raises(Conflict):
        stores.principals.save(replace(first, department="service"))
    found = stores.principals.get("user-ann")
    assert found is not None
    assert (found.enabled, found.department) == (False, "sales")


def test_principals_are_paged_by_id_and_department(stores: Stores) -> None:
    for number in range(5):
        stores.principals.insert(person(f"p{number}", department="sales" if number % 2 else "service"))

    assert [p.id for p in stores.principals.page("user-p0", 2, "")] == ["user-p1", "user-p2"]
    assert [p.id for p in stores.principals.page("", 9, "sales")] == ["user-p1", "user-p3"]


def test_changed_principals_are_found_by_time(stores: Stores) -> None:
    stores.principals.insert(person())

    assert len(stores.principals.changed_since(datetime.now(UTC) - timedelta(minutes=1))) == 1
    assert stores.principals.changed_since(datetime.now(UTC) + timedelta(minutes=1)) == []


def test_a_revocation_never_moves_back(stores: Stores) -> None:
    later = Revocation("user:ann", NOW + timedelta(minutes=5), NOW + timedelta(minutes=35))
    for each in (later, Revocation("user:ann", NOW, NOW + timedelta(minutes=30))):
        stores.revocations.add(each)

    assert stores.revocations.unexpired(NOW) == [later]


def test_revocations_end_when_no_token_can_live(stores: Stores) -> None:
    stores.revocations.add(Revocation("token:t1", NOW, NOW + timedelta(minutes=30)))
    stores.revocations.add(Revocation("user:ann", NOW, NOW + timedelta(minutes=30)))
    stores.revocations.add(Revocation("user:ann", NOW + timedelta(minutes=5), NOW + timedelta(minutes=35)))

    later = stores.revocations.unexpired(NOW + timedelta(minutes=31))

    assert {"token:t1", "user:ann"} == {r.id for r in stores.revocations.unexpired(NOW)}
    assert [Revocation("user:ann", NOW + timedelta(minutes=5), NOW + timedelta(minutes=35))] == later


def test_a_policy_comes_back_as_it_was_written(stores: Stores) -> None:
    stores.policies.insert(policy())

    found = stores.policies.get("p1")

    assert found is not None
    assert (policy().content, "draft", 0, "why", 1) == (
        found.content, found.state, found.number, found.comment, found.version,
    )  # fmt: skip


def test_one_of_many_publications_of_a_number_wins(stores: Stores) -> None:
    """Fifty people approve fifty drafts of one version at once."""
    drafts = [stores.policies.insert(policy(f"p{n}")) for n in range(10)]
    won: list[str] = []

    def publish(draft: Policy) -> None:
        with suppress(AlreadyExists):
            won.append(stores.policies.save(replace(draft, state="published", number=2)).id)

    threads = [threading.Thread(target=publish, args=(draft,)) for draft in drafts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    newest = stores.policies.newest_after(1)
    assert newest is not None and newest == stores.policies.numbered(2) and won == [newest.id]
    assert stores.policies.newest_after(2) is None and stores.policies.numbered(0) is None
    with pytest.raises(AlreadyExists):
        stores.policies.insert(policy("late", state="published", number=2))


def of_one_moment(stores: Stores) -> None:
    """Make all revisions as old as each other: two requests may come within a millisecond."""
    if isinstance(stores.policies, memory.MemoryPolicies):
        rows = stores.policies._rows
        rows.update({id: replace(row, create_time=NOW) for id, row in rows.items()})
    else:
        records.database("access")["policies"].update_many({}, {"$set": {"create_time": NOW}})


@pytest.mark.parametrize("at_once", [False, True])
def test_policies_are_listed_newest_first_each_once_without_their_content(stores: Stores, at_once: bool) -> None:
    made = [stores.policies.insert(policy(f"p{number}")) for number in range(5)]
    if at_once:
        of_one_moment(stores)
    told = page = stores.policies.page(None, 2)
    while page and page[-1].create_time:
        page = stores.policies.page((page[-1].create_time, page[-1].id), 2)
        told = [*told, *page]

    assert [heading.id for heading in told] == [policy.id for policy in reversed(made)]
    if not at_once:
        assert told == [known.heading() for policy in reversed(made) if (known := stores.policies.get(policy.id))]
    assert {heading.rule_count for heading in told} == {len(made[0].content.rules)}
    assert not hasattr(told[0], "content")


@pytest.mark.mongo
def test_rules_of_a_revision_from_before_they_were_counted_are_counted(request: pytest.FixtureRequest) -> None:
    with emptied(request, "policies"):
        records.ensure_indexes(mongo.RECORDS)
        made = mongo.MongoPolicies().insert(policy())
        records.database("access")["policies"].update_many({}, {"$unset": {"rule_count": ""}})

        assert [found.rule_count for found in mongo.MongoPolicies().page(None, 9)] == [len(made.content.rules)]


def test_those_who_have_to_wait_are_found(stores: Stores) -> None:
    for login, until in (("ann", NOW + timedelta(seconds=1)), ("bob", NOW - timedelta(seconds=1)), ("eve", None)):
        stores.principals.insert(person(login, locked_until=until))

    assert [found.login for found in stores.principals.page("", 10, "", NOW)] == ["ann"]
    assert stores.principals.page("", 10, "marketing", NOW) == []
