"""The one interceptor of every server: no servicer runs before the caller, the right and the request are checked.

Order: deadline → peer certificate → token → decision → step-up → validation → servicer → obligations → audit → release.
Authorization comes before validation and before existence (AIP-211); any doubt is a refusal.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Protocol

import grpc
from google.protobuf.message import Message
from kehu.options.v1 import options_pb2 as options

from services.chassis import errors, telemetry
from services.chassis.access import ALL_SHOWN, Caller, Decision, SnapshotHolder, check_step_up
from services.chassis.access.shares import beyond, narrowed
from services.chassis.obligations import apply_obligations
from services.chassis.server import status
from services.chassis.server.calls import (
    ACTING_DEPARTMENT,
    ACTING_FOR,
    CALLER_ADDRESS,
    CERTIFICATE_HEADER,
    READ_FIELDS,
    Call,
    serving_call,
)
from services.chassis.server.changes import check_changes
from services.chassis.server.peers import GATEWAY, peer_of
from services.chassis.server.plans import MethodPlan
from services.chassis.server.requests import check_readable, readable, validate, validated
from services.chassis.server.seen import NOTHING, Seen, seen_in
from services.chassis.times import china_today

LONGEST_DEADLINE_SECONDS = 6 * 3600.0  # a call without a deadline reports one in the far future
NO_STANDING = "the app has no role in that department: disabled, moved or unknown"  # one that a service calls for
DRAINED_MESSAGES = 16  # of an upload that was refused: 8 MiB at most
_HEALTH = "/grpc.health.v1.Health/"
_log = logging.getLogger(__name__)


class DeadlineRequired(errors.Invalid):
    """A call came without a deadline."""

    reason = "DEADLINE_REQUIRED"


class PurposeRequired(errors.Denied):
    """The method answers only for a stated purpose."""

    reason = "PURPOSE_REQUIRED"


class RowsNotNarrowed(errors.Denied):
    """The policy narrows the caller's rows by a field that the method cannot apply."""

    reason = "ROWS_NOT_NARROWED"


class TokenVerifier(Protocol):
    """Turns a bearer token into its caller, or raises Unauthenticated."""

    def verify(self, bearer: str, thumbprint: str = "") -> Caller:
        """Return the caller of a valid token; `thumbprint` is of the certificate of the caller's connection."""


class Trail(Protocol):
    """Where the outcome of a call is written before its reply is released."""

    def record(
        self, call: Call | None, plan: MethodPlan, resource: str, code: str, reason: str, seen: Seen = NOTHING
    ) -> str:
        """Write one entry durably and return its id, the id of the decision."""


class Guard(grpc.ServerInterceptor):
    """Wraps every method with the checks; a method without a plan is refused."""

    def __init__(
        self,
        service: str,
        plans: Mapping[str, MethodPlan],
        holder: SnapshotHolder,
        tokens: TokenVerifier,
        trail: Trail,
        peer: Callable[[grpc.ServicerContext], str] = peer_of,
        today: Callable[[], date] = china_today,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._service = service
        self._plans = plans
        self._holder = holder
        self._tokens = tokens
        self._trail = trail
        self._peer = peer
        self._today = today
        self._now = now

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the method's handler with the checks around it."""
        handler = continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None or path.startswith(_HEALTH):
            return handler
        plan = self._plans.get(path)
        if plan is None or handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(_refuse)
        method = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(self._guarded(plan, method), readable(handler.request_deserializer), handler.response_serializer)

    def _guarded(
        self, plan: MethodPlan, method: Callable[..., Message]
    ) -> Callable[[Message | Iterator[Message], grpc.ServicerContext], Message]:
        name = plan.path.rpartition("/")[2]
        answered = telemetry.RPC_SECONDS.labels(self._service, name, "OK")

        def serve(request: Message | Iterator[Message], context: grpc.ServicerContext) -> Message:
            started = time.perf_counter()
            call: Call | None = None
            failed: object = None
            resource = ""
            try:
                call = self._enter(plan, context)
                check_readable(request)
                resource = "" if not isinstance(request, Message) else target_of(plan, request)
                return self._answer(plan, call, method, request, context, resource)
            except errors.KehuError as error:
                self._after_refusal(plan, call, resource, error)
                failed = status.to_status(error)
                if call is not None and isinstance(request, Iterator):
                    _drain(request)
            except grpc.RpcError as error:
                failed = status.upstream_status(error)
            except Exception:
                error_id = uuid.uuid4().hex[:16]
                _log.exception("call failed", extra={"method": name, "error_id": error_id})
                failed = status.internal_status(error_id)
            finally:
                seconds = time.perf_counter() - started
                if failed is None:
                    answered.observe(seconds)
                else:
                    self._measure(name, _code_name(failed), seconds, call)
            status.abort(context, failed)  # type: ignore[arg-type]
            raise AssertionError("unreachable")

        return serve

    def _enter(self, plan: MethodPlan, context: grpc.ServicerContext) -> Call:
        """Return the call with its decision.

        Raises:
            DeadlineRequired, Unauthenticated, Denied, Unavailable: the call is refused.
        """
        left = context.time_remaining()
        if left is None or left > LONGEST_DEADLINE_SECONDS:
            raise DeadlineRequired("set a deadline on the call")
        peer = self._peer(context)
        headers = dict(context.invocation_metadata())
        request_id = str(headers.get("x-request-id", "")) or uuid.uuid4().hex
        authorization = str(headers.get("authorization", ""))
        thumbprint = str(headers.get(CERTIFICATE_HEADER, ""))  # our own processes' word, as all these
        caller = self._caller(plan, peer, authorization, headers)
        decision = self._decide(plan, peer, caller)
        policy = self._holder.known
        grants = policy.field_grants if policy else ()
        emergency = policy.emergency(caller) if policy else ""
        acted = caller.kind == "app" and not authorization and peer in plan.acting
        only = frozenset(filter(None, str(headers.get(READ_FIELDS, "")).split(","))) if acted else None
        call = Call(
            caller, decision, request_id, time.monotonic() + left, authorization, grants, thumbprint, emergency, only
        )
        if acted:
            call.note(f"called by {peer} for the app")
        if not decision.allowed:
            decision_id = self._trail.record(call, plan, "", "PERMISSION_DENIED", decision.reason)
            raise _refusal(plan, decision, decision_id)
        if plan.step_up:
            self._check_step_up(plan, call)
        return call

    def _check_step_up(self, plan: MethodPlan, call: Call) -> None:
        try:
            check_step_up(self._holder.current, call.caller, plan.resource, plan.action, self._now())
        except errors.KehuError as error:
            decision_id = self._trail.record(call, plan, "", status.code_name(error), error.reason)
            error.metadata["decision_id"] = decision_id
            raise

    def _caller(self, plan: MethodPlan, peer: str, authorization: str, headers: Mapping[str, str | bytes]) -> Caller:
        purpose = str(headers.get("x-purpose", ""))
        if plan.audience == options.AUDIENCE_PUBLIC:
            return Caller(subject="anonymous", kind="anonymous")
        if authorization and plan.audience == options.AUDIENCE_PRINCIPAL:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise errors.Unauthenticated("send 'Authorization: Bearer' with a token")
            thumbprint, address = (str(headers.get(name, "")) for name in (CERTIFICATE_HEADER, CALLER_ADDRESS))
            return self._tokens.verify(token, thumbprint).calling(purpose, address)
        if peer in plan.acting and str(headers.get(ACTING_FOR, "")).startswith("app:"):
            department = str(headers.get(ACTING_DEPARTMENT, ""))
            return Caller(str(headers[ACTING_FOR]), "app", department, purpose)
        return Caller(subject=f"svc:{peer}", kind="svc", purpose=purpose)

    def _decide(self, plan: MethodPlan, peer: str, caller: Caller) -> Decision:
        if plan.audience == options.AUDIENCE_PUBLIC:
            return Decision(True, "public method", 0)
        if caller.kind == "svc":
            if peer in plan.services:
                return Decision(True, "service listed by the method", 0, ALL_SHOWN)
            if plan.audience == options.AUDIENCE_PRINCIPAL and peer == GATEWAY:
                raise errors.Unauthenticated("send 'Authorization: Bearer' with a token")
            return Decision(False, "service not listed by the method", 0)
        if plan.purpose_required and not caller.purpose:
            return Decision(False, PurposeRequired.reason, 0)
        policy = self._holder.current
        if peer in plan.acting and policy.names(caller) <= {caller.subject}:
            return Decision(False, NO_STANDING, policy.version)
        decision = policy.decide(caller, plan.resource, plan.action, plan.rows_of)
        shadow = self._holder.shadow
        if shadow is not None:
            shadow.compare(caller, plan.resource, plan.action, plan.rows_of, decision, policy.shares, plan.row_fields)
        return narrowed(decision, plan.row_fields)

    def _answer(
        self,
        plan: MethodPlan,
        call: Call,
        method: Callable[..., Message],
        request: Message | Iterator[Message],
        context: grpc.ServicerContext,
        resource: str,
    ) -> Message:
        _check_rows(plan, call.decision)
        if isinstance(request, Message):
            validate(request)
            check_changes(request, call.decision.obligations)
        else:
            request = validated(request)
        with serving_call(call):
            if telemetry.tracing_is_on():
                with telemetry.span(plan.path, _carrier(context)):
                    reply = method(request, context)
            else:
                reply = method(request, context)
        obligations = call.decision.obligations.with_revealed(call.revealed)
        if not obligations.everything:
            apply_obligations(reply, obligations, self._today())
        if call.only is not None:
            for field, _ in reply.ListFields():
                if field.name not in call.only:
                    reply.ClearField(field.name)
        if plan.audit == options.AUDIT_LEVEL_DATA or (plan.audit == options.AUDIT_LEVEL_WRITE and not plan.reads_only):
            asked = request if isinstance(request, Message) else None
            seen = seen_in(asked, reply, obligations)
            reason = "; ".join(call.notes) or call.decision.reason
            self._trail.record(call, plan, resource, "OK", reason, seen)
            for more in itertools.chain.from_iterable(call.told):
                self._trail.record(call, plan, resource, "OK", reason, more)
        return reply

    def _after_refusal(self, plan: MethodPlan, call: Call | None, resource: str, error: errors.KehuError) -> None:
        """Audit a refusal of the servicer itself; refusals by policy are audited where they are decided."""
        if call is not None and plan.audit != options.AUDIT_LEVEL_NONE and isinstance(error, errors.Denied):
            error.metadata["decision_id"] = self._trail.record(call, plan, resource, "PERMISSION_DENIED", error.reason)

    def _measure(self, name: str, code: str, seconds: float, call: Call | None) -> None:
        """Count a call that failed."""
        telemetry.RPC_SECONDS.labels(self._service, name, code).observe(seconds)
        if _log.isEnabledFor(logging.INFO):
            subject = call.caller.subject if call else ""
            request_id = call.request_id if call else ""
            fields = {"method": name, "code": code, "ms": round(seconds * 1000, 1), "subject": subject,
                      "request_id": request_id}  # fmt: skip
            _log.info("call", extra=fields)


def _check_rows(plan: MethodPlan, decision: Decision) -> None:
    """Refuse whom the policy narrows by what the method cannot apply: rows out of reach would be shown.

    Raises:
        RowsNotNarrowed: naming the field.
    """
    unknown = beyond(decision, plan.row_fields)
    if unknown:
        metadata = {"field": unknown, "resource": plan.resource}
        raise RowsNotNarrowed(f"'{plan.action}' cannot narrow rows by {unknown}", metadata=metadata)


def _drain(requests: Iterator[Message]) -> None:
    """Read a little of what still comes: a stream that ends under its sender may lose the reason of the refusal."""
    with contextlib.suppress(Exception):
        for _ in itertools.islice(requests, DRAINED_MESSAGES):
            pass


def target_of(plan: MethodPlan, request: Message) -> str:
    """Return the id the request is about, for the audit trail: what stands in its URL, joined by a slash."""
    found = []
    for path in plan.target_paths:
        value: object = request
        for name in path:
            value = getattr(value, name)
        found.append(str(value))
    return "/".join(filter(None, found))[:200]


def _refusal(plan: MethodPlan, decision: Decision, decision_id: str) -> errors.Denied:
    if decision.reason == PurposeRequired.reason:
        return PurposeRequired("state a purpose: send X-Purpose", metadata={"decision_id": decision_id})
    return errors.Denied(
        f"'{plan.action}' on '{plan.resource}' is not permitted, or it does not exist",
        metadata={
            "resource": plan.resource,
            "action": plan.action,
            "policy": str(decision.policy_version),
            "decision_id": decision_id,
        },
    )


def _carrier(context: grpc.ServicerContext) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def _code_name(found: object) -> str:
    from google.rpc import code_pb2

    return code_pb2.Code.Name(found.code)  # type: ignore[attr-defined]


def _refuse(request: object, context: grpc.ServicerContext) -> None:
    error = errors.Denied("this method carries no access rule, so nobody may call it")
    status.abort(context, status.to_status(error))
