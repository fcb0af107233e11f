"""Tables of rules: a process that follows holds what one built anew would hold, and takes nothing that is damaged."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kehu.access.v1 import access_pb2 as pb

from services.access.directory import Directory
from services.access.domain.policies import Content, Policy
from services.access.domain.tokens import revoke_token
from services.access.store.memory import MemoryPolicies, MemoryPrincipals, MemoryRevocations
from services.chassis.access import MODEL, Caller, NamedCondition, PolicySnapshot, SnapshotHolder, SnapshotPoller
from services.chassis.access.conditions import Network
from services.chassis.access.rules import Shape
from services.chassis.access.shadow import ShadowPoller
from services.chassis.access.tables import Table, as_bytes, from_bytes
from services.chassis.access.wire import request_for, table_message, table_of, updated
from services.chassis.errors import AlreadyExists, Invalid, Unavailable

START = datetime(2027, 1, 1, tzinfo=UTC)
SHAPE = Shape.of(MODEL)
INSIDE = NamedCondition("inside", Network(("10.0.0.0/8",)))
SUBJECTS = ["user:a", "user:b", "role:r1", "role:r2", "role:r3"]
RULE = st.tuples(
    st.sampled_from(SUBJECTS), st.sampled_from(["*", "d1", "d2"]), st.sampled_from(["o1", "fields/personal/name"]),
    st.sampled_from(["*", "read", "show"]), st.sampled_from(["*", "sales"]), st.sampled_from(["allow", "deny"]),
)  # fmt: skip
GATED = RULE.map(lambda rule: (*rule, "inside"))
PLAIN = st.tuples(st.sampled_from(SUBJECTS), st.sampled_from(SUBJECTS[2:]), st.sampled_from(["d1", "d2"]))
TIMES = st.sampled_from([("0", "4000000000"), ("0", "1"), ("4000000000", "0")])
LINK = PLAIN | st.tuples(PLAIN, TIMES).map(lambda both: both[0] + both[1])
CHANGE = st.tuples(st.lists(RULE | GATED, max_size=12), st.none() | st.lists(LINK, max_size=6, unique=True))
CALLERS = [
    Caller(name, "user", place, purpose, address=address)
    for name in ("user:a", "user:b", "user:x") for place in ("d1", "d2") for purpose in ("", "sales")
    for address in ("", "10.1.1.1")
]  # fmt: skip


class Publisher:
    """Access: what it answers is made by the code in use, from stores in memory."""

    def __init__(self) -> None:
        self.time, self.policies, self.revocations = START, MemoryPolicies(), MemoryRevocations()
        self.directory = self.replica()
        self.content = Content((("role:r1", "d1", "o1", "read", "*", "allow"),), conditions=(INSIDE,))
        self.number = 0

    def replica(self) -> Directory:
        return Directory(MemoryPrincipals(), self.policies, self.revocations, [], lambda: self.time)

    def publish(self, rules: list, links: list | None) -> None:
        self.number += 1
        links = list(self.content.links) if links is None else links
        self.content = replace(self.content, rules=tuple(rules), links=tuple(links))
        number = self.number
        self.policies.insert(Policy(f"p{number}", "published", number, number - 1, "why", self.content, "user:root"))

    def answer(self, request: pb.GetPolicySnapshotRequest) -> pb.GetPolicySnapshotResponse:
        self.time += timedelta(seconds=1)
        reply = self.directory.reply(request)
        return pb.GetPolicySnapshotResponse.FromString(reply.SerializeToString())

    def fetch(self, known: PolicySnapshot | None) -> PolicySnapshot | None:
        return updated(known, self.answer(request_for(known)))


def answers(snapshot: PolicySnapshot) -> list[object]:
    """Return everything that a policy answers: outcomes, the rules that settle them, what is owed, what matches."""
    found: list[object] = [snapshot.field_grants]
    for caller in CALLERS:
        for action in ("read", "show"):
            decision = snapshot.decide(caller, "o1", action)
            request = (caller.subject, caller.department, "o1", action, caller.purpose or "none")
            found += [replace(decision, policy_version=0), snapshot.rules.matches(request, snapshot.facts(caller))]
        found += [snapshot.obligations(caller), snapshot.names(caller)]
    return found


def anew(publisher: Publisher) -> PolicySnapshot:
    content = publisher.content
    return PolicySnapshot(1, MODEL, content.rules, sorted(set(content.links)), conditions=content.conditions)


@settings(max_examples=80, deadline=None)
@given(st.lists(CHANGE, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_process_that_follows_any_changes_holds_what_one_built_anew_would_hold(changes: list, pick) -> None:
    """Some publications it misses, once it starts again in the middle: tables equal to the byte, answers alike."""
    publisher, known = Publisher(), None
    for rules, links in changes:
        publisher.publish(rules, links)
        if pick.random() < 0.3:
            continue
        known = publisher.fetch(None if pick.random() < 0.2 else known) or known
        built = anew(publisher)
        assert [table.digest for table in known.tables] == [table.digest for table in built.tables]
        assert [list(map(as_bytes, t.columns)) for t in known.tables] == [
            list(map(as_bytes, t.columns)) for t in built.tables
        ]
        assert known.tables[0].rows() == list(publisher.content.rules)
        assert answers(known) == answers(built)


def test_of_tables_that_did_not_change_only_the_digest_is_sent_and_they_are_held_once() -> None:
    publisher = Publisher()
    rules = [("role:r1", "d1", "o1", "read", "*", "allow")] * 50
    publisher.publish(rules, [("user:a", "role:r1", "d1")])
    first = publisher.fetch(None)
    publisher.publish(rules, [("user:b", "role:r1", "d1")])

    reply = publisher.answer(request_for(first))
    second = updated(first, reply)

    assert not reply.rule_set.rule_table.columns and reply.rule_set.link_table.columns
    assert second.tables[0] is first.tables[0] and second.tables[1] is not first.tables[1]
    allowed = [one.decide(who, "o1", "read").allowed for one in (first, second) for who in (CALLERS[0], CALLERS[8])]
    assert (CALLERS[0].subject, CALLERS[8].subject, allowed) == ("user:a", "user:b", [True, False, False, True])


def words_of(table: pb.WordTable) -> list[str]:
    return list(orjson.loads(zlib.decompress(table.words)))


def packed(words: list[str]) -> bytes:
    return zlib.compress(orjson.dumps(words))


def damaged(reply: pb.GetPolicySnapshotResponse, pick: random.Random) -> pb.GetPolicySnapshotResponse:
    """Return the reply with one thing in one of its tables wrong."""
    found = pb.GetPolicySnapshotResponse.FromString(reply.SerializeToString())
    table = pick.choice([found.rule_set.rule_table, found.rule_set.link_table])
    numbers = [pick.randrange(len(table.columns)) for _ in range(2)]
    number, other = numbers
    kind = pick.randrange(8)
    if kind == 0:
        raw = bytearray(zlib.decompress(table.columns[number]))
        raw[pick.randrange(len(raw))] ^= 1 << pick.randrange(8)
        table.columns[number] = zlib.compress(bytes(raw))
    elif kind == 7:
        table.columns[number] = table.columns[number][: pick.randrange(len(table.columns[number]))]
    elif kind == 1:
        words = words_of(table)
        words[pick.randrange(1, len(words))] += "x"
        table.words = packed(words)
    elif kind == 2:
        del table.columns[number]
    elif kind == 3:
        table.order.append(0)
    elif kind == 4:
        table.digest = "0" * 64
    elif kind == 5:
        table.words = packed([*words_of(table), words_of(table)[1]])
    elif table.columns[number] != table.columns[other]:
        table.columns[number], table.columns[other] = table.columns[other], table.columns[number]
    else:
        del table.columns[:]
    return found


def test_a_damaged_reply_changes_nothing_and_the_next_one_brings_all() -> None:
    publisher, pick = Publisher(), random.Random(7)
    publisher.publish([("role:r1", "d1", "o1", "read", "*", "deny")], [("user:a", "role:r1", "d1")])
    holder, break_it = SnapshotHolder(), [False]

    def fetch(known: PolicySnapshot | None) -> PolicySnapshot | None:
        reply = publisher.answer(request_for(known))
        return updated(known, damaged(reply, pick) if break_it[0] else reply)

    poller = SnapshotPoller(holder, fetch)
    break_it[0] = True
    for _ in range(50):  # nothing was ever loaded: nothing is allowed
        assert not poller.poll_once()
    with pytest.raises(Unavailable):
        _ = holder.current
    break_it[0] = False
    assert poller.poll_once() and not holder.current.decide(CALLERS[0], "o1", "read").allowed

    for turn in range(200):
        rules = [(f"role:r{1 + turn % 3}", "d1", f"o{turn}", "read", "*", "allow")] * 3
        publisher.publish(rules, [("user:a", f"role:r{1 + turn % 3}", "d1"), ("user:b", f"role:t{turn}", "d1")])
        before, break_it[0] = holder.current, True
        assert not poller.poll_once() and holder.current is before
        break_it[0] = False
        assert poller.poll_once() and holder.current.version == publisher.number
        assert holder.current.decide(CALLERS[0], f"o{turn}", "read").allowed


def revoking(publisher: Publisher, token: str) -> None:
    publisher.revocations.add(revoke_token(token, publisher.time))


def test_what_is_revoked_arrives_beside_rules_that_cannot_be_used() -> None:
    publisher, pick, holder = Publisher(), random.Random(3), SnapshotHolder()
    publisher.publish([("role:r1", "d1", "o1", "read", "*", "deny")], [("user:a", "role:r1", "d1")])
    assert SnapshotPoller(holder, publisher.fetch).poll_once()

    def fetch(known: PolicySnapshot | None) -> PolicySnapshot | None:
        return updated(known, damaged(publisher.answer(request_for(known)), pick))

    publisher.publish([("role:r1", "d1", "o1", "read", "*", "allow")], [("user:b", "role:r1", "d1")])
    revoking(publisher, "stolen")

    assert not SnapshotPoller(holder, fetch).poll_once(), "that the rules are old is not hidden"
    assert holder.current.revocations.covers("stolen", "user:a", 0.0) and holder.current.version == 1
    assert SnapshotPoller(holder, publisher.fetch).poll_once() and holder.current.version == 2
    assert holder.current.revocations.covers("stolen", "user:a", 0.0)


def test_what_is_revoked_arrives_when_the_rules_are_too_large_to_send(monkeypatch, caplog) -> None:
    publisher, holder, fresh = Publisher(), SnapshotHolder(), SnapshotHolder()
    publisher.publish([("role:r1", "d1", "o1", "read", "*", "deny")], [])
    poller = SnapshotPoller(holder, publisher.fetch)
    assert poller.poll_once()
    pick = random.Random(5)
    rules = [(f"user:{pick.randbytes(16).hex()}", "d1", "o1", "read", "*", "allow") for _ in range(500)]
    publisher.publish(rules, [])
    revoking(publisher, "stolen")
    monkeypatch.setattr("services.access.directory.LONGEST_REPLY", 4_000)

    assert not poller.poll_once() and not poller.poll_once()
    assert holder.current.revocations.covers("stolen", "user:a", 0.0) and holder.current.version == 1
    assert not SnapshotPoller(fresh, publisher.fetch).poll_once() and not fresh.loaded, (
        "without rules nothing is allowed"
    )
    assert sum("reach no process" in record.message for record in caplog.records) == 1
    monkeypatch.undo()
    assert poller.poll_once() and holder.current.version == 2


def test_a_reply_that_counts_on_tables_of_another_process_is_refused() -> None:
    """Replies reordered, or meant for somebody else: a digest alone opens nothing to who has not the table."""
    publisher = Publisher()
    publisher.publish([("user:a", "d1", "o1", "read", "*", "deny")], [])
    old = publisher.fetch(None)
    publisher.publish([("user:a", "d1", "o1", "read", "*", "allow")], [("user:b", "role:r1", "d1")])
    middle = publisher.fetch(old)
    publisher.publish([("user:a", "d1", "o1", "read", "*", "allow")], [])
    for_middle = publisher.answer(request_for(middle))
    assert not for_middle.rule_set.rule_table.columns

    for known in (None, old):
        with pytest.raises(Invalid):
            updated(known, for_middle)
    assert updated(middle, for_middle).decide(CALLERS[0], "o1", "read").allowed


def test_of_two_publishers_that_race_one_wins_and_every_replica_tells_the_same() -> None:
    publisher = Publisher()
    publisher.publish([("user:a", "d1", "o1", "read", "*", "allow")], [])
    publisher.number -= 1
    with pytest.raises(AlreadyExists):
        publisher.publish([("user:a", "d1", "o1", "read", "*", "deny")], [])
    replicas = [publisher.directory, publisher.replica()]

    replies = [replica.reply(pb.GetPolicySnapshotRequest()) for replica in replicas]
    known = updated(None, replies[0])

    assert replies[0] == replies[1]
    assert known.decide(CALLERS[0], "o1", "read").allowed
    assert updated(known, replicas[1].reply(request_for(known))) is None


def test_a_damaged_candidate_is_counted_as_failed_and_the_live_policy_answers() -> None:
    publisher, holder = Publisher(), SnapshotHolder()
    publisher.publish([("user:a", "d1", "o1", "read", "*", "allow")], [])
    holder.swap(publisher.fetch(None))
    rules = publisher.answer(pb.GetPolicySnapshotRequest()).rule_set
    rules.rule_table.digest = "0" * 64

    class Stub:
        def SyncShadow(self, request: pb.SyncShadowRequest, timeout: float) -> pb.SyncShadowResponse:
            return pb.SyncShadowResponse(policy_id="p", mark="m", rule_set=rules)

    assert ShadowPoller(holder, Stub()).sync_once()
    live = holder.current.decide(CALLERS[0], "o1", "read")
    holder.shadow.compare(CALLERS[0], "o1", "read", (), live)

    assert live.allowed and holder.shadow.take().failed == 1


@pytest.mark.parametrize(
    ("rules", "links"),
    [
        ([("user:a", "d1", "o1", "read", "*", "allow", "")], []),  # no condition is no open door
        ([("user:a", "d1", "o1", "read", "*", "allow", "inside", "more")], []),
        ([("user:a", "d1", "o1", "read", "*", "allow", "unknown")], []),
        ([("user:a", "d1", "o1", "read", "*", 1)], []),
        ([], [("user:a", "role:r1", "d1", "0")]),  # a start and no end
        ([], [("user:a", "role:r1", "d1", "0", "soon")]),
        ([], [("user:a", "role:r1")]),
    ],
)
def test_rows_that_say_too_little_or_too_much_are_refused(rules: list, links: list) -> None:
    with pytest.raises(Invalid):
        PolicySnapshot(1, MODEL, rules, links, conditions=[INSIDE])


def test_a_row_of_the_wire_that_says_too_little_is_refused_as_one_of_a_policy_is() -> None:
    words = Table.of([("user:a", "d1", "o1", "read", "*")], 7)

    with pytest.raises(Invalid, match=r"p\[0\]"):
        SHAPE.rules(table_of(table_message(words)))


def test_a_table_keeps_the_order_in_which_rules_were_given() -> None:
    pick = random.Random(3)
    rows = [(pick.choice(SUBJECTS), "d1", f"o{pick.randrange(9)}", "read", "*", "allow") for _ in range(500)]
    table = SHAPE.rules(rows)

    assert table.rows() == rows
    assert SHAPE.rules(table) is table
    assert table.sorted_by((5,)).sorted_by(SHAPE.order).digest == table.digest
    keys = [tuple(column[place] for column in (table.columns[n] for n in SHAPE.order)) for place in range(len(table))]
    assert keys == sorted(keys)
    assert from_bytes(as_bytes(table.positions)) == table.positions
