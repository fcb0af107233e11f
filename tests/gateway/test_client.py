"""The Python client against a real gateway."""

from __future__ import annotations

import io
import threading

import pytest

from gateway.client import KehuClient, KehuProblem, OperationFailed
from services.chassis.errors import NotAllowed
from services.chassis.jobs import Owner, Worker


@pytest.fixture
def client(world):
    with KehuClient(f"http://127.0.0.1:{world.port}", "app1", "right+secret", "service") as client:
        yield client


def test_it_fetches_a_token_once_and_sends_the_purpose(world, client):
    assert client.get("/v1/dishes/soup")["title"] == "app:app1|service"
    client.get("/v1/dishes/soup")

    assert world.kitchen.calls.count("token") == 1


def test_it_renews_a_token_before_it_ends(world, client):
    world.kitchen.token_seconds = 10
    client.get("/v1/dishes/soup")
    client.get("/v1/dishes/soup")
    world.kitchen.token_seconds = 900

    assert world.kitchen.calls.count("token") == 2


def test_wrong_credentials_are_a_problem(world):
    with KehuClient(f"http://127.0.0.1:{world.port}", "app1", "wrong") as client, pytest.raises(KehuProblem) as caught:
        client.get("/v1/dishes/soup")

    assert (caught.value.status, caught.value.reason) == (401, "TOKEN_INVALID")


def test_a_refusal_tells_reason_fields_and_request(client):
    with pytest.raises(KehuProblem) as caught:
        client.get("/v1/dishes/spicy")

    assert caught.value.reason == "BAD_SPICE"
    assert "/dish/tags/2 is too hot" in str(caught.value)
    assert str(caught.value.document["instance"]) in str(caught.value)


def test_it_posts_with_a_key_and_patches_a_version(client):
    assert client.post("/v1/dishes", {"title": "汤"}, key="k1") == {"dish": {"title": "汤"}, "request_id": "k1"}
    assert client.patch("/v1/dishes/soup", {}, etag="3")["dish"]["etag"] == "3"
    with pytest.raises(KehuProblem) as caught:
        client.patch("/v1/dishes/soup", {}, etag="2")

    assert caught.value.status == 412


def test_it_walks_all_pages(client):
    found = [dish["name"] for dish in client.items("/v1/dishes", "dishes", page_size=1)]

    assert found == ["dishes/0", "dishes/1", "dishes/2"]


def test_it_uploads_paths_and_streams(client, tmp_path):
    path = tmp_path / "recipe.csv"
    path.write_bytes(b"x" * 1_000_000)

    assert client.upload("/v1/kitchens/k:import", path, language="zh")["header"]["file_name"] == "recipe.csv"
    assert client.upload("/v1/kitchens/k:import", io.BytesIO(b"abc"))["size_bytes"] == "3"


def test_it_waits_for_an_operation(world, client, messages):
    owner, progress = Owner("app:app1", "kitchen"), messages["Range"](low=1)
    started = world.jobs.start("cook", {}, progress, owner)
    operation = client.get(f"/v1/{started.name}")
    worker = Worker("kitchen", {"cook": lambda job: messages["Dish"](name="done")}, world.jobs.store)
    threading.Timer(0.2, worker.run_one).start()

    assert operation["metadata"] == {"@type": "type.googleapis.com/kehu.kitchen.v1.Range", "low": "1"}
    assert client.wait_operation(operation, 10)["name"] == "done"


def test_a_failed_operation_is_raised(world, client, messages):
    def burn(job):
        raise NotAllowed("the oven is off")

    started = world.jobs.start("burn", {}, messages["Range"](), Owner("app:app1", "kitchen"))
    Worker("kitchen", {"burn": burn}, world.jobs.store).run_one()

    with pytest.raises(OperationFailed, match="the oven is off"):
        client.wait_operation({"name": started.name}, 10)
