"""ConsentService over gRPC: parse, load, decide by the domain, save, reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import grpc
from kehu.consent.v1 import consent_pb2 as pb
from kehu.consent.v1 import consent_pb2_grpc

from services.chassis.errors import AlreadyExists, KehuError
from services.chassis.paging import (
    Seen,
    decode_seen,
    decode_token,
    encode_seen,
    encode_token,
    filter_hash,
    page_size_of,
)
from services.chassis.records import fields_to_change, new_id, remembered, unchanged_since, updated
from services.chassis.server import current_call, validate
from services.consent import wire
from services.consent.domain.decision import USE_WITHIN_SECONDS, Decision, Terms, decide, known_at
from services.consent.domain.errors import (
    NoticeExists,
    NoticeInvalid,
    NoticeNotFound,
    PurposeExists,
    PurposeNotFound,
)
from services.consent.domain.records import ConsentRecord, ConsentState, Evidence, ProfileConsents
from services.consent.domain.registry import CHANGEABLE, Notice, Purpose, change_purpose, checked_purpose, publish
from services.consent.recording import Kept, Recorder, Wish
from services.consent.store import ConsentStore, consents_for

USE_WITHIN_MS = int(USE_WITHIN_SECONDS * 1000)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ConsentServicer(consent_pb2_grpc.ConsentServiceServicer):
    """The RPCs of consent.proto; `clock` and `settle` are the real ones outside tests."""

    def __init__(
        self,
        store: ConsentStore,
        clock: Callable[[], datetime] = _utc_now,
        settle: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._clock = clock
        self._recorder = Recorder(store, settle)

    def _now(self) -> datetime:
        return wire.milliseconds(self._clock())

    def CreatePurpose(self, request: pb.CreatePurposeRequest, context: grpc.ServicerContext) -> pb.Purpose:
        """Register a purpose."""
        purpose = checked_purpose(wire.purpose_from(request.purpose_id, request.purpose))
        self._known_notice(purpose)
        request_id = _remembered(request)
        try:
            return wire.purpose_to_proto(self._store.save_purpose(purpose, request_id))
        except AlreadyExists:
            if not self._store.was_requested(Purpose, request.purpose_id, request_id):
                raise PurposeExists(request.purpose_id) from None
        return wire.purpose_to_proto(self._purpose(request.purpose_id))

    def GetPurpose(self, request: pb.GetPurposeRequest, context: grpc.ServicerContext) -> pb.Purpose:
        """Read a purpose."""
        return wire.purpose_to_proto(self._purpose(request.purpose_id))

    def ListPurposes(self, request: pb.ListPurposesRequest, context: grpc.ServicerContext) -> pb.ListPurposesResponse:
        """List purposes by id."""
        size, after = _position(request.page_size, request.page_token, "purposes")
        found = self._store.purposes(after, size + 1)
        token = _next_token(found[size - 1].purpose_id, "purposes") if len(found) > size else ""
        purposes = [wire.purpose_to_proto(purpose) for purpose in found[:size]]
        return pb.ListPurposesResponse(purposes=purposes, next_page_token=token)

    def UpdatePurpose(self, request: pb.UpdatePurposeRequest, context: grpc.ServicerContext) -> pb.Purpose:
        """Change the fields named by the mask; without one, those that are set."""
        known = self._purpose(request.purpose_id)
        fields = fields_to_change(request.update_mask, request.purpose, CHANGEABLE)
        message = updated(wire.purpose_to_proto(known), request.purpose, fields)
        validate(message)
        with unchanged_since(request.purpose.etag, known.version, f"purposes/{known.purpose_id}"):
            changed = change_purpose(known, wire.purpose_from(known.purpose_id, message), fields)
            self._known_notice(changed)
            return wire.purpose_to_proto(self._store.save_purpose(changed))

    def CreateNotice(self, request: pb.CreateNoticeRequest, context: grpc.ServicerContext) -> pb.Notice:
        """Create a notice with its first version."""
        if len(request.notice.versions) != 1:
            raise NoticeInvalid("a new notice has exactly one version")
        notice = Notice(request.notice_id, request.notice.display_name)
        notice = self._with_version(notice, request.notice.versions[0])
        request_id = _remembered(request)
        try:
            return wire.notice_to_proto(self._store.save_notice(notice, request_id))
        except AlreadyExists:
            if not self._store.was_requested(Notice, request.notice_id, request_id):
                raise NoticeExists(request.notice_id) from None
        return wire.notice_to_proto(self._notice(request.notice_id))

    def GetNotice(self, request: pb.GetNoticeRequest, context: grpc.ServicerContext) -> pb.Notice:
        """Read a notice."""
        return wire.notice_to_proto(self._notice(request.notice_id))

    def ListNotices(self, request: pb.ListNoticesRequest, context: grpc.ServicerContext) -> pb.ListNoticesResponse:
        """List notices by id."""
        size, after = _position(request.page_size, request.page_token, "notices")
        found = self._store.notices(after, size + 1)
        token = _next_token(found[size - 1].notice_id, "notices") if len(found) > size else ""
        notices = [wire.notice_to_proto(notice) for notice in found[:size]]
        return pb.ListNoticesResponse(notices=notices, next_page_token=token)

    def PublishNotice(self, request: pb.PublishNoticeRequest, context: grpc.ServicerContext) -> pb.Notice:
        """Publish the next version."""
        notice = self._notice(request.notice_id)
        request_id = _remembered(request)
        if self._store.was_requested(Notice, notice.notice_id, request_id):
            return wire.notice_to_proto(notice)
        with unchanged_since(request.etag, notice.version, f"notices/{notice.notice_id}"):
            grown = self._with_version(notice, request.version)
            return wire.notice_to_proto(self._store.save_notice(grown, request_id))

    def RecordConsent(self, request: pb.RecordConsentRequest, context: grpc.ServicerContext) -> pb.ConsentRecord:
        """Append a record."""
        kept = self._recorder.record(self._wish(request), self._now())
        return wire.record_to_proto(kept.profile_id, kept.record)

    def BatchRecordConsents(
        self, request: pb.BatchRecordConsentsRequest, context: grpc.ServicerContext
    ) -> pb.BatchRecordConsentsResponse:
        """Append many records, each on its own."""
        wishes = [self._wish(single) for single in request.requests]
        results = [_result(outcome) for outcome in self._recorder.record_many(wishes, self._now())]
        return pb.BatchRecordConsentsResponse(results=results)

    def ListConsents(self, request: pb.ListConsentsRequest, context: grpc.ServicerContext) -> pb.ListConsentsResponse:
        """List a profile's records, the newest answer first."""
        consents = consents_for(self._store, [request.profile_id])[request.profile_id]
        chosen = [r for r in consents.records if request.purpose_id in ("", r.purpose_id)]
        chosen.sort(key=_place, reverse=True)
        size, listed = page_size_of(request.page_size), ("consents", request.profile_id, request.purpose_id)
        seen = decode_seen(request.page_token, filter_hash(*listed)) if request.page_token else None
        if seen:
            chosen = [record for record in chosen if _place(record) < seen]
        page = [wire.record_to_proto(consents.profile_id, record) for record in chosen[:size]]
        token = ""
        if len(chosen) > size:
            token = encode_seen(_place(chosen[size - 1]), filter_hash(*listed))
        return pb.ListConsentsResponse(consents=page, next_page_token=token)

    def RevokeConsent(self, request: pb.RevokeConsentRequest, context: grpc.ServicerContext) -> pb.ConsentRecord:
        """Withdraw consent; it holds for every decision asked for after the reply."""
        now = self._now()
        via = pb.CollectedVia.Name(request.collected_via).removeprefix("COLLECTED_VIA_")
        record = ConsentRecord(
            record_id=_record_id(request, request.purpose_id, request.channel, "RevokeConsent"),
            purpose_id=request.purpose_id,
            channel=request.channel,
            state=ConsentState.REVOKED,
            answer_time=now,
            create_time=now,
            evidence=Evidence(collected_via=via, agent=request.agent),
        )
        kept = self._recorder.record(Wish(request.profile_id, record, is_of_now=True), now)
        return wire.record_to_proto(kept.profile_id, kept.record)

    def Decide(self, request: pb.DecideRequest, context: grpc.ServicerContext) -> pb.Decision:
        """Decide about one profile."""
        return self._decisions([request.profile_id], request)[0]

    def BatchDecide(self, request: pb.BatchDecideRequest, context: grpc.ServicerContext) -> pb.BatchDecideResponse:
        """Decide about many profiles, in the order asked."""
        decisions = self._decisions(list(request.profile_ids), request)
        return pb.BatchDecideResponse(decisions=decisions, use_within_ms=USE_WITHIN_MS)

    def _decisions(
        self, profile_ids: Sequence[str], request: pb.DecideRequest | pb.BatchDecideRequest
    ) -> list[pb.Decision]:
        past = wire.time_of(request.at) if request.HasField("at") else None
        purpose = self._store.purpose(request.purpose_id)
        notice = self._store.notice(purpose.notice_id) if purpose and purpose.notice_id else None
        terms = Terms(purpose, notice, request.channel, past or self._now(), request.accept_legal_basis)
        answering = consents_for(self._store, profile_ids)
        return [wire.decision_to_proto(wanted, _decision(answering[wanted], terms, past)) for wanted in profile_ids]

    def _wish(self, request: pb.RecordConsentRequest) -> Wish:
        answer = request.consent
        state = pb.ConsentState.Name(answer.state)
        record_id = _record_id(request, answer.purpose_id, answer.channel, state)
        refuses_now = answer.state != pb.CONSENT_STATE_GRANTED and not answer.HasField("answer_time")
        return Wish(request.profile_id, wire.record_from(answer, record_id, self._now()), refuses_now)

    def _purpose(self, purpose_id: str) -> Purpose:
        found = self._store.purpose(purpose_id)
        if found is None:
            raise PurposeNotFound(purpose_id)
        return found

    def _notice(self, notice_id: str) -> Notice:
        found = self._store.notice(notice_id)
        if found is None:
            raise NoticeNotFound(notice_id)
        return found

    def _known_notice(self, purpose: Purpose) -> None:
        if purpose.notice_id:
            self._notice(purpose.notice_id)

    def _with_version(self, notice: Notice, version: pb.NoticeVersion) -> Notice:
        wordings = {text.language: text.body for text in version.texts}
        if len(wordings) < len(version.texts):
            raise NoticeInvalid("a version has one wording in each language")
        effective = wire.time_of(version.effective_time)
        return publish(notice, wordings, effective, version.material, self._now())


def _remembered(request: pb.CreatePurposeRequest | pb.CreateNoticeRequest | pb.PublishNoticeRequest) -> str:
    """Return what a record remembers of a request: its id stands for one method of one caller."""
    return remembered(request.request_id, current_call().caller.subject, request.DESCRIPTOR.name)


def _record_id(
    request: pb.RecordConsentRequest | pb.RevokeConsentRequest, purpose_id: str, channel: str, what: str
) -> str:
    """Return the id of a record: the same for a repeat, by the same caller, of the same answer to the same purpose."""
    asked = (current_call().caller.subject, request.profile_id, purpose_id, channel, what)
    return new_id(request.request_id, "consents", *asked)


def _decision(consents: ProfileConsents, terms: Terms, past: datetime | None) -> Decision:
    return decide(consents.counting if past is None else known_at(consents.counting, past), terms)


def _place(record: ConsentRecord) -> Seen:
    return record.answer_time, record.record_id


def _position(page_size: int, page_token: str, of: str) -> tuple[int, str]:
    position = decode_token(page_token, filter_hash(of))
    return page_size_of(page_size), str(position.get("after", ""))


def _next_token(after: str, of: str) -> str:
    return encode_token({"after": after}, filter_hash(of))


def _result(outcome: Kept | KehuError) -> pb.RecordResult:
    if isinstance(outcome, KehuError):
        return pb.RecordResult(reason=outcome.reason, message=outcome.message)
    return pb.RecordResult(name=f"profiles/{outcome.profile_id}/consents/{outcome.record.record_id}")
