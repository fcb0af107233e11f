"""What every proto must say: who may call, what is audited, how each field is classified, which reasons exist."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import kehu
import pytest
from buf.validate import validate_pb2
from google.api import annotations_pb2
from google.longrunning import operations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from kehu.options.v1 import options_pb2 as options

from gateway.openapi.errors import SHARED
from services.chassis import errors
from services.chassis.config import SERVICES
from services.chassis.obligations import data_class
from services.chassis.server.status import code_of

GROUPS = {"name", "contact", "birth", "document", "address", "behaviour", "content", "consent"}
PACKAGES = {f"kehu.{service}.v1" for service in SERVICES}


def modules() -> list[str]:
    found = []
    for service in SERVICES:
        package = importlib.import_module(f"kehu.{service}.v1")
        names = (module.name for module in pkgutil.iter_modules(package.__path__))
        found += [f"{package.__name__}.{name}" for name in names if name.endswith("_pb2")]
    return found


def methods() -> list[MethodDescriptor]:
    found = []
    for name in modules():
        for service in importlib.import_module(name).DESCRIPTOR.services_by_name.values():
            found += list(service.methods)
    return found


def reachable(message: Descriptor, seen: dict[str, Descriptor]) -> dict[str, Descriptor]:
    if message.full_name in seen or not message.full_name.startswith("kehu."):
        return seen
    seen[message.full_name] = message
    for field in message.fields:
        if field.message_type is not None:
            reachable(field.message_type, seen)
    return seen


def reply_fields() -> Iterator[FieldDescriptor]:
    seen: dict[str, Descriptor] = {}
    for method in methods():
        reachable(method.output_type, seen)
    for message in seen.values():
        if not message.GetOptions().map_entry:
            yield from message.fields


ALL = methods()
UPDATES = [method for method in ALL if method.name.startswith("Update")]


def test_there_is_a_service_in_every_package():
    assert {method.containing_service.file.package for method in ALL} == PACKAGES


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.full_name)
def test_every_method_says_who_may_call_and_what_is_audited(method):
    rule = method.GetOptions().Extensions[options.access]
    routed = method.GetOptions().HasExtension(annotations_pb2.http)

    assert rule.resource and rule.action
    assert rule.audience != options.AUDIENCE_UNSPECIFIED
    assert method.GetOptions().Extensions[options.audit] != options.AUDIT_LEVEL_UNSPECIFIED
    assert set(rule.services) <= {*SERVICES, "gateway"}
    assert routed == (rule.audience != options.AUDIENCE_SERVICE), "service-only methods have no route, others one"
    assert bool(rule.services) or rule.audience != options.AUDIENCE_SERVICE


BEGINNING = [method for method in ALL if method.output_type is operations_pb2.Operation.DESCRIPTOR]


@pytest.mark.parametrize("method", BEGINNING, ids=lambda m: m.full_name)
def test_a_method_that_begins_an_operation_names_what_it_ends_with(method):
    info = method.GetOptions().Extensions[operations_pb2.operation_info]
    messages = {
        name
        for file in (method.containing_service.file, *method.containing_service.file.dependencies)
        for name, found in file.message_types_by_name.items()
        if found.full_name.startswith(f"{method.containing_service.file.package}.")
    }

    assert {info.response_type, info.metadata_type} <= messages


@pytest.mark.parametrize("method", UPDATES, ids=lambda m: m.full_name)
def test_an_update_is_not_judged_as_if_it_were_a_create(method):
    """A part of a resource lacks what a create needs: the outcome is judged, not the request."""
    (resource,) = [field for field in method.input_type.fields if field.message_type is method.output_type]

    assert resource.GetOptions().Extensions[validate_pb2.field].ignore == validate_pb2.IGNORE_ALWAYS
    assert "update_mask" in method.input_type.fields_by_name


def test_every_field_of_every_reply_is_classified():
    missing = []
    for field in reply_fields():
        ours = field.message_type is not None and field.message_type.full_name.startswith("kehu.")
        own = field.GetOptions().HasExtension(options.data)
        found = data_class(field)
        if not (ours and not own) and (found is None or not found.classification):
            missing.append(field.full_name)

    assert missing == []


def test_personal_fields_name_a_known_group():
    personal = (options.CLASSIFICATION_PERSONAL, options.CLASSIFICATION_SENSITIVE)
    wrong = []
    for field in reply_fields():
        found = data_class(field)
        if found is not None and found.classification in personal and found.group not in GROUPS:
            wrong.append(field.full_name)

    assert wrong == []


def error_classes() -> Iterator[type[errors.KehuError]]:
    import services

    for module in pkgutil.walk_packages(services.__path__, "services."):
        if module.name.endswith((".events", ".main")) or ".consuming.worker" in module.name:
            continue  # consumers need eventlet's patched process
        importlib.import_module(module.name)
    waiting = [errors.KehuError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith("services."):
            yield kind


def test_every_reason_raised_is_listed_in_its_proto():
    listed: dict[str, set[str]] = {}
    for service in SERVICES:
        module = importlib.import_module(f"kehu.{service}.v1.error_reason_pb2")
        values = module.DESCRIPTOR.enum_types_by_name["ErrorReason"].values
        listed[service] = {value.name.removeprefix("ERROR_REASON_") for value in values}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.KehuError)]
    common = {kind.reason for kind in kinds}
    missing = []
    for kind in error_classes():
        service = kind.__module__.split(".")[1]
        if service in listed and kind.reason not in listed[service] | common:
            missing.append(f"{kind.__module__}.{kind.__name__}: {kind.reason}")

    assert missing == []


def test_every_reason_of_the_chassis_is_explained():
    own = {kind.reason for kind in error_classes() if kind.__module__.startswith("services.chassis.")}

    assert own - set(SHARED) - {errors.KehuError.reason} == set()


def test_every_error_kind_has_a_code():
    for kind in error_classes():
        if kind is not errors.KehuError:
            assert code_of(kind("x")) != 13, kind


def test_the_stub_packages_are_exactly_the_services():
    found = {path.name for root in kehu.__path__ for path in Path(root).iterdir() if (path / "v1").is_dir()}

    assert found == {*SERVICES, "options"}


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.full_name)
def test_a_method_that_can_tell_personal_data_leaves_an_entry_for_each_call(method):
    """PIPL art. 55–56 and reliability: what is shown is written down, whoever asks."""
    seen = {}
    reachable(method.output_type, seen)
    protected = (options.CLASSIFICATION_PERSONAL, options.CLASSIFICATION_SENSITIVE)
    classes = [data_class(field) for message in seen.values() for field in message.fields]

    if any(found is not None and found.classification in protected for found in classes):
        assert method.GetOptions().Extensions[options.audit] == options.AUDIT_LEVEL_DATA
