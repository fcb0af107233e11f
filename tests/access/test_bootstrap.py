"""The bootstrap file makes principals once: a restart undoes nothing that was changed since."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from kehu.access.v1 import access_pb2 as pb

from services.access.bootstrap import Wanted, read_bootstrap, seed
from services.access.domain.principals import Principal
from tests.access.test_people import GOOD, accept, code_of
from tests.access.test_people import sign_in as person_sign_in
from tests.access.world import PEOPLE, TOTP, World, running_world

APP, ROOT = "app-marketing-app", "user-root"


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def restarted(world: World, **changes: str) -> None:
    """Start access again, with the file as it was or with something else of the app and the person in it."""
    seed(world.context, [replace(one, **changes) for one in PEOPLE])


def stored(world: World, principal_id: str) -> Principal:
    found = world.context.principals.get(principal_id)
    assert found is not None
    return found


def has_secret(world: World, principal_id: str, secret: str) -> bool:
    return world.context.passwords.matches(stored(world, principal_id).secret_hash, secret)


def rotate(world: World, principal_id: str) -> pb.PrincipalSecret:
    return world.stub().RotateSecret(pb.RotateSecretRequest(principal_id=principal_id), timeout=5).secret


def sign_in(world: World, secret: str) -> str:
    request = pb.CreateTokenRequest(
        grant_type="client_credentials", client_id="marketing-app", client_secret=secret
    )  # fmt: skip
    return world.stub(caller="").CreateToken(request, timeout=5).access_token


def test_a_rotated_secret_stays_ended_after_a_restart(world: World) -> None:
    new = rotate(world, APP).client_secret
    restarted(world)

    assert sign_in(world, new)
    with pytest.raises(grpc.RpcError):
        sign_in(world, "marketing secret")


@pytest.mark.parametrize("changes", [{"secret_hash": "hash of mine"}, {"totp_secret": "K" * 32}])
def test_what_a_person_changed_is_kept_by_a_restart(world: World, changes: dict) -> None:
    changed = world.context.principals.save(replace(stored(world, ROOT), **changes))
    restarted(world)

    assert stored(world, ROOT) == changed


def test_an_invited_anew_person_keeps_the_password_of_the_invitation(world: World) -> None:
    second = Wanted("user", "second", "administration", "second password", TOTP)
    seed(world.context, [second])
    token = rotate(world, "user-second").invitation_token
    seed(world.context, [replace(second, secret="another")])  # the file changes while nobody can sign in
    accept(world, token)
    seed(world.context, [replace(second, secret="another")])

    assert has_secret(world, "user-second", GOOD)


def test_a_password_of_the_file_is_good_however_an_input_method_writes_its_signs(world: World, tmp_path: Path) -> None:
    file, password = tmp_path / "credentials.json", "正月十五 ＬＡＮＴＥＲＮＳ over the river"
    person = {"username": "wide.wu", "password": password, "department": "service", "totp_secret": TOTP}
    file.write_text(json.dumps({"clients": [], "people": [person]}), encoding="utf-8")
    seed(world.context, read_bootstrap(file))

    assert person_sign_in(world, "wide.wu", password, totp=code_of(world, "wide.wu"))


def test_a_file_that_changed_is_followed_once(world: World) -> None:
    restarted(world, secret="from the file")
    assert has_secret(world, APP, "from the file") and has_secret(world, ROOT, "from the file")
    new = rotate(world, APP).client_secret
    restarted(world, secret="from the file")

    assert has_secret(world, APP, new)


@pytest.mark.parametrize("rotated", [True, False])
def test_who_was_there_before_the_file_was_remembered_keeps_the_secret_they_have(world: World, rotated: bool) -> None:
    secret = rotate(world, APP).client_secret if rotated else "marketing secret"
    world.context.principals.save(replace(stored(world, APP), bootstrap_hash=""))
    restarted(world)
    assert has_secret(world, APP, secret)

    restarted(world, secret="from the file")
    assert has_secret(world, APP, "from the file")


def test_department_and_roles_of_who_is_there_are_kept(world: World) -> None:
    restarted(world, department="sales", secret="from the file")

    assert (stored(world, APP).department, stored(world, APP).roles) == ("marketing", ("role:marketer",))
