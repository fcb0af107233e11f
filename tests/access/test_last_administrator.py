"""Somebody stays who can administer, and who can sign in to do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import issuers_pb2

from services.access.domain.issuers import ClaimRule, Issuer
from services.access.domain.principals import Principal
from services.access.store.issuers import MemoryIssuers
from tests.access.test_api import new_person, refusal
from tests.access.test_people import accept
from tests.access.world import World, running_world

ROOT, SECOND = "user-root", "user-second"
ADMINISTRATOR = ("administration", ("role:administrator",))
KEPT = ("FAILED_PRECONDITION", "LAST_ADMINISTRATOR")


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def rotate(world: World, principal_id: str = ROOT) -> None:
    world.stub().RotateSecret(pb.RotateSecretRequest(principal_id=principal_id), timeout=5)


def disable(world: World, principal_id: str = ROOT) -> None:
    world.stub().DisablePrincipal(pb.DisablePrincipalRequest(principal_id=principal_id), timeout=5)


def disable_issuer(world: World) -> None:
    mask, issuer = FieldMask(paths=["disabled"]), issuers_pb2.Issuer(disabled=True)
    request = issuers_pb2.UpdateIssuerRequest(issuer_id="acme", issuer=issuer, update_mask=mask)
    world.stub().UpdateIssuer(request, timeout=5)


def delete_issuer(world: World) -> None:
    world.stub().DeleteIssuer(issuers_pb2.DeleteIssuerRequest(issuer_id="acme"), timeout=5)


def refused(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return refusal(caught.value)


def with_issuer(world: World) -> None:
    """Let a company's administrator sign in beside ours."""
    rules = (ClaimRule("", "", "sales", "role:seller"),)
    world.context.issuers.insert(Issuer("acme", "https://acme.test", ("kehu",), "sub", rules))
    world.context.principals.insert(Principal("user", "second", *ADMINISTRATOR, "", issuer="acme"))
    world.context.directory.refresh(at_once=True)


def without_root(world: World) -> None:
    root = world.context.principals.get(ROOT)
    assert root is not None
    world.context.principals.save(replace(root, enabled=False))
    world.context.directory.refresh(at_once=True)


@pytest.mark.parametrize("take", [disable, rotate])
def test_who_never_accepted_the_invitation_is_no_administrator_who_stays(
    world: World, take: Callable[[World], None]
) -> None:
    token = new_person(world, "second").secret.invitation_token
    assert refused(lambda: take(world)) == KEPT
    root = world.context.principals.get(ROOT)
    assert root is not None and root.enabled and root.secret_hash

    accept(world, token)
    world.clock.forward(1)
    take(world)


def test_who_never_accepted_the_invitation_can_be_taken_out(world: World) -> None:
    new_person(world, "second")
    rotate(world, SECOND)
    disable(world, SECOND)


def test_an_administrator_of_an_issuer_in_use_stays_and_others_may_go(world: World) -> None:
    with_issuer(world)
    disable(world)


@pytest.mark.parametrize("end", [disable_issuer, delete_issuer])
def test_the_issuer_of_the_last_administrator_stays_in_use(world: World, end: Callable[[World], None]) -> None:
    with_issuer(world)
    without_root(world)
    before = world.context.issuers.all()

    assert refused(lambda: end(world)) == KEPT
    assert world.context.issuers.all() == before


@pytest.mark.parametrize("end", [disable_issuer, delete_issuer])
def test_people_of_an_issuer_that_ended_are_no_administrators_who_stay(
    world: World, end: Callable[[World], None]
) -> None:
    with_issuer(world)
    end(world)

    assert refused(lambda: disable(world)) == KEPT


@pytest.mark.parametrize(("end", "does"), [(disable_issuer, "save"), (delete_issuer, "delete")])
def test_an_issuer_comes_back_when_the_other_administrator_goes_at_the_same_moment(
    world: World, monkeypatch: pytest.MonkeyPatch, end: Callable[[World], None], does: str
) -> None:
    with_issuer(world)
    store = world.context.issuers
    assert isinstance(store, MemoryIssuers)
    original, times = getattr(store, does), []

    def meanwhile(*given: object) -> object:
        if not times:
            times.append(without_root(world))  # by another process, which saw both a moment ago
        return original(*given)

    monkeypatch.setattr(store, does, meanwhile)

    assert refused(lambda: end(world)) == KEPT
    assert [issuer.disabled for issuer in store.all()] == [False]
