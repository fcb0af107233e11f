"""A person's network: walked through people only who consented to the purpose and whom the caller may reach."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from services.profiles.domain.relations import Edge, Walk, walk
from services.profiles.relations.relating import Related, Relations
from services.profiles.values import Profile

MOST_NODES, MOST_EDGES = 200, 1000  # Network documents these
CONSENT_BATCH = 500  # what consent documents as its maximum


class Consents(Protocol):
    """Who consented, as the consent service says for the call being served."""

    def allowed(self, profile_ids: Sequence[str], purpose: str, channel: str) -> Collection[str]:
        """Return those who did; Unavailable when it does not answer."""


class _Nobody:
    """Allows nobody: what a process without a consent service has."""

    def allowed(self, profile_ids: Sequence[str], purpose: str, channel: str) -> Collection[str]:
        """Return none."""
        return ()


NOBODY_ALLOWED: Consents = _Nobody()


@dataclass(frozen=True, slots=True)
class Question:
    """Whose network is asked for, how far, of what types (empty means all), and for what use."""

    root: Profile
    depth: int
    types: frozenset[str]
    with_inferred: bool
    purpose: str
    channel: str
    today: date


class Networks:
    """Walks the relationships of one store; made for one question."""

    def __init__(self, relations: Relations, consents: Consents, reach: Callable[[Profile], bool]) -> None:
        self._relations = relations
        self._consents = consents
        self._reach = reach
        self.people: dict[str, Profile] = {}
        self.organizations: dict[str, Related] = {}

    def walk(self, question: Question) -> Walk:
        """Return the part of the network that may be shown.

        Raises:
            Unavailable: consent does not answer; nothing is shown.
        """
        self.people[question.root.profile_id] = question.root

        def edges_of(nodes: Sequence[str]) -> tuple[list[Edge], bool]:
            return self._edges(nodes, question)

        def may_see(nodes: Collection[str]) -> set[str]:
            return self._seen(nodes, question)

        return walk(question.root.profile_id, question.depth, edges_of, may_see, MOST_NODES, MOST_EDGES)

    def _edges(self, nodes: Sequence[str], question: Question) -> tuple[list[Edge], bool]:
        people = [self.people[node] for node in nodes if node in self.people]
        found, is_cut = self._relations.of(people)
        at_organizations, is_cut_there = self._relations.at_organization([n for n in nodes if n in self.organizations])
        edges = []
        for item in (*found, *at_organizations):
            relation = item.relation
            is_asked = not question.types or relation.type in question.types
            if (
                not is_asked
                or not relation.holds_on(question.today)
                or (item.is_suggested and not question.with_inferred)
            ):
                continue
            for profile in (item.one, item.other):
                if profile is not None:
                    self.people[profile.profile_id] = profile
            if item.other is None:
                self.organizations[item.stored.other] = item
            edges.append(
                Edge(item.stored.id, relation.type, *item.ends, relation.confidence, bool(relation.inferred_by))
            )
        return edges, is_cut or is_cut_there

    def _seen(self, nodes: Collection[str], question: Question) -> set[str]:
        """Return those who may be shown: organizations, and people in reach who consented."""
        seen = {node for node in nodes if node in self.organizations}
        reached = sorted(node for node in nodes if node in self.people and self._reach(self.people[node]))
        for start in range(0, len(reached), CONSENT_BATCH):
            part = reached[start : start + CONSENT_BATCH]
            seen.update(set(part) & set(self._consents.allowed(part, question.purpose, question.channel)))
        return seen
