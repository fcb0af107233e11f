"""Find every RPC of the kehu.* protos and what its options say: route, access rule, audit, upload."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import kehu
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from kehu.options.v1 import options_pb2

from services.chassis.server import MethodPlan
from services.chassis.server.plans import plan_of

VERBS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True, slots=True)
class Binding:
    """One HTTP form of a method; `body` is "" (none), "*" (the whole message) or a field's name."""

    verb: str
    template: str
    body: str


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC with the options the gateway acts upon; `service` is the noun its address is found by."""

    service: str
    full_name: str
    path: str
    request: Descriptor
    response: Descriptor
    bindings: tuple[Binding, ...]
    plan: MethodPlan
    is_upload: bool
    is_lines: bool
    is_read: bool

    @property
    def is_routed(self) -> bool:
        """Whether the gateway answers for it: it has a route, and its rule lets someone outside reach it."""
        outside = options_pb2.AUDIENCE_PUBLIC, options_pb2.AUDIENCE_PRINCIPAL
        return bool(self.bindings) and self.plan.audience in outside

    @property
    def is_public(self) -> bool:
        """Whether it is reached without a token."""
        return self.plan.audience == options_pb2.AUDIENCE_PUBLIC


def import_protos() -> list[FileDescriptor]:
    """Import every generated module below the kehu namespace package and return their files, by name."""
    files: dict[str, FileDescriptor] = {}
    for root in map(Path, kehu.__path__):
        for source in sorted(root.glob("*/v*/*_pb2.py")):
            name = ".".join(("kehu", *source.relative_to(root).with_suffix("").parts))
            file = importlib.import_module(name).DESCRIPTOR
            files[file.name] = file
    return [files[name] for name in sorted(files)]


def bindings_of(rule: http_pb2.HttpRule) -> Iterator[Binding]:
    """Yield the HTTP forms of a google.api.http rule, additional bindings after the first."""
    kind = rule.WhichOneof("pattern")
    if kind in VERBS:
        yield Binding(kind.upper(), getattr(rule, kind), rule.body)
    elif kind == "custom":
        yield Binding(rule.custom.kind.upper(), rule.custom.path, rule.body)
    for more in rule.additional_bindings:
        yield from bindings_of(more)


def method_of(descriptor: MethodDescriptor) -> Method:
    """Read one RPC's options into a Method."""
    options = descriptor.GetOptions()
    service = descriptor.containing_service
    return Method(
        service=service.file.package.split(".")[1],
        full_name=descriptor.full_name,
        path=f"/{service.full_name}/{descriptor.name}",
        request=descriptor.input_type,
        response=descriptor.output_type,
        bindings=tuple(bindings_of(options.Extensions[annotations_pb2.http])),
        plan=plan_of(descriptor),
        is_upload=options.Extensions[options_pb2.upload],
        is_lines=options.Extensions[options_pb2.lines],
        is_read=options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
    )


def methods_of(files: Iterable[FileDescriptor]) -> list[Method]:
    """Return every RPC of the files, in file and declaration order."""
    return [
        method_of(method) for file in files for service in file.services_by_name.values() for method in service.methods
    ]
