"""A person's network."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from kehu.profiles.v1 import relations_pb2 as pb

from services.chassis.server import current_call
from services.chassis.times import china_today
from services.profiles.api.common import Tools, id_of, is_in_reach, profile_in_reach
from services.profiles.domain.relations import Reached, Walk
from services.profiles.relations.messages import edge_message, organization_message
from services.profiles.relations.networks import Networks, Question
from services.profiles.relations.relating import Relations
from services.profiles.values import Profile


class NetworksPart:
    """The RPC of networks."""

    tools: Tools

    def GetNetwork(self, request: pb.GetNetworkRequest, context: grpc.ServicerContext) -> pb.Network:
        """Walk a person's relationships."""
        root = profile_in_reach(self.tools.store, request.name)
        question = Question(
            root, request.depth or 1, frozenset(map(id_of, request.types)), request.include_inferred,
            current_call().caller.purpose, request.channel, china_today(),
        )  # fmt: skip
        relations = Relations(self.tools.store, self.tools.vault)
        networks = Networks(relations, self.tools.consents, is_in_reach)
        return self._message(networks, networks.walk(question), frozenset(request.stages))

    def _message(self, networks: Networks, found: Walk, stages: frozenset[str]) -> pb.Network:
        people = [networks.people[node] for node in found.nodes if node in networks.people]
        names = self._names(people)
        nodes = []
        for node, reached in found.nodes.items():
            if node in networks.organizations:
                nodes.append(_organization_node(networks, node, reached))
            elif reached.distance == 0 or not stages or networks.people[node].stage in stages:
                nodes.append(_person_node(networks.people[node], names.get(node, ""), reached))
        nodes.sort(key=lambda item: (item.distance, -item.strength, item.name))
        named = {item.name.rpartition("/")[2] for item in nodes}
        edges = [item for item in found.edges.values() if {item.one, item.other} <= named]
        return pb.Network(
            nodes=nodes,
            edges=[edge_message(item, list(networks.organizations)) for item in edges],
            truncated=found.is_truncated,
        )

    def _names(self, people: list[Profile]) -> Mapping[str, str]:
        ciphers = self.tools.vault.ciphers(self.tools.store, people)
        return {
            item.profile_id: self.tools.vault.open_golden(item, ciphers).golden.value("name")
            for item in people
            if item.key_id in ciphers.by_id
        }


def _person_node(profile: Profile, name: str, reached: Reached) -> pb.NetworkNode:
    return pb.NetworkNode(
        name=f"profiles/{profile.profile_id}",
        display_name=name,
        distance=reached.distance,
        strength=reached.strength,
        stage=profile.stage,
        tier=profile.tier,
    )


def _organization_node(networks: Networks, node: str, reached: Reached) -> pb.NetworkNode:
    return pb.NetworkNode(
        name=f"organizations/{node}",
        organization=organization_message(networks.organizations[node]),
        distance=reached.distance,
        strength=reached.strength,
    )
