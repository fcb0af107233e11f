"""Verdicts by rule, verdicts as labels, and what they say of the match model's bands."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from kehu.profiles.v1 import profiles_pb2, resources_pb2

from services.chassis.server import current_call
from services.profiles.api.common import Tools, id_of, is_in_reach, page_of
from services.profiles.domain.review import MERGE_BAND, REVIEW_BAND, precision_by_band
from services.profiles.errors import BulkChanged, CandidateClaimed, CandidateDecided
from services.profiles.messages import PAIR_STATES, label_message
from services.profiles.reviewing import Reviews
from services.profiles.values import Pair

LABELS_PER_READ = 500
STATES = {number: state for state, number in PAIR_STATES.items()}


class VerdictsPart:
    """RPCs of many verdicts."""

    tools: Tools

    def BulkDecideMatchCandidates(
        self, request: profiles_pb2.BulkDecideMatchCandidatesRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.BulkDecideMatchCandidatesResponse:
        """Count the open pairs that fit a rule; with that count, answer them."""
        reviews = Reviews(self.tools.store, self.tools.taker.merger, current_call().caller.subject, is_in_reach)
        found, left = reviews.bulk(lambda pair: _fits(pair, request.rule))
        reply = profiles_pb2.BulkDecideMatchCandidatesResponse(
            fitting_count=len(found), second_person_count=left,
            samples=[f"matchCandidates/{pair.id}" for pair in found[:10]],
        )  # fmt: skip
        if not request.expected_count:
            return reply
        if request.expected_count != len(found):
            metadata = {"fitting_count": str(len(found))}
            raise BulkChanged("another number of pairs fits the rule; look again", metadata=metadata)
        for pair in found:
            if reviews.needs_second(pair):  # by what this call merged before
                reply.second_person_count += 1
                continue
            try:
                reviews.decide(pair, STATES[request.verdict], request.reason)
            except (CandidateClaimed, CandidateDecided):
                continue
            reply.decided_count += 1
        return reply

    def ListMatchLabels(
        self, request: profiles_pb2.ListMatchLabelsRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ListMatchLabelsResponse:
        """List the verdicts of a month as labels."""
        equal, shelf = {"month": request.month}, self.tools.store.pairs
        found, token = page_of(shelf, equal, request.page_size, request.page_token, "matchLabels")
        return profiles_pb2.ListMatchLabelsResponse(match_labels=map(label_message, found), next_page_token=token)

    def GetMatchReport(
        self, request: profiles_pb2.GetMatchReportRequest, context: grpc.ServicerContext
    ) -> resources_pb2.MatchReport:
        """Return the precision of each band by the verdicts of a month."""
        verdicts = (
            (_band(pair), pair.probability, pair.state == "confirmed") for pair in self._of_month(id_of(request.name))
        )
        report = resources_pb2.MatchReport(name=request.name)
        for item in precision_by_band(verdicts):
            report.bands.add(
                band=item.band, probability_from=item.low, probability_to=item.high, answered=item.answered,
                same_person=item.same_person, precision=item.precision, precision_at_least=item.at_least,
                precision_at_most=item.at_most,
            )  # fmt: skip
        return report

    def _of_month(self, month: str) -> Iterator[Pair]:
        after = ""
        while found := self.tools.store.pairs.page({"month": month}, after, LABELS_PER_READ):
            yield from found
            after = found[-1].id


def _band(pair: Pair) -> str:
    """Return the band a verdict speaks of; a doubt of the full pass is no sample of automatic merges."""
    return MERGE_BAND if pair.record and not pair.is_doubt else REVIEW_BAND


def _fits(pair: Pair, rule: profiles_pb2.MatchRule) -> bool:
    """Say whether a pair is within the rule's probabilities, has its levels, and nothing that it excludes."""
    levels = {str(step[0]): str(step[1]) for step in pair.steps if step[1] != "frequency"}
    return (
        rule.min_probability <= pair.probability <= (rule.max_probability or 1.0)
        and all(levels.get(name) == level for name, level in rule.levels.items())
        and set(rule.vetoes) <= set(pair.vetoes)
        and not (rule.without_vetoes and pair.vetoes)
    )
