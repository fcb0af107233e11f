"""A change that is sent again to a process that never saw it is the same change: its id is stored with what it did."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from kehu.access.v1 import access_pb2 as pb

from services.access.store import mongo
from services.chassis import records
from services.chassis.crypto import Sealer
from tests.access.stores import emptied
from tests.access.world import World, running_world


def created(world: World, request_id: str) -> pb.Principal:
    app = pb.Principal(kind=pb.PRINCIPAL_KIND_APP, login="till", department="sales", roles=["role:seller"])
    return world.stub().CreatePrincipal(pb.CreatePrincipalRequest(principal=app, request_id=request_id), timeout=20)


@pytest.mark.mongo
def test_a_change_repeated_after_a_restart_is_done_once(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with emptied(request, "principals"):
        records.ensure_indexes(mongo.RECORDS)
        with running_world(principals=mongo.MongoPrincipals(Sealer("access", tmp_path))) as before:
            first = created(before, "order-1")
        with running_world(principals=mongo.MongoPrincipals(Sealer("access", tmp_path))) as after:
            again = created(after, "order-1")
            kept = after.context.principals.page("", 100, "sales")

    assert first.secret.client_secret
    assert (again.name, again.etag) == (first.name, first.etag)
    assert not again.HasField("secret")
    assert [principal.login for principal in kept] == ["till"]


@pytest.mark.mongo
def test_of_a_change_sent_to_two_processes_at_once_one_is_done(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with emptied(request, "principals"):
        records.ensure_indexes(mongo.RECORDS)
        sealer = Sealer("access", tmp_path)
        with (
            running_world(principals=mongo.MongoPrincipals(sealer)) as one,
            running_world(principals=mongo.MongoPrincipals(sealer)) as two,
        ):
            found: list[pb.Principal] = []
            threads = [
                threading.Thread(target=lambda world=world: found.append(created(world, "order-1")))
                for world in (one, two) * 3
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    assert len({principal.name for principal in found}) == 1
    assert len(found) == 6
    assert sum(principal.HasField("secret") for principal in found) == 1
