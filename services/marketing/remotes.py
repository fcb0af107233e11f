"""The other services behind the ports of a run, over gRPC."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC

import grpc
from kehu.analytics.v1 import analytics_pb2, audience_pb2
from kehu.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from kehu.consent.v1 import consent_pb2
from kehu.consent.v1.consent_pb2_grpc import ConsentServiceStub
from kehu.profiles.v1 import profiles_pb2
from kehu.profiles.v1.profiles_pb2_grpc import ProfilesServiceStub

from services.marketing.domain.errors import AudienceRefused
from services.marketing.domain.planning import ConsentAnswer
from services.marketing.ports import AudiencePage, ConsentAnswers, Contact, Waiting

PAGE_LIMIT = 500  # what analytics, consent and profiles document as their maximum
TIMEOUT_SECONDS = 15.0
AUDIENCE_TIMEOUT_SECONDS = 120.0  # the first page evaluates the rule over the whole lake
RETRY_SECONDS = 2.0
NEVER = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)  # asked again it is no other
_log = logging.getLogger(__name__)


def _waiting(reason: str, error: grpc.RpcError) -> Waiting:
    code = error.code().name if isinstance(error, grpc.Call) else "UNKNOWN"
    _log.warning("a run waits", extra={"reason": reason, "code": code})
    return Waiting(reason, RETRY_SECONDS)


class RemoteAudiences:
    """Analytics."""

    def __init__(self, stub: AnalyticsServiceStub) -> None:
        self._stub = stub

    def page(self, rule: bytes, token: str) -> AudiencePage:
        """Return a page of a rule's audience."""
        request = analytics_pb2.EvaluateAudienceRequest(
            rule=audience_pb2.AudienceRule.FromString(rule), page_size=PAGE_LIMIT, page_token=token
        )
        try:
            found = self._stub.EvaluateAudience(request, timeout=AUDIENCE_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() in NEVER:
                raise AudienceRefused("the audience cannot be read any further: run the campaign again") from error
            raise _waiting("AUDIENCE_UNAVAILABLE", error) from error
        cutoff = found.data_cutoff.ToDatetime(tzinfo=UTC) if found.HasField("data_cutoff") else None
        return AudiencePage(tuple(found.profile_ids), found.next_page_token, found.total, cutoff)


class RemoteConsents:
    """Consent, asked and told as the marketing service itself."""

    def __init__(self, stub: ConsentServiceStub) -> None:
        self._stub = stub

    def decide(self, person_ids: Sequence[str], purpose_id: str, channel: str) -> ConsentAnswers:
        """Return an answer for each person; one that is missing or about somebody else is a refusal."""
        request = consent_pb2.BatchDecideRequest(profile_ids=person_ids, purpose_id=purpose_id, channel=channel)
        try:
            found = self._stub.BatchDecide(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise _waiting("CONSENT_UNAVAILABLE", error) from error
        answers = {
            decision.profile_id: ConsentAnswer(decision.allowed, decision.reason, tuple(decision.record_ids))
            for asked, decision in zip(person_ids, found.decisions, strict=False)
            if asked == decision.profile_id
        }
        return ConsentAnswers(answers, found.use_within_ms / 1000)

    def revoke(self, profile_id: str, purpose_id: str, channel: str, request_id: str) -> None:
        """Withdraw consent; a purpose that is gone needs no withdrawal."""
        request = consent_pb2.RevokeConsentRequest(
            profile_id=profile_id,
            purpose_id=purpose_id,
            channel=channel,
            collected_via=consent_pb2.COLLECTED_VIA_UNSUBSCRIBE_LINK,
            request_id=request_id,
        )
        try:
            self._stub.RevokeConsent(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
                return
            raise _waiting("CONSENT_UNAVAILABLE", error) from error


class RemoteContacts:
    """Profiles."""

    def __init__(self, stub: ProfilesServiceStub) -> None:
        self._stub = stub

    def contacts(self, profile_ids: Sequence[str], channel: str) -> Mapping[str, Contact]:
        """Return the contacts of those that have one."""
        request = profiles_pb2.BatchGetContactsRequest(profile_ids=profile_ids, channel=channel)
        try:
            found = self._stub.BatchGetContacts(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise _waiting("CONTACTS_UNAVAILABLE", error) from error
        return {one.profile_id: Contact(one.display_name, one.address) for one in found.contacts if one.address}
