"""Relationships between people, and between people and organizations: what they are, and how a network is walked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from stdnum.cn import uscc

from services.profiles.domain.text import clean
from services.profiles.domain.values import StandardRecord

STATED, SUGGESTED, DISMISSED = "stated", "suggested", "dismissed"
BY_RECORD, BY_STEWARD, BY_RULE = "source_record", "steward", "rule"
SAME_ROOM = "same_room_and_surname"
SAME_ROOM_CONFIDENCE = 0.6  # one surname behind one door is mostly a family, and sometimes a flat that changed hands
CROWD = 8  # people of one surname in one room, beyond which it is a dormitory or a made-up address


@dataclass(frozen=True, slots=True)
class RelationType:
    """A kind of relationship; `symmetric` is the same both ways, `to_organization` has an organization second."""

    id: str
    display_name: str
    inverse_display_name: str = ""
    symmetric: bool = False
    to_organization: bool = False
    version: int = 0
    create_time: object = None
    update_time: object = None


BUILT_IN_TYPES: Mapping[str, RelationType] = {
    item.id: item
    for item in (
        RelationType("household", "same household 同户", symmetric=True),
        RelationType("spouse", "spouse 配偶", symmetric=True),
        RelationType("parent", "parent of 父母", "child of 子女"),
        RelationType("referral", "referred 推荐", "referred by 被推荐"),
        RelationType("employer", "employed by 任职", "employs 雇员", to_organization=True),
        RelationType("other", "related to 其他", symmetric=True),
    )
}
OF_ONE_HOUSEHOLD = frozenset(("household", "spouse", "parent"))


@dataclass(frozen=True, slots=True)
class Relation:
    """What is said of two: `one` and `other` are record keys, `other` empty where it is an organization.

    `is_by_code`: `other` is whichever record holds a code. `is_inverse`: `other` is the first of the type's words.
    `by` is the record, the person or the rule that says so (see `evidence`), `said` when, in ISO 8601.
    Days are YYYY-MM-DD or empty; `confidence` is from 0 to 1.
    """

    type: str
    one: str
    other: str = ""
    evidence: str = BY_STEWARD
    by: str = ""
    said: str = ""
    confidence: float = 1.0
    valid_from: str = ""
    valid_to: str = ""
    organization: str = ""
    organization_code: str = ""
    note: str = ""
    inferred_by: str = ""
    is_by_code: bool = False
    is_inverse: bool = False

    def holds_on(self, day: date) -> bool:
        """Tell whether it holds on a day, both ends included."""
        text = day.isoformat()
        return (not self.valid_from or self.valid_from <= text) and (not self.valid_to or text <= self.valid_to)


def organization_key(name: str, code: str) -> str:
    """Return what makes an organization one: its code, or without one its name; empty for neither.

    Raises:
        ValueError: the code's check character is wrong (GB 32100-2015).
    """
    if code:
        return f"code:{uscc.validate(code)}"
    text = "".join(clean(name).split()).casefold()
    return f"name:{text}" if text else ""


def is_day(text: str) -> bool:
    """Tell whether a text is empty or a day of the calendar."""
    try:
        return not text or bool(date.fromisoformat(text))
    except ValueError:
        return False


def household_key(record: StandardRecord) -> str:
    """Return what records of one household share: the address to the room, and the surname; empty when not known."""
    address = record.address
    if address is None or record.name is None or not record.name.surname or record.name.style != "han":
        return ""
    place = address.place
    if not place.room or not (place.number or place.building) or not address.deepest_code:
        return ""
    parts = (place.street, place.number, place.building, place.unit, place.room)
    return "|".join((address.deepest_code, *parts, record.name.surname))


@dataclass(frozen=True, slots=True)
class Edge:
    """A relationship between two nodes, each a profile id or an organization id."""

    relation_id: str
    type: str
    one: str
    other: str
    confidence: float = 1.0
    is_inferred: bool = False

    def beyond(self, node: str) -> str:
        """Return the end that is not this one."""
        return self.other if node == self.one else self.one


@dataclass(frozen=True, slots=True)
class Reached:
    """How a node was reached: steps from the root, and the product of confidences of the best shortest way."""

    distance: int
    strength: float


@dataclass(slots=True)
class Walk:
    """The part of a network that may be shown."""

    nodes: dict[str, Reached] = field(default_factory=dict)
    edges: dict[str, Edge] = field(default_factory=dict)
    is_truncated: bool = False


EdgesOf = Callable[[Sequence[str]], tuple[Sequence[Edge], bool]]
MaySee = Callable[[Collection[str]], Collection[str]]


def walk(root: str, depth: int, edges_of: EdgesOf, may_see: MaySee, most_nodes: int, most_edges: int) -> Walk:
    """Walk breadth first from the root, `depth` steps; who may not be seen is neither shown nor walked through.

    `edges_of` returns the edges of some nodes and whether it left some out; `may_see` those of some nodes that may be
    shown. It is asked about each node once; of the root first: who may not be seen has no network.
    """
    found = Walk()
    if root not in may_see([root]):
        return found
    found.nodes[root] = Reached(0, 1.0)
    frontier, hidden = [root], set[str]()
    for distance in range(1, depth + 1):
        edges, is_cut = edges_of(frontier)
        found.is_truncated |= is_cut
        ends = {end for edge in edges for end in (edge.one, edge.other)} - found.nodes.keys() - hidden
        seen = set(may_see(sorted(ends))) if ends else set()
        hidden |= ends - seen
        strengths = _strengths(edges, found.nodes, seen, distance)
        ranked = sorted(strengths, key=lambda node: (-strengths[node], node))
        frontier = ranked[: max(most_nodes - len(found.nodes), 0)]
        found.is_truncated |= len(frontier) < len(ranked)
        found.nodes.update({node: Reached(distance, strengths[node]) for node in frontier})
        _keep(found, edges, most_edges)
        if not frontier:
            break
    return found


def _strengths(
    edges: Iterable[Edge], nodes: Mapping[str, Reached], seen: Collection[str], distance: int
) -> dict[str, float]:
    best: dict[str, float] = {}
    for edge in edges:
        for near in (edge.one, edge.other):
            far = edge.beyond(near)
            if far in seen and near in nodes and nodes[near].distance == distance - 1:
                best[far] = max(best.get(far, 0.0), nodes[near].strength * edge.confidence)
    return best


def _keep(found: Walk, edges: Iterable[Edge], most_edges: int) -> None:
    for edge in sorted(edges, key=lambda item: item.relation_id):
        if edge.one in found.nodes and edge.other in found.nodes and edge.relation_id not in found.edges:
            if len(found.edges) >= most_edges:
                found.is_truncated = True
                return
            found.edges[edge.relation_id] = edge
