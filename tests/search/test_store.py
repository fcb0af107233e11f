"""One suite over both engines: what the index promises, whoever keeps it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from services.search.domain.queries import Match
from services.search.store import (
    MAX_HITS,
    Engine,
    EngineUnavailable,
    IndexDocument,
    IndexGone,
    IndexQuery,
    IndexResult,
    newest,
)
from services.search.store.batching import BatchingWriter
from services.search.store.opensearch_engine import OpenSearchEngine
from services.search.store.tantivy_engine import TantivyEngine, build_schema

ANY: dict[str, frozenset[str]] = {}


@pytest.fixture(params=["tantivy", pytest.param("opensearch", marks=pytest.mark.opensearch)])
def make_engine(request, tmp_path) -> Iterator[Callable[[], Engine]]:
    """Return a maker of engines over the same index: each stands for one process."""
    if request.param == "tantivy":
        made: Callable[[], Engine] = lambda: TantivyEngine(tmp_path / "index")  # noqa: E731
    else:
        url, base = request.getfixturevalue("opensearch_url"), f"test-{uuid.uuid4().hex[:8]}"
        made = lambda: OpenSearchEngine(url, base)  # noqa: E731
    yield made
    if request.param == "opensearch":
        OpenSearchEngine(url, base)._client.indices.delete(index=f"{base}-*", params={"expand_wildcards": "all"})


@pytest.fixture
def engine(make_engine) -> Engine:
    found = make_engine()
    found.prepare()
    return found


def document(number: int, version: int = 1, *tokens: str, **keywords: str) -> IndexDocument:
    keywords = {"type": "profiles", **keywords}
    name = tuple(tokens) or ("common",)
    return IndexDocument(f"profiles/{number:04d}", version, 1000 + number, False, {"name": name}, keywords, b"\x00\xff")


def having(*tokens: str, filters=ANY, facets=(), offset=0, limit=20) -> IndexQuery:
    clauses = tuple((Match("name", (token,), 2.0),) for token in tokens)
    return IndexQuery(clauses, filters, tuple(facets), offset, limit)


def found(engine: Engine, query: IndexQuery) -> IndexResult:
    """Search after everything written is visible."""
    if isinstance(engine, OpenSearchEngine):
        engine.refresh()
    return engine.search(query)


def ids(engine: Engine, *tokens: str, **options) -> list[str]:
    return [hit.id for hit in found(engine, having(*tokens, **options)).hits]


def test_what_was_written_is_found_with_its_payload(engine):
    engine.write([document(1, 1, "zhang", "wei"), document(2, 1, "li")])

    result = found(engine, having("zhang"))
    assert [(hit.id, hit.payload) for hit in result.hits] == [("profiles/0001", b"\x00\xff")]
    assert result.total == 1


def test_every_clause_must_match_and_each_match_needs_all_its_tokens(engine):
    engine.write([document(1, 1, "a", "b"), document(2, 1, "a"), document(3, 1, "b", "c")])

    assert ids(engine, "a", "b") == ["profiles/0001"]
    both = IndexQuery(((Match("name", ("b", "c"), 1.0), Match("contact", ("a",), 1.0)),), ANY)
    assert [hit.id for hit in found(engine, both).hits] == ["profiles/0003"]


def test_an_empty_clause_matches_nothing_and_no_clause_everything(engine):
    engine.write([document(1), document(2)])

    assert found(engine, IndexQuery(((),), ANY)).total == 0
    assert found(engine, IndexQuery((), ANY)).total == 2


def test_the_heavier_match_ranks_first_then_the_latest_change_then_the_id(engine):
    engine.write([document(1, 1, "light"), document(2, 1, "light", "heavy"), document(3, 1, "light")])
    clause = (Match("name", ("light",), 1.0), Match("name", ("heavy",), 8.0))

    result = found(engine, IndexQuery((clause,), ANY))
    assert [(hit.id, hit.score) for hit in result.hits] == [
        ("profiles/0002", 8.0),
        ("profiles/0003", 1.0),
        ("profiles/0001", 1.0),
    ]


def test_of_more_than_can_be_paged_through_the_latest_are_listed(engine):
    for numbers in (range(MAX_HITS), range(MAX_HITS, MAX_HITS + 3)):
        engine.write([document(number) for number in numbers])

    assert found(engine, having()).total == MAX_HITS + 3
    assert ids(engine, limit=3) == [f"profiles/{number}" for number in (1002, 1001, 1000)]


def test_hits_of_one_moment_are_in_the_order_of_their_ids(engine):
    for number in (3, 1, 4, 2):
        engine.write([replace(document(number, 1, "x"), changed=7)])

    assert ids(engine, "x") == ids(engine) == [f"profiles/{number:04d}" for number in (1, 2, 3, 4)]


def test_an_older_event_after_a_newer_one_changes_nothing(engine):
    engine.write([document(1, 5, "new")])
    engine.write([document(1, 4, "old")])

    assert (ids(engine, "new"), ids(engine, "old")) == (["profiles/0001"], [])


def test_the_same_event_twice_is_one_document(engine):
    engine.write([document(1, 1, "a"), document(1, 1, "a")])
    engine.write([document(1, 1, "a")])

    assert found(engine, having("a")).total == 1


def test_shuffled_versions_end_at_the_newest(engine):
    for version in (3, 1, 7, 2, 7, 5):
        engine.write([document(1, version, f"v{version}")])

    assert ids(engine, "v7") == ["profiles/0001"]
    assert found(engine, IndexQuery((), ANY)).total == 1


def test_a_tombstone_removes_exactly_one_and_an_older_event_cannot_bring_it_back(engine):
    engine.write([document(1, 2, "a"), document(2, 2, "a")])
    engine.write([IndexDocument("profiles/0001", 3, 2000, deleted=True)])
    engine.write([document(1, 2, "a")])

    assert ids(engine, "a") == ["profiles/0002"]
    engine.write([document(1, 4, "back")])
    assert ids(engine, "back") == ["profiles/0001"]


def test_filters_bind_hits_counts_and_facets_alike(engine):
    engine.write([document(n, 1, "a", tier="gold" if n % 3 else "plain", city_code=f"{n % 2}") for n in range(30)])

    result = found(engine, having("a", filters={"tier": frozenset({"gold"})}, facets=("tier", "city_code"), limit=5))
    assert (result.total, len(result.hits)) == (20, 5)
    assert result.facets["tier"] == (("gold", 20),)
    assert sum(count for _, count in result.facets["city_code"]) == 20


def test_of_rows_that_are_granted_several_times_over_one_must_hold(engine):
    engine.write([document(1, tier="gold", city_code="1"), document(2, tier="gold"), document(3, city_code="1")])
    gold, first = {"tier": frozenset({"gold"})}, {"city_code": frozenset({"1"})}

    assert found(engine, IndexQuery((), ANY, either=((gold, first),))).total == 3
    assert found(engine, IndexQuery((), ANY, either=(({**gold, **first},),))).total == 1
    assert found(engine, IndexQuery((), ANY, either=((gold,), (first,)))).total == 1
    assert found(engine, IndexQuery((), ANY, either=((),))).total == 0


def test_of_either_one_filter_must_hold_and_scores_stay(engine):
    engine.write([document(1, 1, "a", tier="gold"), document(2, 1, "a", tier="plain"), document(3, 1, "a")])
    either = (({"tier": frozenset({"gold"})}, {"city_code": frozenset({"x"})}), ({"type": frozenset({"profiles"})},))

    free, bound = having("a"), replace(having("a"), either=either)
    assert [hit.id for hit in found(engine, bound).hits] == ["profiles/0001"]
    assert found(engine, bound).hits[0].score == found(engine, free).hits[0].score
    assert found(engine, replace(free, either=(({"tier": frozenset()},),))).total == 0


def test_a_filter_on_several_values_takes_any_and_on_none_nothing(engine):
    engine.write([document(1, tier="gold"), document(2, tier="silver"), document(3)])

    assert found(engine, IndexQuery((), {"tier": frozenset({"gold", "silver"})})).total == 2
    assert found(engine, IndexQuery((), {"tier": frozenset()})).total == 0
    assert found(engine, IndexQuery((), {"tier": frozenset({"go"})})).total == 0


def test_pages_neither_repeat_nor_miss_a_hit(engine):
    engine.write([document(n, 1, "a") for n in range(45)])

    pages = [ids(engine, "a", offset=offset, limit=10) for offset in range(0, 50, 10)]
    assert [len(page) for page in pages] == [10, 10, 10, 10, 5]
    assert len({each for page in pages for each in page}) == 45


def test_every_process_sees_what_another_wrote(make_engine, engine):
    reader = make_engine()
    assert found(reader, having("a")).total == 0

    engine.write([document(1, 1, "a")])

    assert ids(reader, "a") == ["profiles/0001"]


def test_preparing_again_keeps_what_is_there(make_engine, engine):
    engine.write([document(1, 1, "a")])

    make_engine().prepare()

    assert ids(engine, "a") == ["profiles/0001"]


def test_a_rebuild_answers_from_the_old_index_until_the_swap_and_keeps_writes_of_meanwhile(make_engine, engine):
    worker, reader = make_engine(), make_engine()
    engine.write([document(1, 1, "old"), document(2, 1, "stale")])
    name = worker.create()
    engine.write([document(3, 1, "meanwhile"), document(1, 2, "newer")])
    worker.load(name, [document(1, 1, "old")])

    assert (ids(reader, "stale"), ids(reader, "meanwhile")) == (["profiles/0002"], ["profiles/0003"])
    before = worker.swap(name)
    worker.drop(before)
    assert (ids(reader, "stale"), ids(reader, "meanwhile")) == ([], ["profiles/0003"])
    assert (ids(reader, "newer"), ids(reader, "old")) == (["profiles/0001"], [])
    engine.write([document(4, 1, "after")])
    assert ids(reader, "after") == ["profiles/0004"]
    assert (name, ()) == (worker.aliases().live, worker.aliases().building)


def test_the_steps_of_a_rebuild_may_be_repeated(make_engine, engine):
    name = engine.create()
    old = engine.swap(name)

    assert engine.swap(name) == name
    engine.drop(old)
    engine.drop(old)
    with pytest.raises(ValueError, match="live index"):
        engine.drop(name)


def test_an_index_that_a_later_rebuild_dropped_never_becomes_the_live_one(make_engine, engine):
    engine.write([document(1, 1, "here")])
    early = engine.create()
    late = make_engine()
    late.drop(early)

    with pytest.raises(IndexGone):
        engine.swap(early)
    assert ids(engine, "here") == ["profiles/0001"]


def test_tombstones_are_listed_by_id_for_the_next_index(engine):
    engine.write([IndexDocument(f"profiles/{n:04d}", n + 1, 5, deleted=True) for n in range(7)] + [document(9)])

    pages = list(engine.tombstones(page=4))
    assert [len(page) for page in pages] == [4, 3]
    assert [f"profiles/{n:04d}" for n in range(7)] == [each.id for page in pages for each in page]
    assert pages[0][2].document() == IndexDocument("profiles/0002", 3, 5, deleted=True)


def test_searches_succeed_all_through_a_rebuild_under_writes(make_engine, engine):
    engine.write([document(n, 1, "a") for n in range(20)])
    stop, failures, counts = threading.Event(), [], []

    def search() -> None:
        reader = make_engine()
        while not stop.is_set():
            try:
                counts.append(reader.search(having("a")).total)
            except Exception as error:
                failures.append(error)

    def write() -> None:
        writer, version = make_engine(), 1
        while not stop.is_set():
            version += 1
            writer.write([document(version % 20, version, "a")])

    found(engine, having("a"))
    threads = [threading.Thread(target=search), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    try:
        name = engine.create()
        engine.load(name, [document(n, 1, "a") for n in range(20)])
        found(engine, having("a"))
        engine.drop(engine.swap(name))
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)

    assert failures == []
    assert set(counts) == {20}


class Counting:
    """An engine that counts its commits; the rest is the real one."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.commits = 0

    def write(self, documents) -> None:
        self.commits += 1
        self.engine.write(documents)


def test_handlers_that_write_together_share_commits(engine):
    counting = Counting(engine)
    writer = BatchingWriter(counting, window_seconds=0.2)
    start = threading.Barrier(8)

    def handle(number: int) -> None:
        start.wait()
        writer.write([document(number, 1, "a")])

    threads = [threading.Thread(target=handle, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert found(engine, having("a")).total == 8
    assert counting.commits < 8


def test_a_failed_commit_fails_every_handler_of_its_batch_and_the_next_batch_works(tmp_path):
    engine = TantivyEngine(tmp_path / "index")
    writer = BatchingWriter(engine, window_seconds=0.01, patience_seconds=0)

    with pytest.raises(EngineUnavailable):
        writer.write([document(1, 1, "a")])
    engine.prepare()
    writer.write([document(1, 1, "a")])
    assert ids(engine, "a") == ["profiles/0001"]


class Away:
    """An engine that is away for its first calls; then it is the real one."""

    def __init__(self, engine: Engine, calls: int) -> None:
        self.engine = engine
        self.calls = calls

    def write(self, documents) -> None:
        self.calls -= 1
        if self.calls >= 0:
            raise EngineUnavailable("away")
        self.engine.write(documents)


def test_a_short_outage_of_the_engine_is_waited_out(tmp_path):
    engine = TantivyEngine(tmp_path / "index")
    engine.prepare()

    BatchingWriter(Away(engine, 1), 0.01).write([document(1, 1, "a")])
    assert ids(engine, "a") == ["profiles/0001"]


WRITER = """
import sys
from pathlib import Path
from services.search.store import IndexDocument
from services.search.store.tantivy_engine import TantivyEngine
engine = TantivyEngine(Path(sys.argv[1]))
for version in range(int(sys.argv[2]), 10**9):
    engine.write([IndexDocument("profiles/0001", version, 1, terms={"name": (f"v{version}",)})])
    print(version, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_acknowledged_and_locks_nobody_out(tmp_path):
    engine = TantivyEngine(tmp_path / "index")
    engine.prepare()
    acknowledged = 0
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "index"), str(acknowledged + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(5):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        stored = [v for v in (acknowledged, acknowledged + 1) if ids(engine, f"v{v}")]
        assert len(stored) == 1
        acknowledged = stored[0]

    engine.write([document(1, acknowledged + 1, "mine")])
    assert ids(engine, "mine") == ["profiles/0001"]


def test_folders_left_by_a_dead_process_are_swept_by_the_next_rebuild(tmp_path):
    engine = TantivyEngine(tmp_path / "index")
    engine.prepare()
    (tmp_path / "index" / "000007").mkdir()

    name = engine.create()
    found = {path.name for path in (tmp_path / "index").iterdir() if path.is_dir()}
    assert found == {engine.aliases().live, name}


def test_an_index_of_an_older_release_goes_on_until_it_is_rebuilt(tmp_path):
    TantivyEngine(tmp_path / "index", build_schema(("name",))).prepare()
    engine = TantivyEngine(tmp_path / "index")
    engine.prepare()
    both = replace(document(1, 1, "a"), terms={"name": ("a",), "contact": ("c",)})
    by_contact = IndexQuery(((Match("contact", ("c",), 1.0),),), ANY)
    engine.write([both])

    assert (ids(engine, "a"), engine.search(by_contact).total) == (["profiles/0001"], 0)
    name = engine.create()
    engine.load(name, [both])
    engine.drop(engine.swap(name))
    assert engine.search(by_contact).total == 1


def test_the_newest_of_a_batch_wins_whatever_its_order():
    assert [each.version for each in newest([document(1, 2), document(1, 3), document(1, 1)])] == [3]


def test_errors_of_the_cluster_carry_no_document():
    engine = OpenSearchEngine("http://127.0.0.1:9", "nowhere")

    with pytest.raises(Exception, match="does not answer") as caught:
        engine.write([replace(document(1), payload=b"secret-payload", terms={"name": ("secret-token",)})])
    chain = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "secret" not in chain + json.dumps(getattr(caught.value, "metadata", {}))


def test_a_written_document_is_soon_visible_without_help(make_engine, engine):
    engine.write([document(1, 1, "a")])

    deadline = time.monotonic() + 2
    while engine.search(having("a")).total == 0:
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
