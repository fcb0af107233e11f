"""The Python client against a real gateway."""

from __future__ import annotations

import io
import threading

import httpx
import pytest

from gateway.client import NO_ANSWER, ClientCredentials, KehuClient, KehuProblem, OperationFailed
from infra.processes import free_port
from services.chassis.errors import NotAllowed
from services.chassis.jobs import Owner, Worker

RIGHT = ClientCredentials("app1", "right+secret")


class Outages(httpx.HTTPTransport):
    """The way to the gateway, on which the next requests (those for tokens apart) are hurt as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead: list[int] = []
        self.sent: list[httpx.Request] = []

    def handle_request(self, request):
        if request.url.path == "/oauth2/token":
            return super().handle_request(request)
        self.sent.append(httpx.Request(request.method, request.url, headers=request.headers))
        status = self.ahead.pop(0) if self.ahead else 200
        reply = super().handle_request(request)
        if status == 200:
            return reply
        reply.read()
        if status == NO_ANSWER:
            raise httpx.ReadError("the answer was lost")
        return httpx.Response(status)


@pytest.fixture
def client(world):
    with KehuClient(f"http://127.0.0.1:{world.port}", RIGHT, "service") as client:
        yield client


@pytest.fixture
def outages():
    return Outages()


@pytest.fixture
def hurt(world, outages):
    with KehuClient(f"http://127.0.0.1:{world.port}", RIGHT, transport=outages) as client:
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
    wrong = ClientCredentials("app1", "wrong")
    with KehuClient(f"http://127.0.0.1:{world.port}", wrong) as client, pytest.raises(KehuProblem) as caught:
        client.get("/v1/dishes/soup")

    assert (caught.value.status, caught.value.reason) == (401, "CREDENTIALS_REFUSED")


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


def test_progress_is_shown_while_an_operation_runs(world, client, messages):
    started = world.jobs.start("cook", {}, messages["Range"](low=7), Owner("app:app1", "kitchen"))
    worker = Worker("kitchen", {"cook": lambda job: messages["Dish"]()}, world.jobs.store)
    seen = []

    def progress(metadata):
        seen.append(metadata["low"])
        worker.run_one()

    client.wait_operation(client.get(f"/v1/{started.name}"), 10, progress)

    assert seen == ["7"]


def test_a_read_is_repeated_until_it_is_answered(hurt, outages):
    outages.ahead = [503, NO_ANSWER, 502, 504]

    assert hurt.get("/v1/dishes/soup")["name"] == "dishes/soup"
    assert len({request.headers["X-Request-Id"] for request in outages.sent}) == 1


def test_a_write_whose_answer_was_lost_is_repeated_with_its_key(hurt, outages):
    outages.ahead = [NO_ANSWER, 503]

    assert hurt.post("/v1/dishes", {"title": "汤"}, key="once")["request_id"] == "once"
    assert [request.headers["Idempotency-Key"] for request in outages.sent] == ["once"] * 3


@pytest.mark.parametrize("status", [NO_ANSWER, 503])
def test_a_write_without_a_key_is_not_repeated(hurt, outages, status):
    outages.ahead = [status]

    with pytest.raises(KehuProblem) as caught:
        hurt.post("/v1/dishes", {"title": "汤"})
    assert (caught.value.status, len(outages.sent)) == (status, 1)


def test_a_write_that_was_not_done_is_repeated(hurt, outages):
    outages.ahead = [429]

    assert hurt.post("/v1/dishes", {"title": "汤"})["dish"] == {"title": "汤"}


def test_a_write_without_a_key_is_repeated_for_those_who_say_so(world, outages):
    outages.ahead = [503, NO_ANSWER]
    with KehuClient(f"http://127.0.0.1:{world.port}", RIGHT, transport=outages, repeats_writes=True) as client:
        assert client.post("/v1/dishes", {"title": "汤"})["dish"] == {"title": "汤"}


def test_patience_ends(world, outages):
    outages.ahead = [503] * 9
    with (
        KehuClient(f"http://127.0.0.1:{world.port}", RIGHT, transport=outages, patience_seconds=0.15) as client,
        pytest.raises(KehuProblem),
    ):
        client.get("/v1/dishes/soup")

    assert len(outages.sent) == 2


def test_a_file_is_sent_whole_again_after_an_outage(hurt, outages, tmp_path):
    path = tmp_path / "recipe.csv"
    path.write_bytes(b"x" * 1_000_000)
    outages.ahead = [429]

    assert hurt.upload("/v1/kitchens/k:import", path)["size_bytes"] == "1000000"


def test_a_refused_token_is_renewed_once(world, hurt, outages):
    outages.ahead = [401]

    assert hurt.get("/v1/dishes/soup")["name"] == "dishes/soup"
    assert world.kitchen.calls.count("token") == 2


def test_nobody_listening_is_told():
    with (
        KehuClient(f"http://127.0.0.1:{free_port()}", RIGHT, patience_seconds=0) as client,
        pytest.raises(KehuProblem, match="NO_ANSWER: GET /v1/dishes/soup: ConnectError"),
    ):
        client.get("/v1/dishes/soup", secret="not told")
