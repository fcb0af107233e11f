"""Retention: rules, runs, legal holds, receipts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import grpc
from google.longrunning import operations_pb2
from kehu.profiles.v1 import retention_pb2 as pb

from services.chassis.errors import AlreadyExists
from services.chassis.jobs import Owner
from services.chassis.records import fields_to_change, new_id, unchanged_since, updated
from services.chassis.server import current_call, validate
from services.chassis.times import set_times
from services.profiles.admission import DERIVED
from services.profiles.ageing.receipts import Receipts
from services.profiles.ageing.retaining import RETAIN, retention_rules
from services.profiles.api.common import Tools, id_of, page_of, profile_in_reach
from services.profiles.domain.retention import GENERALIZED
from services.profiles.errors import HoldNotFound, RetentionRefused, RuleInvalid
from services.profiles.revised import Rulebook
from services.profiles.values import StoredHold

CHANGEABLE = (
    "display_name", "record_type", "field", "source", "days", "action", "measured_from", "bars_newer_versions", "basis",
)  # fmt: skip
SCOPES = {"profile": "profiles", "source": "sources", "rule": "retentionRules"}


class RetentionPart:
    """RPCs of retention."""

    tools: Tools

    def _retention(self) -> Rulebook[pb.RetentionRule]:
        return retention_rules(self.tools.store)

    def CreateRetentionRule(
        self, request: pb.CreateRetentionRuleRequest, context: grpc.ServicerContext
    ) -> pb.RetentionRule:
        """Make a rule that is not in use yet."""
        self._check_retention(request.retention_rule)
        rules = self._retention()
        return rules.message(rules.create(request.retention_rule_id, request.retention_rule))

    def GetRetentionRule(self, request: pb.GetRetentionRuleRequest, context: grpc.ServicerContext) -> pb.RetentionRule:
        """Return a rule."""
        return self._retention().message(self._retention().get(request.name))

    def ListRetentionRules(
        self, request: pb.ListRetentionRulesRequest, context: grpc.ServicerContext
    ) -> pb.ListRetentionRulesResponse:
        """List rules."""
        rules = self._retention()
        found, token = page_of(rules.shelf, {}, request.page_size, request.page_token, "retentionRules")
        return pb.ListRetentionRulesResponse(retention_rules=map(rules.message, found), next_page_token=token)

    def UpdateRetentionRule(
        self, request: pb.UpdateRetentionRuleRequest, context: grpc.ServicerContext
    ) -> pb.RetentionRule:
        """Make a new revision; the one in use stays in use."""
        given, rules = request.retention_rule, self._retention()
        rule = rules.get(given.name)
        message = updated(rules.message(rule), given, fields_to_change(request.update_mask, given, CHANGEABLE))
        validate(message)
        self._check_retention(message)
        return rules.message(rules.change(rule, message, given.etag, given.name))

    def ActivateRetentionRule(
        self, request: pb.ActivateRetentionRuleRequest, context: grpc.ServicerContext
    ) -> pb.RetentionRule:
        """Use the latest revision, if it was tried, or none."""
        rules = self._retention()
        return rules.message(rules.activate(request.name, request.revision, current_call().caller.subject))

    def _check_retention(self, message: pb.RetentionRule) -> None:
        """Refuse a rule that names what is not there, or asks for what cannot be."""
        is_of_records = message.record_type == pb.RetentionRule.RECORD_TYPE_SOURCE_RECORDS
        is_general = message.action == pb.RetentionRule.ACTION_GENERALIZE
        has_sources = message.record_type in (
            pb.RetentionRule.RECORD_TYPE_SOURCE_RECORDS, pb.RetentionRule.RECORD_TYPE_SUPERSEDED_VERSIONS,
            pb.RetentionRule.RECORD_TYPE_REJECTS,
        )  # fmt: skip
        definition = self.tools.dictionary.get(message.field)
        longest = definition.retention_days if definition else 0
        faults = {
            "field": bool(message.field) and (not is_of_records or definition is None or message.field in DERIVED),
            "source": bool(message.source) and (
                not has_sources or self.tools.store.sources.get(id_of(message.source)) is None
            ),
            "action": is_general and message.field not in GENERALIZED,
            "measured_from": not is_of_records and message.measured_from == pb.RetentionRule.CLOCK_RECEIVED,
            "bars_newer_versions": not is_of_records and message.bars_newer_versions,
            "days": bool(longest) and message.days > longest,
        }  # fmt: skip
        if wrong := [name for name, is_wrong in faults.items() if is_wrong]:
            raise RuleInvalid("the rule asks for what cannot be; see docs/retention.md", metadata={"field": wrong[0]})

    def RunRetention(self, request: pb.RunRetentionRequest, context: grpc.ServicerContext) -> operations_pb2.Operation:
        """Queue a run."""
        if request.rule:
            self._retention().get(request.rule)
        if request.every_hours and (request.dry_run or request.HasField("expected_count")):
            raise RetentionRefused("a schedule can neither be a dry run nor expect a count",
                                   metadata={"field": "every_hours"})  # fmt: skip
        if request.dry_run and request.HasField("expected_count"):
            raise RetentionRefused("a dry run expects no count", metadata={"field": "expected_count"})
        args: dict[str, object] = {"rule": request.rule, "every_hours": request.every_hours}
        if request.HasField("expected_count"):
            args["expected_count"] = request.expected_count
        caller = current_call().caller
        owner = Owner(caller.subject, caller.department)
        shown = pb.RetentionRun(dry_run=request.dry_run)
        return self.tools.jobs.start(RETAIN, args, shown, owner, request.request_id)

    def CreateLegalHold(self, request: pb.CreateLegalHoldRequest, context: grpc.ServicerContext) -> pb.LegalHold:
        """Keep something whatever the rules say."""
        given, caller = request.legal_hold, current_call().caller
        scope = given.WhichOneof("scope") or ""
        target = "" if scope == "everything" else id_of(getattr(given, scope))
        if scope == "profile":
            profile_in_reach(self.tools.store, given.profile)
        elif scope == "source":
            self.tools.source(given.source)
        elif scope == "rule":
            self._retention().get(given.rule)
        ends = given.expire_time.ToDatetime(tzinfo=UTC) if given.HasField("expire_time") else None
        if ends is not None and ends <= datetime.now(UTC):
            raise RetentionRefused("the hold would be over already", metadata={"field": "expire_time"})
        made = StoredHold(
            new_id(request.request_id, "hold", caller.subject), scope, target, given.reason, caller.subject, ends
        )  # fmt: skip
        try:
            return _hold_message(self.tools.store.holds.insert(made))
        except AlreadyExists:
            return _hold_message(self._hold(f"legalHolds/{made.id}"))

    def ListLegalHolds(
        self, request: pb.ListLegalHoldsRequest, context: grpc.ServicerContext
    ) -> pb.ListLegalHoldsResponse:
        """List holds, those that ended among them."""
        found, token = page_of(self.tools.store.holds, {}, request.page_size, request.page_token, "holds")
        return pb.ListLegalHoldsResponse(legal_holds=map(_hold_message, found), next_page_token=token)

    def ReleaseLegalHold(self, request: pb.ReleaseLegalHoldRequest, context: grpc.ServicerContext) -> pb.LegalHold:
        """End a hold; a repeat changes nothing."""
        hold = self._hold(request.name)
        if hold.release_time is None:
            released = replace(hold, release_time=datetime.now(UTC), released_by=current_call().caller.subject)
            with unchanged_since("", hold.version, request.name):
                hold = self.tools.store.holds.replace(released)
        return _hold_message(hold)

    def _hold(self, name: str) -> StoredHold:
        found = self.tools.store.holds.get(id_of(name))
        if found is None:
            raise HoldNotFound("there is no such hold", metadata={"name": name})
        return found

    def ListRetentionReceipts(
        self, request: pb.ListRetentionReceiptsRequest, context: grpc.ServicerContext
    ) -> pb.ListRetentionReceiptsResponse:
        """List receipts, oldest first."""
        found, token = page_of(self.tools.store.receipts, {}, request.page_size, request.page_token, "receipts")
        shown = map(Receipts(self.tools.store, self.tools.vault).message, found)
        return pb.ListRetentionReceiptsResponse(retention_receipts=shown, next_page_token=token)

    def ProveRetention(self, request: pb.ProveRetentionRequest, context: grpc.ServicerContext) -> pb.RetentionProof:
        """Prove that an item was among those of a receipt."""
        return Receipts(self.tools.store, self.tools.vault).prove(request.name, request.item)


def _hold_message(hold: StoredHold) -> pb.LegalHold:
    message = pb.LegalHold(
        name=f"legalHolds/{hold.id}", reason=hold.reason, set_by=hold.set_by, released_by=hold.released_by
    )  # fmt: skip
    if hold.scope in SCOPES:
        setattr(message, hold.scope, f"{SCOPES[hold.scope]}/{hold.target}")
    else:
        message.everything = True
    set_times(message, expire_time=hold.expire_time, create_time=hold.create_time, release_time=hold.release_time)
    return message
