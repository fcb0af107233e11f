"""Single writes that arrive together share a batch, and each caller is told of its own records only."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from kehu.profiles.v1 import profiles_pb2, profiles_pb2_grpc

from services.profiles.errors import ProfilesBusy
from services.profiles.sharing import SharedTaker
from services.profiles.taking import Taken, Tally
from tests.profiles.people import Service, person, source_request


class SlowTaker:
    """Counts its batches; the first waits until the others have gathered."""

    merger = dictionary = None

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()

    def take(self, batch):
        self.batches.append(list(batch))
        assert self.go.wait(10)
        if "bad" in batch:
            raise ProfilesBusy("busy")
        return [Taken("created", f"p{item}") for item in batch], Tally(created=[f"p{item}" for item in batch])


def gathered(items: list[list[str]]) -> tuple[SlowTaker, list]:
    slow = SlowTaker()
    shared = SharedTaker(slow)
    with ThreadPoolExecutor(len(items)) as pool:
        first = pool.submit(shared.take, items[0])
        while not slow.batches:
            pass
        others = [pool.submit(shared.take, item) for item in items[1:]]
        while shared._open is None or shared._open.callers < len(items) - 1:
            pass
        slow.go.set()
        return slow, [first, *others]


def test_callers_that_wait_share_one_batch_and_get_their_own_results():
    slow, futures = gathered([["a"], ["b"], ["c", "d"]])

    assert [1, 3] == [len(batch) for batch in slow.batches]
    for item, future in zip((["a"], ["b"], ["c", "d"]), futures, strict=True):
        taken, tally = future.result()
        assert ([f"p{name}" for name in item], len(item)) == ([t.profile_id for t in taken], tally.profiles_created)


def test_a_failure_of_the_batch_reaches_every_caller_of_it_and_nobody_else():
    _, futures = gathered([["a"], ["bad"], ["c"]])

    assert "pa" == futures[0].result()[0][0].profile_id
    for future in futures[1:]:
        with pytest.raises(ProfilesBusy):
            future.result()


def test_many_single_writes_at_once_through_the_api_each_find_their_profile(tmp_path):
    with Service(tmp_path).serving() as harness:
        stub = harness.stub(profiles_pb2_grpc.ProfilesServiceStub)
        stub.CreateSource(source_request(), timeout=10)

        def write(number: int) -> profiles_pb2.BatchUpsertRecordsResponse:
            record = profiles_pb2.SourceRecordInput(source_record_id=str(number), fields=person(number))
            request = profiles_pb2.BatchUpsertRecordsRequest(parent="sources/till", records=[record])
            return stub.BatchUpsertRecords(request, timeout=20)

        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(write, range(60)))

    assert 60 == len({reply.results[0].profile for reply in replies})
    assert {(1, 1)} == {(reply.summary.rows_accepted, reply.summary.profiles_created) for reply in replies}
