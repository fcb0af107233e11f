"""The guard lets nothing through unchecked, and errors cross as google.rpc.Status."""

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import struct_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.chassis.jobs import Job, Jobs, MemoryOperations, Owner, Worker
from services.chassis.server import Serving
from tests.harness import OpenPolicy, running

OWNER = Owner("user:test", "data-office")
Stub = operations_pb2_grpc.OperationsStub


@pytest.fixture
def jobs():
    return Jobs("tickets", MemoryOperations())


@pytest.fixture
def served(jobs):
    with running(Serving("tickets", [], jobs)) as harness:
        yield harness


def reason_of(error: grpc.RpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    rpc_status.from_call(error).details[0].Unpack(info)
    return info.reason


def start(jobs: Jobs) -> operations_pb2.Operation:
    return jobs.start("count", {"to": 3}, struct_pb2.Value(number_value=0), OWNER)


def test_an_operation_is_shown_to_its_own_department(jobs, served):
    operation = start(jobs)

    found = served.stub(Stub).GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=5)

    assert operation.name == found.name


def test_an_operation_of_another_department_does_not_exist(jobs, served):
    operation = start(jobs)
    stub = served.stub(Stub, caller="user:eve@marketing")

    with pytest.raises(grpc.RpcError) as caught:
        stub.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=5)

    assert (grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND") == (caught.value.code(), reason_of(caught.value))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"caller": ""}, grpc.StatusCode.UNAUTHENTICATED),
        ({"caller": "nonsense"}, grpc.StatusCode.UNAUTHENTICATED),
        ({"caller": "", "peer": "marketing"}, grpc.StatusCode.PERMISSION_DENIED),
    ],
)
def test_a_caller_who_does_not_prove_a_right_is_refused(served, changes, code):
    with pytest.raises(grpc.RpcError) as caught:
        served.stub(Stub, **changes).GetOperation(operations_pb2.GetOperationRequest(name="operations/x"), timeout=5)

    assert code == caught.value.code()


def test_a_denied_call_is_audited_and_learns_nothing(jobs):
    policy = OpenPolicy(denied={("operations", "read")})
    operation = start(jobs)
    with running(Serving("tickets", [], jobs), policy) as harness:
        with pytest.raises(grpc.RpcError) as caught:
            harness.stub(Stub).GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=5)

        assert grpc.StatusCode.PERMISSION_DENIED == caught.value.code()
        assert [("user:test", "/google.longrunning.Operations/GetOperation", "", "PERMISSION_DENIED")] == (
            harness.trail.entries
        )


def test_a_call_without_a_deadline_is_refused_by_the_server(served):
    channel = grpc.insecure_channel(served.address)
    with pytest.raises(grpc.RpcError) as caught:
        Stub(channel).GetOperation(operations_pb2.GetOperationRequest(name="operations/x"))
    channel.close()

    assert "DEADLINE_REQUIRED" == reason_of(caught.value)


def test_our_own_client_cannot_forget_a_deadline(served):
    with pytest.raises(TypeError):
        served.stub(Stub).GetOperation(operations_pb2.GetOperationRequest(name="operations/x"))


def test_an_unexpected_error_shows_an_id_and_no_text(jobs, served, monkeypatch):
    monkeypatch.setattr(jobs, "get", lambda *_: 1 / 0)
    with pytest.raises(grpc.RpcError) as caught:
        served.stub(Stub).GetOperation(operations_pb2.GetOperationRequest(name="operations/x"), timeout=5)

    assert grpc.StatusCode.INTERNAL == caught.value.code()
    assert "division" not in caught.value.details()


def test_a_job_resumes_from_its_checkpoint_after_a_crash():
    store = MemoryOperations()
    jobs = Jobs("tickets", store)
    operation = start(jobs)
    seen: list[int] = []

    def count(job: Job) -> struct_pb2.Value:
        for number in range(int(job.checkpoint.get("at", 0)), int(job.args["to"])):
            seen.append(number)
            job.save({"at": number + 1}, struct_pb2.Value(number_value=number + 1))
            if number == 1 and len(seen) == 2:
                raise RuntimeError("crash")
        return struct_pb2.Value(string_value="counted")

    worker = Worker("tickets", {"count": count}, store)
    assert worker.run_one()
    store.update(operation.name, "", {"wake_at": store.get(operation.name)["create_time"]})
    assert worker.run_one()

    assert [0, 1, 2] == seen
    assert jobs.get(operation.name, "data-office").done


def test_a_cancelled_job_stops_at_its_next_checkpoint():
    store = MemoryOperations()
    jobs = Jobs("tickets", store)
    operation = start(jobs)
    steps: list[int] = []

    def work(job: Job) -> struct_pb2.Value:
        jobs.cancel(operation.name, "data-office")
        job.save({}, struct_pb2.Value())
        steps.append(1)
        return struct_pb2.Value()

    Worker("tickets", {"count": work}, store).run_one()

    assert [] == steps
    assert "CANCELLED" in str(jobs.get(operation.name, "data-office").error)
