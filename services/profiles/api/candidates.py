"""The steward's queue: pairs of profiles that may be one person."""

from __future__ import annotations

import dataclasses

import grpc
from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.chassis.server import current_call
from services.profiles.api.common import Tools, id_of, page_of, shown_all
from services.profiles.errors import CandidateDecided, CandidateNotFound
from services.profiles.merging import resolve
from services.profiles.messages import PAIR_STATES, pair_message
from services.profiles.values import Pair

STATES = {number: state for state, number in PAIR_STATES.items()}


class CandidatesPart:
    """RPCs of match candidates."""

    tools: Tools

    def ListMatchCandidates(
        self, request: profiles_pb2.ListMatchCandidatesRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ListMatchCandidatesResponse:
        """List pairs; open ones that became one profile meanwhile are closed on the way."""
        state = STATES.get(request.state, "open")
        shelf = self.tools.store.pairs
        found, token = page_of(shelf, {"state": state}, request.page_size, request.page_token, "matchCandidates")
        if state == "open":
            found = self._still_open(found)
        return profiles_pb2.ListMatchCandidatesResponse(
            match_candidates=map(pair_message, found), next_page_token=token
        )

    def _still_open(self, pairs: list[Pair]) -> list[Pair]:
        living = resolve(self.tools.store, [item for pair in pairs for item in (pair.one, pair.other)])
        kept = []
        for pair in pairs:
            one, other = living.get(pair.one), living.get(pair.other)
            if one is None or other is None or one.profile_id == other.profile_id:
                self.tools.store.pairs.replace(dataclasses.replace(pair, state="obsolete"))
            else:
                kept.append(pair)
        return kept

    def GetMatchCandidate(
        self, request: profiles_pb2.GetMatchCandidateRequest, context: grpc.ServicerContext
    ) -> resources_pb2.MatchCandidate:
        """Return a pair with both profiles."""
        return self._both(self._pair(request.name))

    def ConfirmMatchCandidate(
        self, request: profiles_pb2.ConfirmMatchCandidateRequest, context: grpc.ServicerContext
    ) -> resources_pb2.MatchCandidate:
        """Merge the two."""
        pair = self._pair(request.name)
        if pair.state == "confirmed" and request.request_id:
            return self._both(pair)
        self._check_open(pair)
        self.tools.taker.merger.merge([pair.one, pair.other])
        return self._both(self._decide(pair, "confirmed"))

    def RejectMatchCandidate(
        self, request: profiles_pb2.RejectMatchCandidateRequest, context: grpc.ServicerContext
    ) -> resources_pb2.MatchCandidate:
        """Keep the two apart for ever."""
        pair = self._pair(request.name)
        if pair.state == "rejected" and request.request_id:
            return self._both(pair)
        self._check_open(pair)
        living = resolve(self.tools.store, [pair.one, pair.other])
        if len({item.profile_id for item in living.values()}) != 2:
            self._decide(pair, "obsolete")
            raise _decided(pair, "obsolete")
        self.tools.taker.merger.keep_apart(living[pair.one].profile_id, living[pair.other].profile_id)
        return self._both(self._decide(pair, "rejected"))

    def _pair(self, name: str) -> Pair:
        found = self.tools.store.pairs.get(id_of(name))
        if found is None:
            raise CandidateNotFound("there is no such pair", metadata={"name": name})
        return found

    def _check_open(self, pair: Pair) -> None:
        if pair.state != "open":
            raise _decided(pair, pair.state)

    def _decide(self, pair: Pair, state: str) -> Pair:
        decided = dataclasses.replace(pair, state=state, decided_by=current_call().caller.subject)
        return self.tools.store.pairs.replace(decided)

    def _both(self, pair: Pair) -> resources_pb2.MatchCandidate:
        message = pair_message(pair)
        living = resolve(self.tools.store, [pair.one, pair.other])
        unique = {item.profile_id: item for item in living.values()}
        message.profiles.extend(shown_all(self.tools, list(unique.values())))
        return message


def _decided(pair: Pair, state: str) -> CandidateDecided:
    metadata = {"name": f"matchCandidates/{pair.id}", "state": state.upper()}
    return CandidateDecided("the pair was decided already", metadata=metadata)
