"""Validation rules: made, tried on what is stored, used."""

from __future__ import annotations

from datetime import datetime

import grpc
from google.longrunning import operations_pb2
from kehu.profiles.v1 import validation_pb2 as pb

from services.chassis.jobs import Owner
from services.chassis.records import fields_to_change, updated
from services.chassis.server import current_call, validate
from services.profiles.admission import BUILT_IN
from services.profiles.api.common import Tools, id_of, page_of
from services.profiles.domain.validation import is_bound
from services.profiles.errors import RuleInvalid
from services.profiles.intake.checks import KINDS, validation_rules
from services.profiles.intake.rules import TRY_RULE
from services.profiles.revised import Rulebook

CHANGEABLE = ("display_name", "source", "field", "severity", "range", "shape", "list", "compare", "present",
              "shared", "known", "rising")  # fmt: skip


class RulesPart:
    """RPCs of validation rules."""

    tools: Tools

    def _validation(self) -> Rulebook[pb.ValidationRule]:
        return validation_rules(self.tools.store)

    def CreateValidationRule(
        self, request: pb.CreateValidationRuleRequest, context: grpc.ServicerContext
    ) -> pb.ValidationRule:
        """Make a rule that is not in use yet."""
        self._check(request.validation_rule)
        rules = self._validation()
        return rules.message(rules.create(request.validation_rule_id, request.validation_rule))

    def GetValidationRule(
        self, request: pb.GetValidationRuleRequest, context: grpc.ServicerContext
    ) -> pb.ValidationRule:
        """Return a rule, or what it was in a revision that was in use, with who used which when."""
        rules = self._validation()
        rule = rules.get(request.name)
        message = rules.at(rule, request.revision) if request.revision else rules.message(rule)
        for revision, time, subject, _ in rule.activations:
            entry = message.activations.add(revision=revision, subject=subject)
            entry.time.FromDatetime(datetime.fromisoformat(str(time)))
        return message

    def ListValidationRules(
        self, request: pb.ListValidationRulesRequest, context: grpc.ServicerContext
    ) -> pb.ListValidationRulesResponse:
        """List rules."""
        rules = self._validation()
        found, token = page_of(rules.shelf, {}, request.page_size, request.page_token, "rules")
        return pb.ListValidationRulesResponse(validation_rules=map(rules.message, found), next_page_token=token)

    def UpdateValidationRule(
        self, request: pb.UpdateValidationRuleRequest, context: grpc.ServicerContext
    ) -> pb.ValidationRule:
        """Make a new revision; the one in use stays in use."""
        given, rules = request.validation_rule, self._validation()
        rule = rules.get(given.name)
        message = updated(rules.message(rule), given, fields_to_change(request.update_mask, given, CHANGEABLE))
        validate(message)
        self._check(message)
        return rules.message(rules.change(rule, message, given.etag, given.name))

    def TryValidationRule(
        self, request: pb.TryValidationRuleRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue a trial of the latest revision."""
        rule = self._validation().get(request.name)
        caller = current_call().caller
        owner = Owner(caller.subject, caller.department)
        args = {"rule_id": rule.id, "plain": rule.latest}
        trial = pb.RuleTrial(revision=rule.revision)
        return self.tools.jobs.start(TRY_RULE, args, trial, owner, request.request_id)

    def ActivateValidationRule(
        self, request: pb.ActivateValidationRuleRequest, context: grpc.ServicerContext
    ) -> pb.ValidationRule:
        """Use the latest revision, if it was tried, or none."""
        rules = self._validation()
        rule = rules.activate(request.name, request.revision, current_call().caller.subject)
        self.tools.dictionary.forget()
        return rules.message(rule)

    def _check(self, message: pb.ValidationRule) -> None:
        """Refuse a rule that names what is not there."""
        for name in filter(None, (message.source, message.known.source)):
            if self.tools.store.sources.get(id_of(name)) is None:
                raise RuleInvalid("there is no such source", metadata={"field": "source"})
        other = message.compare.other_field or message.present.when_field or message.known.field
        for place, name in (("field", message.field), ("other_field", other)):
            if name and name not in BUILT_IN and self.tools.dictionary.get(name) is None:
                raise RuleInvalid("the dictionary has no such field", metadata={"field": place})
        if message.WhichOneof("check") == "range":
            bounds = (message.range.least, message.range.most)
            if not any(bounds) or not all(is_bound(item, KINDS[message.range.kind]) for item in bounds):
                raise RuleInvalid("a range has a bound, of its own kind", metadata={"field": "range"})
