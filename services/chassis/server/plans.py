"""What the proto says of each method, read once: access rule, audit level, step-up, whether it only reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from google.api import annotations_pb2, http_pb2
from google.longrunning import operations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from kehu.options.v1 import options_pb2 as options

OPERATIONS = operations_pb2.DESCRIPTOR.services_by_name["Operations"]
_VARIABLE = re.compile(r"\{([a-z_.]+)[=}]")
_READS = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


@dataclass(frozen=True, slots=True)
class MethodPlan:
    """The rules of one RPC; `audience` and `audit` are the option enums' numbers."""

    path: str
    resource: str
    action: str
    audience: int
    services: frozenset[str]
    purpose_required: bool
    audit: int
    reads_only: bool
    target_paths: tuple[tuple[str, ...], ...] = ()  # where the request has the ids of its URL
    row_fields: frozenset[str] = frozenset()
    rows_of: tuple[str, ...] = ()
    step_up: bool = False
    acting: frozenset[str] = frozenset()  # services that may call for an app they name


def plan_of(method: MethodDescriptor) -> MethodPlan:
    """Return the plan of a method; one without options gets an audience nobody passes."""
    found = method.GetOptions()
    rule = found.Extensions[options.access]
    return MethodPlan(
        path=f"/{method.containing_service.full_name}/{method.name}",
        resource=rule.resource,
        action=rule.action,
        audience=rule.audience,
        services=frozenset(rule.services),
        purpose_required=rule.purpose_required,
        audit=found.Extensions[options.audit],
        reads_only=found.idempotency_level == _READS,
        target_paths=_target_paths(found.Extensions[annotations_pb2.http]),
        row_fields=frozenset(rule.row_fields),
        rows_of=tuple(rule.rows_of),
        step_up=found.Extensions[options.step_up],
        acting=frozenset(rule.acting),
    )


def _target_paths(rule: http_pb2.HttpRule) -> tuple[tuple[str, ...], ...]:
    """Return the fields that stand in the URL of a method.

    They alone are ids by design: a field called `…_id` in a body may be the number of somebody's identity card.
    """
    template = getattr(rule, rule.WhichOneof("pattern") or "get")
    return tuple(tuple(found.split(".")) for found in _VARIABLE.findall(template))


def service_plans(service: ServiceDescriptor) -> Iterator[MethodPlan]:
    """Yield the plan of every method of a service."""
    if service is OPERATIONS or service.full_name == OPERATIONS.full_name:
        yield from _operation_plans()
        return
    for method in service.methods:
        yield plan_of(method)


def _operation_plans() -> Iterator[MethodPlan]:
    """Yield plans for google.longrunning.Operations, whose proto cannot carry our options."""
    actions = {"GetOperation": "read", "ListOperations": "list", "CancelOperation": "cancel"}
    for name, action in actions.items():
        yield MethodPlan(
            path=f"/{OPERATIONS.full_name}/{name}",
            resource="operations",
            action=action,
            audience=options.AUDIENCE_PRINCIPAL,
            services=frozenset(),
            purpose_required=False,
            audit=options.AUDIT_LEVEL_WRITE,
            reads_only=action != "cancel",
            target_paths=(("name",),),
        )


def plans_by_path(service_names: list[str]) -> dict[str, MethodPlan]:
    """Return the plans of the named services, by the path gRPC calls them with."""
    pool = descriptor_pool.Default()
    found = [plan for name in service_names for plan in service_plans(pool.FindServiceByName(name))]
    return {plan.path: plan for plan in found}
