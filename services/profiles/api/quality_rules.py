"""Quality rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import grpc
from kehu.profiles.v1 import quality_pb2 as pb

from services.chassis.errors import AlreadyExists
from services.chassis.records import fields_to_change, unchanged_since, updated
from services.chassis.server import current_call, validate
from services.profiles.api.common import Tools, id_of, page_of
from services.profiles.domain.blocking import IDENTIFIERS
from services.profiles.domain.quality import MATCH, PERSON, RECORD, STANDARD, Dimension
from services.profiles.errors import QualityRuleExists, QualityRuleInvalid, QualityRuleNotFound
from services.profiles.quality.rules import DIMENSIONS, plain_of, rule_message
from services.profiles.quality.values import StoredQualityRule

CHANGEABLE = ("display_name", "threshold", "min_measured", "severity", "due_days", "disabled")
REVISIONS_KEPT = 100
MEASURED = {
    PERSON: {Dimension.TIMELINESS},
    MATCH: {Dimension.ACCURACY},
    RECORD: {Dimension.VALIDITY, Dimension.UNIQUENESS, Dimension.TIMELINESS},
}


class QualityRulesPart:
    """RPCs of quality rules."""

    tools: Tools

    def CreateQualityRule(self, request: pb.CreateQualityRuleRequest, context: grpc.ServicerContext) -> pb.QualityRule:
        """Make a rule; the next measurement uses it."""
        self._check_quality(request.quality_rule)
        made = _revised(StoredQualityRule(request.quality_rule_id, "", 0), plain_of(request.quality_rule))
        try:
            return rule_message(self.tools.store.quality_rules.insert(made))
        except AlreadyExists as error:
            name = f"qualityRules/{made.id}"
            raise QualityRuleExists("a rule with this id exists already", metadata={"name": name}) from error

    def GetQualityRule(self, request: pb.GetQualityRuleRequest, context: grpc.ServicerContext) -> pb.QualityRule:
        """Return a rule."""
        return rule_message(self._quality_rule(request.name))

    def ListQualityRules(
        self, request: pb.ListQualityRulesRequest, context: grpc.ServicerContext
    ) -> pb.ListQualityRulesResponse:
        """List rules."""
        shelf = self.tools.store.quality_rules
        found, token = page_of(shelf, {}, request.page_size, request.page_token, "qualityRules")
        return pb.ListQualityRulesResponse(quality_rules=map(rule_message, found), next_page_token=token)

    def UpdateQualityRule(self, request: pb.UpdateQualityRuleRequest, context: grpc.ServicerContext) -> pb.QualityRule:
        """Make a new revision."""
        given = request.quality_rule
        stored = self._quality_rule(given.name)
        message = updated(rule_message(stored), given, fields_to_change(request.update_mask, given, CHANGEABLE))
        validate(message)
        with unchanged_since(given.etag, stored.version, given.name):
            plain = plain_of(message)
            if plain != stored.latest:
                stored = self.tools.store.quality_rules.replace(_revised(stored, plain))
        return rule_message(stored)

    def _quality_rule(self, name: str) -> StoredQualityRule:
        found = self.tools.store.quality_rules.get(id_of(name))
        if found is None:
            raise QualityRuleNotFound("there is no such rule", metadata={"name": name})
        return found

    def _check_quality(self, rule: pb.QualityRule) -> None:
        """Refuse a rule of what is not there, or is never measured: it would be kept for ever."""
        name, dimension = rule.field, DIMENSIONS[rule.dimension]
        if rule.source and self.tools.store.sources.get(id_of(rule.source)) is None:
            raise _invalid("source", "there is no such source")
        if rule.source and name == PERSON:
            raise _invalid("source", "persons are of no one source; leave it out")
        definition = self.tools.dictionary.get(name)
        is_field = name in STANDARD or (definition is not None and not definition.built_in)
        if name not in MEASURED and not is_field:
            raise _invalid("field", "the dictionary has no such field, or it is derived from others")
        wrong = dimension not in MEASURED[name] if name in MEASURED else (
            dimension == Dimension.UNIQUENESS and name not in IDENTIFIERS
        )  # fmt: skip
        if wrong:
            raise _invalid("dimension", "this dimension is not measured of the field; see docs/quality.md")


def _revised(stored: StoredQualityRule, plain: str) -> StoredQualityRule:
    """Return the rule with a further revision."""
    time = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    entry = [stored.revision + 1, time, current_call().caller.subject, plain]
    kept = [*stored.revisions, entry][-REVISIONS_KEPT:]
    return replace(stored, latest=plain, revision=stored.revision + 1, revisions=kept)


def _invalid(field: str, message: str) -> QualityRuleInvalid:
    return QualityRuleInvalid(message, metadata={"field": field})
