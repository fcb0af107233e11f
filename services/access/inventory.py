"""Read the inventory of resources, actions and field groups from the descriptors of all protos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf import descriptor_pb2
from kehu.options.v1 import options_pb2 as options

from services.access.domain.vocabulary import Inventory, Narrowing
from services.chassis.access.stepping import UNATTENDED
from services.chassis.obligations import PROTECTED

OPERATIONS = {"operations": {"read", "list", "cancel"}}  # google.longrunning carries no options of ours
OF_OPERATIONS = Narrowing(frozenset(), ())


def descriptors_path() -> Path:
    """Return where the build leaves the descriptors of all protos."""
    return Path(options.__file__).parents[2] / "descriptors.binpb"


def read_inventory(path: Path) -> Inventory:
    """Return what the policy can speak of; methods no principal may call are left out."""
    files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())
    actions = {resource: set(names) for resource, names in OPERATIONS.items()}
    groups: set[str] = set()
    rows: dict[str, set[str]] = {}
    methods = {(resource, action): {OF_OPERATIONS} for resource, names in OPERATIONS.items() for action in names}
    for file in files.file:
        if not file.package.startswith("kehu."):
            continue
        for rule, step_up in _rules(file):
            actions.setdefault(rule.resource, set()).add(rule.action)
            narrowing = Narrowing(frozenset(rule.row_fields), tuple(rule.rows_of))
            methods.setdefault((rule.resource, rule.action), set()).add(narrowing)
            if step_up:
                actions.setdefault(UNATTENDED + rule.resource, set()).add(rule.action)
            if rule.row_fields:
                rows.setdefault(rule.resource, set()).update(rule.row_fields)
        for message in file.message_type:
            groups.update(_groups(message))
    ways = {method: tuple(sorted(found, key=_most_first)) for method, found in methods.items()}
    return Inventory(_frozen(actions), frozenset(groups), _frozen(rows), ways)


def _most_first(narrowing: Narrowing) -> tuple[int, list[str]]:
    return -len(narrowing.fields), sorted(narrowing.fields)


def _frozen(named: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {resource: frozenset(names) for resource, names in named.items()}


def _rules(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[options.AccessRule, bool]]:
    for service in file.service:
        for method in service.method:
            rule = method.options.Extensions[options.access]
            if rule.audience == options.AUDIENCE_PRINCIPAL:
                yield rule, method.options.Extensions[options.step_up]


def _groups(message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
    found = [field.options.Extensions[options.data] for field in message.field]
    found.append(message.options.Extensions[options.default_data])
    for data in found:
        if data.classification in PROTECTED and data.group:
            yield f"{PROTECTED[data.classification]}/{data.group}"
    for nested in message.nested_type:
        yield from _groups(nested)
