"""The steward's queue: pairs of profiles that may be one person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import grpc
from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.chassis.server import current_call
from services.profiles.api.common import Tools, departments_in_reach, id_of, is_in_reach, page_of, shown, shown_all
from services.profiles.believed import believe
from services.profiles.errors import CandidateNotFound
from services.profiles.messages import PAIR_STATES, pair_message
from services.profiles.reviewing import OPEN, Reviews, decided
from services.profiles.shaping import load
from services.profiles.values import Pair, Profile

STATES = {number: state for state, number in PAIR_STATES.items()}
Verdict = profiles_pb2.ConfirmMatchCandidateRequest | profiles_pb2.RejectMatchCandidateRequest


class CandidatesPart:
    """RPCs of match candidates."""

    tools: Tools

    def ListMatchCandidates(
        self, request: profiles_pb2.ListMatchCandidatesRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ListMatchCandidatesResponse:
        """List pairs in the caller's reach, what hangs most on first."""
        state = STATES.get(request.state, "open")
        shelf = self.tools.store.pairs
        kind = "matchCandidates"
        found, token = page_of(shelf, {"state": state}, request.page_size, request.page_token, kind, by="place")
        reviews = self._reviews()
        if state in OPEN:
            found = reviews.still_open(found)
        elif departments_in_reach() != ():
            found = reviews.reached(found)
        return profiles_pb2.ListMatchCandidatesResponse(
            match_candidates=map(pair_message, reviews.of_now(found)), next_page_token=token
        )

    def GetMatchCandidate(
        self, request: profiles_pb2.GetMatchCandidateRequest, context: grpc.ServicerContext
    ) -> resources_pb2.MatchCandidate:
        """Return a pair with both profiles."""
        return self._both(self._pair(request.name))

    def ClaimMatchCandidate(
        self, request: profiles_pb2.ClaimMatchCandidateRequest, context: grpc.ServicerContext
    ) -> resources_pb2.MatchCandidate:
        """Reserve a pair."""
        return self._both(self._reviews().claim(self._pair(request.name)))

    def ClaimNextMatchCandidate(
        self, request: profiles_pb2.ClaimNextMatchCandidateRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ClaimNextMatchCandidateResponse:
        """Reserve the pair that hangs most on; the reply is empty when there is none."""
        found = self._reviews().next()
        return profiles_pb2.ClaimNextMatchCandidateResponse(match_candidate=self._both(found) if found else None)

    def ReleaseMatchCandidate(
        self, request: profiles_pb2.ReleaseMatchCandidateRequest, context: grpc.ServicerContext
    ) -> resources_pb2.MatchCandidate:
        """Give a pair back."""
        return self._both(self._reviews().release(self._pair(request.name)))

    def ConfirmMatchCandidate(
        self, request: profiles_pb2.ConfirmMatchCandidateRequest, context: grpc.ServicerContext
    ) -> resources_pb2.MatchCandidate:
        """Merge the two."""
        return self._decide(request, "confirmed")

    def RejectMatchCandidate(
        self, request: profiles_pb2.RejectMatchCandidateRequest, context: grpc.ServicerContext
    ) -> resources_pb2.MatchCandidate:
        """Keep the two apart for ever."""
        return self._decide(request, "rejected")

    def _decide(self, request: Verdict, state: str) -> resources_pb2.MatchCandidate:
        pair = self._pair(request.name)
        if pair.state not in OPEN:
            if pair.state == state and request.request_id:
                return self._both(pair)
            raise decided(pair)
        return self._both(self._reviews().decide(pair, state, request.reason))

    def _reviews(self) -> Reviews:
        return Reviews(self.tools.store, self.tools.taker.merger, current_call().caller.subject, is_in_reach)

    def _pair(self, name: str) -> Pair:
        """Return a pair whose profiles the caller may reach; of an open one both must be there."""
        found = self.tools.store.pairs.get(id_of(name))
        if found is None or self._reviews().both(found) is None:
            raise CandidateNotFound("there is no such pair", metadata={"name": name})
        return found

    def _both(self, pair: Pair) -> resources_pb2.MatchCandidate:
        (named,) = self._reviews().of_now([pair])
        message = pair_message(named)
        found = self._reviews().both(pair) or []
        if pair.record and pair.state in OPEN:
            message.profiles.extend(self._without_and_alone(found[0], {pair.record, *pair.others}))
        else:
            message.profiles.extend(shown_all(self.tools, found))
        return message

    def _without_and_alone(self, profile: Profile, keys: set[str]) -> Iterator[resources_pb2.Profile]:
        """Yield what would be believed without some records, and from them alone."""
        opened, _ = load(self.tools.store, self.tools.vault, [profile])
        for working in opened:
            for with_it in (False, True):
                records = {name: item for name, item in working.records.items() if (name in keys) is with_it}
                part = replace(profile, records=[item for item in profile.records if item.key in records])
                yield shown(self.tools, part, believe(list(records.values()), self.tools.dictionary.rules()))
