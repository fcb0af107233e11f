"""Claims about the RPCs of search: what is found, by whom, and what of it is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.profiles.v1 import events_pb2 as profiles
from kehu.profiles.v1 import profiles_pb2
from kehu.search.v1 import search_pb2 as pb
from kehu.search.v1 import search_pb2_grpc
from kehu.tickets.v1 import events_pb2 as tickets
from kehu.tickets.v1 import tickets_pb2

from services.chassis.access import Condition, Either, Except, Obligations
from services.chassis.crypto import BlindIndex, Sealer
from services.chassis.errors import Unavailable
from services.chassis.jobs import Jobs, MemoryOperations, Worker
from services.chassis.server import Serving
from services.search.api import REBUILD, SearchServicer
from services.search.documents import DocumentMaker, keyed_by
from services.search.hits import HitReader
from services.search.jobs import RebuildIndex
from services.search.store.tantivy_engine import TantivyEngine
from tests.harness import Harness, OpenPolicy, running

GROUPS = ("personal/name", "personal/contact", "personal/content", "personal/address", "sensitive/document")
EVERYTHING = Obligations(everything=True)
MARKETER = Obligations(
    masked=frozenset({"personal/name", "personal/contact", "personal/address"}),
    searchable=frozenset({"personal/name"}),
)
NO_PURPOSE = Obligations()


class Keys:
    """The keys of one installation, on both sides of the events."""

    def __init__(self, folder) -> None:
        self.events = Sealer("events", folder)
        self.search = Sealer("search", folder)
        self.keyed = keyed_by(BlindIndex(folder))
        self.maker = DocumentMaker(self.keyed, self.events, self.search)

    def profile(self, number: int, name: str, version: int = 1, **fields) -> profiles.ProfileChanged:
        identity = profiles.ProfileIdentity(
            display_name=name,
            phones=[f"+86138{number:04d}{8000 + number:04d}"],
            emails=[f"c{number}@example.cn"],
            resident_id="11010119900101123X" if number == 1 else "",
            address="浙江省杭州市西湖区文三路1号",
        )
        values = {"province_code": "330000", "owner_department": "marketing", "tier": "gold", **fields}
        return profiles.ProfileChanged(
            profile_id=f"p{number}",
            version=version,
            event_time=Timestamp(seconds=1_700_000_000 + number),
            sealed_identity=self.events.seal(identity.SerializeToString()),
            **values,
        )

    def ticket(self, number: int, subject: str, description: str = "", **fields) -> tickets.TicketChanged:
        text = tickets.TicketText(subject=subject, description=description)
        ticket_id = f"t{number}"
        values = {"department": "service", "kind": "complaint", "status": "new", "status_category": "open", **fields}
        return tickets.TicketChanged(
            ticket_id=ticket_id,
            version=1,
            event_time=Timestamp(seconds=1_700_000_000 + number),
            sealed_text=self.events.seal(text.SerializeToString(), ticket_id.encode()),
            number=f"T20261121-{number:06d}",
            profile_id="p1",
            **values,
        )


@pytest.fixture
def keys(tmp_path) -> Keys:
    return Keys(tmp_path / "keys")


@pytest.fixture
def engine(tmp_path, keys) -> TantivyEngine:
    engine = TantivyEngine(tmp_path / "index")
    engine.prepare()
    people = ["张伟明", "李娜", "欧阳娜娜", "张伟", "Anna Smith"]
    found = [keys.maker.of_profile(keys.profile(n, name)) for n, name in enumerate(people, start=1)]
    found += [
        keys.maker.of_ticket(keys.ticket(1, "包装易破损", "收到时盒子破了，" * 20 + "要求退款")),
        keys.maker.of_ticket(keys.ticket(2, "开发票", department="sales", kind="request")),
    ]
    engine.write(found)
    return engine


@pytest.fixture
def jobs() -> Jobs:
    return Jobs("search", MemoryOperations())


@pytest.fixture
def server(engine, keys, jobs) -> Iterator[Harness]:
    servicer = SearchServicer(engine, keys.keyed, HitReader(keys.search), jobs)
    add = search_pb2_grpc.add_SearchServiceServicer_to_server
    with running(Serving("search", [(add, servicer)], jobs=jobs), OpenPolicy(EVERYTHING)) as harness:
        yield harness


def search(server: Harness, q: str = "", **fields) -> pb.SearchResponse:
    stub = server.stub(search_pb2_grpc.SearchServiceStub)
    return stub.Search(pb.SearchRequest(q=q, **fields), timeout=10)


def names(reply: pb.SearchResponse) -> list[str]:
    return [hit.name for hit in reply.hits]


def facet(reply: pb.SearchResponse, field: str) -> dict[str, int]:
    return {each.value: each.count for facet in reply.facets if facet.field == field for each in facet.values}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("张伟", ["profiles/p4", "profiles/p1"]),  # the whole name before a part of one
        ("zhangwei", ["profiles/p4", "profiles/p1"]),
        ("zwm", ["profiles/p1"]),
        ("8001", ["profiles/p1"]),
        ("13800018001", ["profiles/p1"]),
        ("C1@Example.cn", ["profiles/p1"]),
        ("11010119900101123x", ["profiles/p1"]),
        ("娜", ["profiles/p3", "profiles/p2"]),
        ("anna", ["profiles/p5"]),
        ("破损", ["tickets/t1"]),
        ("T20261121-000002", ["tickets/t2"]),
        ("张伟 8004", ["profiles/p4"]),
    ],
)
def test_the_data_office_finds_whom_it_looks_for(server, query, found):
    assert found == names(search(server, query))


def test_a_marketer_finds_by_name_and_sees_masks(server):
    server.policy.obligations = MARKETER

    hit = search(server, "张伟明").hits[0].profile
    assert ("张**", ["138****8001"], ["c1@example.cn"[0] + "***@example.cn"]) == (
        hit.display_name,
        list(hit.phones),
        list(hit.emails),
    )
    assert (hit.address, hit.resident_id, len(hit.display_name_matches)) == ("浙江省杭州市***", "", 0)


@pytest.mark.parametrize("query", ["张伟", "伟", "明", "zhangwei", "zwm", "8001", "12345", "ann", "c1", "123x"])
def test_a_masked_value_cannot_be_spelt_out_by_searching_for_parts_of_it(server, query):
    everything = names(search(server, query))
    server.policy.obligations = Obligations(masked=frozenset(GROUPS), searchable=frozenset(GROUPS))
    masked = search(server, query)

    assert set(names(masked)) <= ({"profiles/p4"} if query == "张伟" else set()), "p4 is called so, as a whole"
    assert everything or query in ("12345", "c1", "ann")
    assert masked.total_size == len(masked.hits) and sum(facet(masked, "type").values()) == masked.total_size


def test_a_number_cannot_be_tried_out_by_who_may_not_search_numbers(server):
    server.policy.obligations = MARKETER

    reply = search(server, "13800018001")
    assert (reply.total_size, len(reply.facets)) == (0, 0)
    assert "personal/contact" in reply.groups_not_searched


def test_without_a_purpose_nothing_personal_is_matched_shown_counted_or_filtered(server):
    server.policy.obligations = NO_PURPOSE

    for query in ("张伟", "13800018001", "破损", "zw"):
        assert search(server, query).total_size == 0
    listed = search(server, types=["profiles"])
    assert (5, {""}) == (listed.total_size, {hit.profile.display_name for hit in listed.hits})
    assert all(not hit.profile.phones and not hit.profile.address for hit in listed.hits)
    assert facet(listed, "province_code") == {} and facet(listed, "tier") == {"gold": 5}
    assert search(server, "T20261121-000002").total_size == 0
    with pytest.raises(grpc.RpcError) as caught:
        search(server, filter="province_code=330000")
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_tickets_are_found_only_by_who_sees_their_words_at_least_masked(server):
    server.policy.obligations = MARKETER
    marketer = search(server)
    server.policy.obligations = Obligations(masked=frozenset({"personal/content"}))
    masked = search(server)

    assert (facet(marketer, "type"), facet(masked, "type")) == ({"profiles": 5}, {"profiles": 5, "tickets": 2})
    server.policy.obligations = MARKETER
    assert search(server, types=["tickets"]).total_size == 0


def test_rows_bind_hits_total_and_facets_alike(server):
    server.policy.obligations = Obligations(
        shown=frozenset(GROUPS), searchable=frozenset(GROUPS), row_filter=(Condition("department", ("service",)),)
    )

    reply = search(server)
    assert (names(reply), reply.total_size) == (["tickets/t1"], 1)
    assert facet(reply, "department") == {"service": 1} and facet(reply, "type") == {"tickets": 1}
    assert search(server, filter="department=sales").total_size == 0
    for nothing in (Condition("birth_year", ("1990",)), Except("tier", ("gold",)), Either(())):
        server.policy.obligations = Obligations(row_filter=(nothing,))
        assert search(server).total_size == 0


def test_row_filters_of_profiles_and_of_tickets_each_bind_their_own(server):
    rights = Obligations(shown=frozenset(GROUPS), searchable=frozenset(GROUPS))
    everything = facet(search(server), "type")
    nobody = (Condition("owner_department", ("nowhere",), "profiles"),)
    server.policy.obligations = replace(rights, row_filter=nobody)
    no_profiles = search(server)
    server.policy.obligations = replace(rights, row_filter=(Condition("department", ("service",), "tickets"),))
    some_tickets = search(server)
    server.policy.obligations = replace(rights, row_filter=(Condition("assignee", ("user:x",), "tickets"),))
    no_tickets = search(server)

    assert everything == {"profiles": 5, "tickets": 2}
    assert (facet(no_profiles, "type"), no_profiles.total_size) == ({"tickets": 2}, 2)
    assert facet(some_tickets, "type") == {"profiles": 5, "tickets": 1}
    assert facet(no_tickets, "type") == {"profiles": 5}, "the index has no assignee: closed"


def test_what_is_lent_one_by_one_is_found_and_counted_beside_the_own_rows(server):
    rights = Obligations(shown=frozenset(GROUPS), searchable=frozenset(GROUPS))

    def lent(kind: str, field: str, *ids: str, owner: str = "marketing") -> Either:
        own = Condition("owner_department", ("nowhere",), kind)
        return Either(((own,), (Condition(field, ids, kind), Condition("owner_department", (owner,), kind))), kind)

    both = (lent("profiles", "profile_id", "p1", "p2"), lent("tickets", "ticket_id", "t1", "t9", owner="service"))
    server.policy.obligations = replace(rights, row_filter=both)
    reply, by_name = search(server), search(server, "张伟")
    unseen = (lent("profiles", "profile_id", "p1", owner="elsewhere"), Condition("ticket_id", ("t2",), "tickets"))
    server.policy.obligations = replace(rights, row_filter=unseen)

    assert (set(names(reply)), reply.total_size) == ({"profiles/p1", "profiles/p2", "tickets/t1"}, 3)
    assert facet(reply, "type") == {"profiles": 2, "tickets": 1}
    assert names(by_name) == ["profiles/p1"]
    assert names(search(server)) == ["tickets/t2"]


def test_counts_equal_the_hits_that_can_be_paged_through(server):
    seen: list[str] = []
    token = ""
    while True:
        reply = search(server, page_size=2, page_token=token)
        seen += names(reply)
        token = reply.next_page_token
        if not token:
            break

    assert reply.total_size == len(seen) == len(set(seen)) == 7
    assert sum(facet(reply, "type").values()) == 7


def test_a_page_token_of_another_search_is_refused(server):
    token = search(server, page_size=2).next_page_token

    with pytest.raises(grpc.RpcError) as caught:
        search(server, "张", page_size=2, page_token=token)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_filters_narrow_and_bad_ones_are_refused(server):
    assert names(search(server, filter="kind=(complaint OR request) AND department=sales")) == ["tickets/t2"]
    assert search(server, filter="profile_id=p1").total_size == 3
    for bad in ({"filter": "kind"}, {"types": ["orders"]}, {"page_size": -1}, {"q": "x" * 201}):
        with pytest.raises(grpc.RpcError) as caught:
            search(server, **bad)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_matches_are_marked_where_the_text_is_shown(server):
    profile = search(server, "zhangw").hits[0].profile
    ticket = search(server, "退款").hits[0].ticket

    assert [(each.start, each.end) for each in profile.display_name_matches] == [(0, 2)]
    start, end = ticket.snippet_matches[0].start, ticket.snippet_matches[0].end
    assert ticket.snippet[start:end] == "退款"
    assert len(ticket.subject_matches) == 0


def test_ticket_words_are_masked_by_right(server):
    server.policy.obligations = Obligations(masked=frozenset({"personal/content"}))
    ticket = search(server, "T20261121-000001").hits[0].ticket

    assert (ticket.subject, ticket.snippet, len(ticket.subject_matches)) == ("***", "", 0)
    assert ticket.number == "T20261121-000001"


def test_only_the_first_thousand_hits_are_paged_through(server, engine, keys):
    engine.write([keys.maker.of_profile(keys.profile(n, "王芳")) for n in range(100, 1150)])
    token, pages = "", 0
    while pages == 0 or token:
        reply = search(server, "王芳", page_size=100, page_token=token)
        token, pages = reply.next_page_token, pages + 1

    assert (pages, reply.total_size) == (10, 1050)


def test_no_plain_word_of_a_customer_is_in_the_index_files(engine, tmp_path):
    stored = b"".join(path.read_bytes() for path in (tmp_path / "index").rglob("*") if path.is_file())

    for word in ("张伟明", "zhangweiming", "13800018001", "8001", "example.cn", "破损", "退款"):
        assert word.encode() not in stored


class Sources:
    """The owners of the records, as a rebuild sees them; `down` makes them unavailable."""

    def __init__(self, keys: Keys, people: list[profiles.ProfileChanged], problems: list[tickets.TicketChanged]):
        self.keys, self.people, self.problems = keys, people, problems
        self.down = False
        self.calls = 0

    def ListProfileStates(self, request, timeout):  # noqa: N802
        self._answer()
        start = int(request.page_token or 0)
        after = str(start + 2) if start + 2 < len(self.people) else ""
        page = self.people[start : start + 2]
        return profiles_pb2.ListProfileStatesResponse(states=page, next_page_token=after)

    def ListTicketStates(self, request, timeout):  # noqa: N802
        self._answer()
        return tickets_pb2.ListTicketStatesResponse(states=self.problems)

    def _answer(self) -> None:
        self.calls += 1
        if self.down:
            raise Unavailable("down")


@pytest.fixture
def sources(keys) -> Sources:
    people = [keys.profile(n, "张伟", version=3) for n in range(1, 6)]
    return Sources(keys, people, [keys.ticket(1, "包装易破损")])


def worker_of(jobs: Jobs, engine, keys, sources) -> Worker:
    rebuild = RebuildIndex(engine, keys.maker, sources, sources)
    return Worker("search", {REBUILD: rebuild}, jobs.store)


def start_rebuild(server: Harness, request_id: str = ""):
    stub = server.stub(search_pb2_grpc.SearchServiceStub)
    return stub.RebuildIndex(pb.RebuildIndexRequest(request_id=request_id), timeout=5)


def test_a_rebuild_makes_the_index_equal_to_its_sources_and_keeps_tombstones(
    server, jobs, engine, keys, sources, tmp_path
):
    gone = keys.profile(9, "已删", version=5)
    engine.write([keys.maker.of_profile(profiles.ProfileChanged(profile_id="p9", version=6, deleted=True))])
    before = engine.aliases().live
    started = start_rebuild(server)

    assert worker_of(jobs, engine, keys, sources).run_one()
    done = jobs.get(started.name, "data-office")
    response = pb.RebuildIndexResponse()
    done.response.Unpack(response)
    assert (done.done, response.profiles, response.tickets) == (True, 5, 1)
    assert response.index == engine.aliases().live != before
    assert not (tmp_path / "index" / before).exists()
    assert search(server, "张伟").total_size == 5 and search(server, "发票").total_size == 0
    engine.write([keys.maker.of_profile(gone)])  # an old event, after the rebuild
    assert search(server, "已删").total_size == 0


def test_a_rebuild_whose_index_a_later_one_dropped_ends_as_superseded_and_search_goes_on(
    server, jobs, engine, keys, sources
):
    started = start_rebuild(server)

    class Later(RebuildIndex):
        """Another worker's rebuild begins just before this one swaps."""

        def _swap(self, progress):
            engine.drop(progress.index)
            super()._swap(progress)

    live = engine.aliases().live
    Worker("search", {REBUILD: Later(engine, keys.maker, sources, sources)}, jobs.store).run_one()

    done = jobs.get(started.name, "data-office")
    assert (done.done, done.error.message) == (True, "a later rebuild took over; watch that one")
    assert engine.aliases().live == live


def test_a_run_that_lost_its_lease_after_the_swap_drops_nothing_that_answers(server, jobs, engine, keys, sources):
    started = start_rebuild(server)

    class Twin(RebuildIndex):
        """The same job, run by another worker, swaps just before this one does."""

        def _swap(self, progress):
            engine.swap(progress.index)
            super()._swap(progress)

    Worker("search", {REBUILD: Twin(engine, keys.maker, sources, sources)}, jobs.store).run_one()

    assert jobs.get(started.name, "data-office").HasField("response")
    assert search(server, "张伟").total_size == 5


def test_a_rebuild_waits_while_an_owner_is_down_and_goes_on_where_it_was(server, jobs, engine, keys, sources):
    started = start_rebuild(server)
    worker = worker_of(jobs, engine, keys, sources)
    sources.down = True
    worker.run_one()
    assert not jobs.get(started.name, "data-office").done
    index = engine.aliases().building

    sources.down = False
    document = jobs.store.get(started.name)
    jobs.store.update(started.name, "", {"wake_at": document["create_time"]})
    worker.run_one()
    assert jobs.get(started.name, "data-office").done
    assert index == (engine.aliases().live,)


def test_a_rebuild_that_dies_at_any_step_is_finished_by_the_next_worker(server, jobs, engine, keys, sources):
    class Dying(BaseException):
        """Stands for kill -9: nothing of the worker runs after it."""

    started = start_rebuild(server)
    for step in range(1, 40):
        document = jobs.store.get(started.name)
        jobs.store.update(started.name, document["lease"], {"lease": "", "wake_at": document["create_time"]})
        calls = 0
        real = jobs.store.update

        def update(name, lease, changes, real=real, step=step):
            nonlocal calls
            if "checkpoint" in changes:
                calls += 1
                if calls == 2:
                    raise Dying
            return real(name, lease, changes)

        jobs.store.update = update
        try:
            worker_of(jobs, engine, keys, sources).run_one()
        except Dying:
            pass
        finally:
            jobs.store.update = real
        if jobs.get(started.name, "data-office").done:
            break

    assert jobs.get(started.name, "data-office").done and step > 3
    assert engine.aliases().building == ()
    assert search(server, "张伟").total_size == 5


def test_the_later_of_two_rebuilds_wins_and_the_earlier_says_so(server, jobs, engine, keys, sources):
    first = start_rebuild(server)
    worker = worker_of(jobs, engine, keys, sources)
    sources.down = True
    worker.run_one()
    sources.down = False
    second = start_rebuild(server)
    worker.run_one()
    document = jobs.store.get(first.name)
    jobs.store.update(first.name, document["lease"], {"wake_at": document["create_time"]})
    worker.run_one()

    assert jobs.get(second.name, "data-office").response.type_url
    assert "later rebuild" in jobs.get(first.name, "data-office").error.message


def test_a_rebuild_never_goes_on_with_the_index_of_another(server, jobs, engine, keys, sources):
    first, second = start_rebuild(server), None
    worker = worker_of(jobs, engine, keys, sources)
    sources.down = True
    worker.run_one()
    second = start_rebuild(server)
    worker.run_one()
    sources.down = False
    for operation in (first, second):
        document = jobs.store.get(operation.name)
        jobs.store.update(operation.name, document["lease"], {"wake_at": document["create_time"]})
        worker.run_one()

    assert "later rebuild" in jobs.get(first.name, "data-office").error.message
    assert jobs.get(second.name, "data-office").response.type_url
    assert search(server, "张伟").total_size == 5


def test_searches_go_on_through_a_rebuild(server, jobs, engine, keys, sources):
    stop, counts = threading.Event(), set()

    def look() -> None:
        while not stop.is_set():
            counts.add(search(server, "张伟").total_size)

    thread = threading.Thread(target=look)
    thread.start()
    start_rebuild(server)
    worker_of(jobs, engine, keys, sources).run_one()
    deadline = time.monotonic() + 5
    while search(server, "张伟").total_size != 5 and time.monotonic() < deadline:
        pass
    stop.set()
    thread.join(10)

    assert counts <= {2, 5}
