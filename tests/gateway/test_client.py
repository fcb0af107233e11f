"""kehu.client against a real gateway, before a service made for tests: the client of it is generated here."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from types import ModuleType

import httpx
import pytest
from google.protobuf import descriptor_pb2
from kehu.client import (
    NO_ANSWER,
    AppSecret,
    InvalidRequest,
    Kehu,
    KehuProblem,
    NotFound,
    OperationFailed,
    PermissionDenied,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
    VersionMismatch,
)

from client.generate import generate
from infra.processes import free_port
from services.chassis.errors import NotAllowed
from services.chassis.jobs import Owner, Worker

RIGHT = AppSecret("app1", "right+secret")


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


def files_of(file) -> list[descriptor_pb2.FileDescriptorProto]:
    """Return a file after those it imports."""
    found = [one for needed in file.dependencies for one in files_of(needed)]
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    return [*found, proto]


@pytest.fixture(scope="session")
def kitchen_client(kitchen_file, messages) -> type:
    """The kitchen's client, generated from its descriptors."""
    sys.modules["kehu.kitchen.v1"] = package = ModuleType("kehu.kitchen.v1")
    package.kitchen_pb2 = sys.modules["kehu.kitchen.v1.kitchen_pb2"]
    vars(package.kitchen_pb2).update(messages)
    source = generate(descriptor_pb2.FileDescriptorSet(file=files_of(kitchen_file)))["kitchen.py"]
    module = ModuleType("kitchen")
    exec(source, vars(module))
    return module.Kitchen


@pytest.fixture
def make(world, kitchen_client):
    """Make clients whose `kitchen` is the generated one."""
    clients = []

    def new(sign_in=RIGHT, purpose="", **more):
        client = Kehu(f"http://127.0.0.1:{world.port}", sign_in, purpose, **more)
        clients.append(client)
        return kitchen_client(client._connection, client._options), client

    yield new
    for client in clients:
        client.close()


@pytest.fixture
def kitchen(make):
    return make(purpose="service")[0]


@pytest.fixture
def outages():
    return Outages()


@pytest.fixture
def hurt(make, outages):
    return make(transport=outages)[0]


def test_it_fetches_a_token_once_and_sends_the_purpose(world, kitchen):
    assert kitchen.get_dish(name="dishes/soup").title == "app:app1|service"
    kitchen.get_dish(name="dishes/soup")

    assert world.kitchen.calls.count("token") == 1


def test_another_purpose_shares_the_token(world, make, kitchen_client):
    _, client = make(purpose="service")
    other = client.using(purpose="marketing")
    for one in (client, other):
        kitchen_client(one._connection, one._options).get_dish(name="dishes/soup")

    purposes = [call.caller.purpose for call in world.kitchen.calls if call != "token"]
    assert (purposes, world.kitchen.calls.count("token")) == (["service", "marketing"], 1)


def test_it_renews_a_token_before_it_ends(world, kitchen):
    world.kitchen.token_seconds = 10
    kitchen.get_dish(name="dishes/soup")
    kitchen.get_dish(name="dishes/soup")
    world.kitchen.token_seconds = 900

    assert world.kitchen.calls.count("token") == 2


def test_wrong_credentials_are_a_problem_that_does_not_show_them(make):
    kitchen, client = make(AppSecret("app1", "wrong-secret"))
    with pytest.raises(Unauthenticated) as caught:
        kitchen.get_dish(name="dishes/soup")

    assert (caught.value.status, caught.value.reason) == (401, "CREDENTIALS_REFUSED")
    assert "wrong-secret" not in f"{caught.value!r} {client!r} {AppSecret('app1', 'wrong-secret')!r}"


def test_the_other_form_of_a_path_is_taken_when_the_first_does_not_fit(kitchen):
    assert kitchen.get_dish(name="kitchens/k/dishes/soup").name == "kitchens/k/dishes/soup"


@pytest.mark.parametrize("name", ["soup", "", "dishes/", "dishes/a/b", "dishes/.."])
def test_a_name_that_fits_no_path_is_refused_before_anything_is_sent(hurt, outages, name):
    with pytest.raises(ValueError, match=r"name must look like dishes/\*, or name must look like kitchens"):
        hurt.get_dish(name=name)

    assert outages.sent == []


def test_a_refusal_tells_reason_fields_and_request(kitchen):
    with pytest.raises(InvalidRequest) as caught:
        kitchen.get_dish(name="dishes/spicy")

    assert caught.value.reason == "BAD_SPICE"
    assert [(fault.pointer, fault.detail) for fault in caught.value.errors] == [("/dish/tags/2", "is too hot")]
    assert "/dish/tags/2 is too hot" in str(caught.value)
    assert caught.value.request_id in str(caught.value)


def test_refusals_have_classes_of_their_own(world, make, kitchen):
    with pytest.raises(NotFound, match="DISH_GONE"):
        kitchen.get_dish(name="dishes/gone")
    with pytest.raises(QuotaExceeded) as full:
        make(deadline_seconds=0.5)[0].get_dish(name="dishes/full")
    world.policy.denied.add(("dishes", "read"))
    with pytest.raises(PermissionDenied) as denied:
        kitchen.get_dish(name="dishes/soup")

    assert full.value.retry_after == 1
    assert denied.value.decision_id.startswith("decision-")


def test_a_write_carries_a_key_of_its_own_or_the_one_given(kitchen):
    assert kitchen.create_dish(dish={"title": "汤"}, request_id="k1").request_id == "k1"
    assert len(kitchen.create_dish(dish={"title": "汤"}).request_id) == 36


def test_a_change_is_meant_for_the_version_that_was_read(kitchen):
    dish = kitchen.get_dish(name="dishes/soup")
    assert kitchen.update_dish(dish=dish, update_mask=["title"]).dish.etag == "3"
    dish.etag = "2"
    with pytest.raises(VersionMismatch) as caught:
        kitchen.update_dish(dish=dish)

    assert caught.value.status == 412


def test_it_uploads_paths_and_streams(kitchen, tmp_path):
    path = tmp_path / "recipe.csv"
    path.write_bytes(b"x" * 1_000_000)

    sent = kitchen.import_recipe(name="kitchens/k", language="zh", file=path)

    assert (sent.header.file_name, sent.header.language) == ("recipe.csv", "zh")
    assert kitchen.import_recipe(name="kitchens/k", file=io.BytesIO(b"abc")).size_bytes == 3


def test_many_lines_are_sent_in_requests_that_go_on_where_the_last_ended(world, kitchen):
    answers = list(kitchen.stream_orders(name="kitchens/k", lines=(f'{{"n":{n}}}' for n in range(5600))))

    assert answers[-1].last_line == 5600
    assert [line for _, lines, _ in world.kitchen.orders for line in lines] == [
        f'{{"n":{n}}}'.encode() for n in range(5600)
    ]


def test_lines_that_are_not_taken_are_a_problem_after_the_answers_before(world, kitchen):
    def refuse(number):
        if number > 500:
            raise NotAllowed("the kitchen is closed")

    world.kitchen.before_order = refuse
    answers = []
    with pytest.raises(InvalidRequest, match="the kitchen is closed"):
        for answer in kitchen.stream_orders(name="kitchens/k", lines=[{"n": n} for n in range(1200)]):
            answers.append(answer.last_line)

    assert answers == [500]


def test_it_waits_for_an_operation_and_shows_its_progress(world, make, messages):
    _, client = make()
    started = world.jobs.start("cook", {}, messages["Range"](low=7), Owner("app:app1", "kitchen"))
    worker = Worker("kitchen", {"cook": lambda job: messages["Dish"](name="done")}, world.jobs.store)
    seen = []

    def progress(metadata):
        seen.append(metadata)
        worker.run_one()

    operation = client.operation(started.name)

    assert not operation.is_done
    with pytest.raises(ValueError, match="is not done yet"):
        operation.response  # noqa: B018
    assert operation.wait(10, progress) == messages["Dish"](name="done")
    assert seen == [messages["Range"](low=7)]


def test_waiting_ends_but_the_operation_does_not(world, make, messages):
    _, client = make()
    started = world.jobs.start("cook", {}, messages["Range"](), Owner("app:app1", "kitchen"))
    with pytest.raises(TimeoutError, match="is not done after 0.1 s"):
        client.operation(started.name).wait(0.1)

    worker = Worker("kitchen", {"cook": lambda job: messages["Dish"](name="done")}, world.jobs.store)
    threading.Timer(0.2, worker.run_one).start()
    assert client.operation(started.name).wait(10).name == "done"


def test_a_failed_operation_is_raised(world, make, messages):
    def burn(job):
        raise NotAllowed("the oven is off")

    started = world.jobs.start("burn", {}, messages["Range"](), Owner("app:app1", "kitchen"))
    Worker("kitchen", {"burn": burn}, world.jobs.store).run_one()
    operation = make()[1].operation(started.name)

    with pytest.raises(OperationFailed, match="the oven is off"):
        operation.wait(10)
    assert operation.error.message == "the oven is off"


def test_a_read_is_repeated_until_it_is_answered(hurt, outages):
    outages.ahead = [503, NO_ANSWER, 502, 504]

    assert hurt.get_dish(name="dishes/soup").name == "dishes/soup"
    assert len({request.headers["X-Request-Id"] for request in outages.sent}) == 1


def test_a_write_whose_answer_was_lost_is_repeated_with_its_key(hurt, outages):
    outages.ahead = [NO_ANSWER, 503]

    assert hurt.create_dish(dish={"title": "汤"}, request_id="once").request_id == "once"
    assert {request.url.params["request_id"] for request in outages.sent} == {"once"}
    assert len(outages.sent) == 3


@pytest.mark.parametrize("status", [NO_ANSWER, 503])
def test_a_write_without_a_key_is_not_repeated(hurt, outages, status):
    outages.ahead = [status]

    with pytest.raises(Unavailable) as caught:
        hurt.serve_dish(name="dishes/soup", table=1)
    assert (caught.value.status, len(outages.sent)) == (status, 1)


def test_a_write_that_was_not_done_is_repeated(hurt, outages):
    outages.ahead = [429]

    assert hurt.serve_dish(name="dishes/soup", table=1).table == 1


def test_a_write_without_a_key_is_repeated_for_those_who_say_so(make, outages):
    outages.ahead = [503, NO_ANSWER]

    assert make(transport=outages, repeats_writes=True)[0].serve_dish(name="dishes/soup", table=1).table == 1


def test_the_deadline_ends_the_repeats_and_is_told_to_the_gateway(make, outages):
    kitchen = make(transport=outages, deadline_seconds=1)[0]
    kitchen.get_dish(name="dishes/soup")
    outages.ahead = [503] * 99
    began = time.monotonic()
    with pytest.raises(Unavailable):
        kitchen.get_dish(name="dishes/soup")

    told = [float(request.headers["X-Request-Timeout"]) for request in outages.sent[1:]]
    assert time.monotonic() - began < 1.1
    assert told == sorted(told, reverse=True) and 0.1 <= told[-1] < told[0] <= 1


def test_a_file_is_sent_whole_again_after_an_outage(hurt, outages, tmp_path):
    path = tmp_path / "recipe.csv"
    path.write_bytes(b"x" * 1_000_000)
    outages.ahead = [429]

    assert hurt.import_recipe(name="kitchens/k", file=path).size_bytes == 1_000_000


def test_a_refused_token_is_renewed_once(world, hurt, outages):
    outages.ahead = [401]

    assert hurt.get_dish(name="dishes/soup").name == "dishes/soup"
    assert world.kitchen.calls.count("token") == 2


def test_nobody_listening_is_told_without_what_was_asked(kitchen_client):
    with (
        Kehu(f"http://127.0.0.1:{free_port()}", None, deadline_seconds=0.1) as client,
        pytest.raises(Unavailable, match="NO_ANSWER: GET /v1/{name=kitchens") as caught,
    ):
        kitchen_client(client._connection, client._options).get_dish(name="kitchens/private/dishes/secret")

    assert caught.value.status == NO_ANSWER
    assert "private" not in str(caught.value)


def test_what_is_asked_is_not_logged(kitchen, caplog):
    with caplog.at_level(logging.DEBUG):
        kitchen.list_dishes(tags=["13812348000"])
        with pytest.raises(KehuProblem):
            kitchen.get_dish(name="dishes/gone")

    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("httpx", "httpcore", "kehu"))]
    assert not [text for text in ours if "13812348000" in text or "right" in text or "dishes/gone" in text]
