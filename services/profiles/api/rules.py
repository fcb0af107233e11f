"""Validation rules: made, tried on what is stored, used."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import grpc
from google.longrunning import operations_pb2
from kehu.profiles.v1 import validation_pb2 as pb

from services.chassis.errors import AlreadyExists
from services.chassis.jobs import Owner
from services.chassis.records import fields_to_change, unchanged_since, updated
from services.chassis.server import current_call, validate
from services.profiles.admission import BUILT_IN
from services.profiles.api.common import Tools, id_of, page_of
from services.profiles.checks import KINDS, plain_of, rule_message
from services.profiles.domain.validation import is_bound
from services.profiles.errors import RuleExists, RuleInvalid, RuleNotFound, RuleNotTried
from services.profiles.rules import TRY_RULE
from services.profiles.values import StoredRule

CHANGEABLE = ("display_name", "source", "field", "severity", "range", "shape", "list", "compare", "present",
              "shared", "known", "rising")  # fmt: skip
ACTIVATIONS_KEPT = 100


class RulesPart:
    """RPCs of validation rules."""

    tools: Tools

    def CreateValidationRule(
        self, request: pb.CreateValidationRuleRequest, context: grpc.ServicerContext
    ) -> pb.ValidationRule:
        """Make a rule that is not in use yet."""
        self._check(request.validation_rule)
        made = StoredRule(request.validation_rule_id, plain_of(request.validation_rule), 1)
        try:
            return rule_message(self.tools.store.rules.insert(made))
        except AlreadyExists as error:
            name = f"validationRules/{made.id}"
            raise RuleExists("a rule with this id exists already", metadata={"name": name}) from error

    def GetValidationRule(
        self, request: pb.GetValidationRuleRequest, context: grpc.ServicerContext
    ) -> pb.ValidationRule:
        """Return a rule."""
        return rule_message(self._rule(request.name))

    def ListValidationRules(
        self, request: pb.ListValidationRulesRequest, context: grpc.ServicerContext
    ) -> pb.ListValidationRulesResponse:
        """List rules."""
        found, token = page_of(self.tools.store.rules, {}, request.page_size, request.page_token, "rules")
        return pb.ListValidationRulesResponse(validation_rules=map(rule_message, found), next_page_token=token)

    def UpdateValidationRule(
        self, request: pb.UpdateValidationRuleRequest, context: grpc.ServicerContext
    ) -> pb.ValidationRule:
        """Make a new revision; the one in use stays in use."""
        given = request.validation_rule
        rule = self._rule(given.name)
        message = updated(rule_message(rule), given, fields_to_change(request.update_mask, given, CHANGEABLE))
        validate(message)
        self._check(message)
        with unchanged_since(given.etag, rule.version, given.name):
            plain = plain_of(message)
            if plain != rule.latest:
                rule = self.tools.store.rules.replace(replace(rule, latest=plain, revision=rule.revision + 1))
        return rule_message(rule)

    def TryValidationRule(
        self, request: pb.TryValidationRuleRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue a trial of the latest revision."""
        rule = self._rule(request.name)
        caller = current_call().caller
        owner = Owner(caller.subject, caller.department)
        args = {"rule_id": rule.id, "plain": rule.latest}
        trial = pb.RuleTrial(revision=rule.revision)
        return self.tools.jobs.start(TRY_RULE, args, trial, owner, request.request_id)

    def ActivateValidationRule(
        self, request: pb.ActivateValidationRuleRequest, context: grpc.ServicerContext
    ) -> pb.ValidationRule:
        """Use the latest revision, if it was tried, or none."""
        rule = self._rule(request.name)
        wanted = request.revision
        if wanted and (wanted != rule.revision or rule_message(rule).trial.revision != wanted):
            raise RuleNotTried(
                "only the latest revision is used, once it was tried on what is stored",
                metadata={"name": request.name, "revision": str(wanted)},
            )
        if wanted != rule.active_revision:
            active = rule.latest if wanted else ""
            entry = [wanted, datetime.now(UTC).isoformat(), current_call().caller.subject, active]
            history = [*rule.activations, entry][-ACTIVATIONS_KEPT:]
            with unchanged_since("", rule.version, request.name):
                changed = replace(rule, active=active, active_revision=wanted, activations=history)
                rule = self.tools.store.rules.replace(changed)
        self.tools.dictionary.forget()
        return rule_message(rule)

    def _rule(self, name: str) -> StoredRule:
        found = self.tools.store.rules.get(id_of(name))
        if found is None:
            raise RuleNotFound("there is no such rule", metadata={"name": name})
        return found

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
