"""Rules over the trail and the alerts they raise."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import grpc
from kehu.access.v1 import alerts_pb2 as pb

from services.access.domain.anomalies import Alert, Rule, acknowledged, closed
from services.access.methods.context import Context
from services.chassis.errors import AlreadyExists, EtagMismatch, FieldViolation, Invalid, NotFound
from services.chassis.paging import decode_seen, encode_seen, filter_hash, page_size_of
from services.chassis.records import etag_of, unchanged_since
from services.chassis.server import current_call

CHANGEABLE = ("enabled", "threshold", "callers", "from_hour", "to_hour", "time_zone", "days")


class AlertMethods:
    """The methods of AccessService that watch the trail."""

    _context: Context

    def ListAuditRules(
        self, request: pb.ListAuditRulesRequest, context: grpc.ServicerContext
    ) -> pb.ListAuditRulesResponse:
        """Return the rules in force."""
        return pb.ListAuditRulesResponse(audit_rules=[_rule_message(rule) for rule in self._context.alerts.rules()])

    def ReviseAuditRule(self, request: pb.ReviseAuditRuleRequest, context: grpc.ServicerContext) -> pb.AuditRule:
        """Put another version in force."""
        known = next((rule for rule in self._context.alerts.rules() if rule.id == request.rule_id), None)
        if known is None:
            raise NotFound("There is no such rule.", metadata={"rule_id": request.rule_id})
        wanted = request.audit_rule
        _check_zone(wanted.time_zone)
        values = {name: getattr(wanted, name) for name in CHANGEABLE}
        author = current_call().caller.subject
        rule = replace(known, version=known.version + 1, groups=tuple(wanted.groups), author=author, **values)
        if wanted.version != known.version:
            raise EtagMismatch(f"auditRules/{known.id}")
        try:
            self._context.alerts.revise(rule)
        except AlreadyExists:
            raise EtagMismatch(f"auditRules/{known.id}") from None
        return _rule_message(rule)

    def ListAuditAlerts(
        self, request: pb.ListAuditAlertsRequest, context: grpc.ServicerContext
    ) -> pb.ListAuditAlertsResponse:
        """Return a page, the newest first."""
        size, of_filter = page_size_of(request.page_size), filter_hash("auditAlerts", request.state)
        found = self._context.alerts.page(request.state, decode_seen(request.page_token, of_filter), size + 1)
        last = found[size - 1] if len(found) > size else None
        token = encode_seen((last.time, last.id) if last else None, of_filter)
        return pb.ListAuditAlertsResponse(audit_alerts=map(_alert_message, found[:size]), next_page_token=token)

    def AcknowledgeAuditAlert(
        self, request: pb.AcknowledgeAuditAlertRequest, context: grpc.ServicerContext
    ) -> pb.AuditAlert:
        """Take an alert on."""
        alert = self._alert(request.alert_id)
        return self._saved(acknowledged(alert, current_call().caller.subject))

    def CloseAuditAlert(self, request: pb.CloseAuditAlertRequest, context: grpc.ServicerContext) -> pb.AuditAlert:
        """Close an alert with its finding."""
        alert, by = self._alert(request.alert_id), current_call().caller.subject
        return self._saved(closed(alert, by, request.finding, request.comment))

    def _alert(self, alert_id: str) -> Alert:
        found = self._context.alerts.get(alert_id)
        if found is None:
            raise NotFound("There is no such alert.", metadata={"alert_id": alert_id})
        return found

    def _saved(self, alert: Alert) -> pb.AuditAlert:
        with unchanged_since("", alert.version, f"auditAlerts/{alert.id}"):
            return _alert_message(self._context.alerts.save(alert))


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        violation = FieldViolation("audit_rule.time_zone", "must be a time zone such as Asia/Shanghai")
        raise Invalid("the time zone is not known", violations=[violation]) from None


def _rule_message(rule: Rule) -> pb.AuditRule:
    values = {name: getattr(rule, name) for name in CHANGEABLE}
    return pb.AuditRule(
        rule_id=rule.id, kind=rule.kind, version=rule.version, groups=rule.groups, author=rule.author, **values
    )


def _alert_message(alert: Alert) -> pb.AuditAlert:
    message = pb.AuditAlert(
        name=f"auditAlerts/{alert.id}", rule_id=alert.rule, rule_version=alert.rule_version, subject=alert.subject,
        department=alert.department, count=alert.count, detail=alert.detail, audit_entries=alert.examples,
        state=alert.state, assignee=alert.assignee, finding=alert.finding, comment=alert.comment,
        etag=etag_of(alert.version),
    )  # fmt: skip
    message.time.FromDatetime(alert.time)
    return message
