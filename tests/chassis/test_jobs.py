"""What jobs promise whatever they do: given up only when they fail again and again without getting any further."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import mongoengine
import pytest
from google.longrunning import operations_pb2
from google.protobuf import wrappers_pb2
from google.protobuf.message import Message

from infra.processes import wait_until
from services.chassis import records
from services.chassis.errors import Busy
from services.chassis.jobs import (
    ATTEMPTS,
    Job,
    Jobs,
    MemoryOperations,
    MongoOperations,
    OperationStore,
    Owner,
    Paused,
    Worker,
)

STUCK = 12  # more than a worker looks at in one go


class Failing(RuntimeError):
    """A failure that nobody foresaw."""


class Steps:
    """A job of steps, which saves after each and fails unexpectedly so often before it goes on."""

    def __init__(self, failures: Iterable[int], *, shows_progress: bool = True) -> None:
        self.left = list(failures)
        self.shows_progress = shows_progress

    def run(self, job: Job) -> Message:
        done = int(str(job.checkpoint.get("done", 0)))
        while done < len(self.left):
            job.save({"done": done if self.shows_progress else 0}, wrappers_pb2.Int64Value(value=0))
            if self.left[done]:
                self.left[done] -= 1
                raise Failing
            done += 1
            job.save({"done": done if self.shows_progress else 0}, wrappers_pb2.Int64Value(value=0))
        return wrappers_pb2.Int64Value(value=done)


def ended(run: Callable[[Job], Message]) -> operations_pb2.Operation:
    """Run a job to its end, waking it at once after each failure, each time in another process."""
    store = MemoryOperations()
    jobs = Jobs("profiles", store)
    name = jobs.start("steps", {}, wrappers_pb2.Int64Value(), Owner("user:test", "sales")).name
    for _ in range(200):
        Worker("profiles", {"steps": run}, store).run_one()
        if jobs.get(name, "sales").done:
            return jobs.get(name, "sales")
        store.update(name, "", {"wake_at": datetime.now(UTC)})
    raise AssertionError("the job did not end")


def test_a_job_that_gets_further_each_time_is_not_given_up_however_often_it_failed() -> None:
    operation = ended(Steps([ATTEMPTS - 1] * 10).run)

    assert not operation.HasField("error")


def test_a_job_that_finds_others_changing_the_same_goes_on_by_itself() -> None:
    tries = []

    def run(job: Job) -> Message:
        tries.append(job.name)
        if len(tries) <= 3 * ATTEMPTS:
            raise Busy("others keep changing it")
        return wrappers_pb2.Int64Value(value=1)

    assert not ended(run).HasField("error")


def test_a_job_that_fails_at_one_place_again_and_again_is_given_up() -> None:
    operation = ended(Steps([0, 0, ATTEMPTS]).run)

    assert operation.error.message == "the job failed; see the log"


def test_saving_the_same_again_is_no_progress() -> None:
    operation = ended(Steps([1] * ATTEMPTS, shows_progress=False).run)

    assert operation.error.message == "the job failed; see the log"


def test_a_schedule_that_looks_well_between_failures_is_not_given_up() -> None:
    looks = iter(range(30))

    def look(job: Job) -> Message:
        number = next(looks, None)
        if number is None:
            return wrappers_pb2.Int64Value()
        if number % 2:
            raise Failing
        job.save({}, wrappers_pb2.Int64Value(value=number))
        raise Paused("until the next look")

    assert not ended(look).HasField("error")


@pytest.fixture(params=["memory", pytest.param("mongo", marks=pytest.mark.mongo)])
def operations(request: pytest.FixtureRequest) -> Iterator[OperationStore]:
    if request.param == "memory":
        yield MemoryOperations()
        return
    records.connect(SimpleNamespace(mongo_uri=request.getfixturevalue("mongo_uri"), grpc_threads=4), "chassis_jobs")
    records.database("chassis_jobs").drop_collection("operations")
    made = MongoOperations("chassis_jobs")
    made.ensure_indexes()
    yield made
    mongoengine.disconnect("chassis_jobs")


def started(store: OperationStore, kind: str) -> str:
    return Jobs("profiles", store).start(kind, {}, wrappers_pb2.Int64Value(), Owner("user:test", "sales")).name


def test_what_has_waited_longest_comes_first_and_only_of_the_kinds_asked_for(operations: OperationStore) -> None:
    now = datetime.now(UTC)
    names = {seconds: started(operations, "steps") for seconds in (1, 3, 2)}
    for seconds, name in names.items():
        operations.update(name, "", {"wake_at": now - timedelta(seconds=seconds)})
    other = started(operations, "another")
    operations.update(other, "", {"wake_at": now - timedelta(seconds=9)})

    assert [names[3], names[2]] == [found["_id"] for found in operations.due(now, 2, ["steps"])]
    assert [other, names[3]] == [found["_id"] for found in operations.due(now, 2)]


def test_jobs_that_never_get_on_keep_no_other_waiting(operations: OperationStore) -> None:
    def stuck(job: Job) -> Message:
        raise Paused("for a moment", 0.0)

    for _ in range(STUCK):
        started(operations, "stuck")
    waiting = started(operations, "steps")
    worker = Worker("profiles", {"stuck": stuck, "steps": Steps([0]).run}, operations)
    for _ in range(STUCK + 1):
        worker.run_one()

    assert Jobs("profiles", operations).get(waiting, "sales").done


def test_jobs_of_a_kind_that_no_worker_here_does_keep_no_other_waiting(operations: OperationStore) -> None:
    for _ in range(STUCK):
        started(operations, "of a newer release")
    waiting = started(operations, "steps")

    assert Worker("profiles", {"steps": Steps([0]).run}, operations).run_one()
    assert Jobs("profiles", operations).get(waiting, "sales").done


def test_what_ended_three_months_ago_is_forgotten_and_nothing_else(operations: OperationStore) -> None:
    old, now = datetime.now(UTC) - timedelta(days=91), datetime.now(UTC)
    gone, late, waiting = (started(operations, kind) for kind in ("ended then", "ended late", "waiting"))
    operations.update(gone, "", {"open": False, "done": True, "wake_at": old, "update_time": old})
    operations.update(late, "", {"open": False, "done": True, "wake_at": old, "update_time": now})
    operations.update(waiting, "", {"wake_at": old, "update_time": old})

    worker = Worker("profiles", {}, operations, threads=1)
    worker.start()
    assert wait_until(lambda: operations.get(gone) is None, 20, 0.05)
    worker.stop()
    assert operations.get(late) and operations.get(waiting)
