"""Read the comments of the protos out of the descriptor set that the build writes beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import kehu
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

# Field numbers of descriptor.proto, which SourceCodeInfo paths are made of.
FILE_MESSAGE, FILE_ENUM, FILE_SERVICE = 4, 5, 6
MESSAGE_FIELD, MESSAGE_NESTED, MESSAGE_ENUM = 2, 3, 4
ENUM_VALUE, SERVICE_METHOD = 2, 2

Named = tuple[tuple[int, ...], str]


def descriptor_set_path() -> Path:
    """Return where the build writes the descriptor set: beside the stubs, not beside kehu.client."""
    paths = [Path(folder) / "descriptors.binpb" for folder in kehu.__path__]
    return next((path for path in paths if path.exists()), paths[0])


def load_comments(path: Path) -> dict[str, str]:
    """Return the leading comment of each message, field, enum, value, service and method, by full name."""
    if not path.exists():
        return {}
    comments: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(path.read_bytes()).file:
        if file.package.startswith(("kehu.", "google.longrunning")):
            comments.update(file_comments(file))
    return comments


def file_comments(file: FileDescriptorProto) -> dict[str, str]:
    """Return the comments of one file."""
    places = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    return {name: tidy(places[path]) for path, name in named_parts(file) if places.get(path)}


def tidy(comment: str) -> str:
    """Return a comment as paragraphs: line ends within one become spaces."""
    lines = [line.strip() for line in comment.strip().splitlines()]
    return " ".join(line or "\n" for line in lines).replace(" \n ", "\n\n")


def named_parts(file: FileDescriptorProto) -> Iterator[Named]:
    """Yield the SourceCodeInfo path and full name of everything a comment can stand before."""
    for index, message in enumerate(file.message_type):
        yield from message_parts(message, (FILE_MESSAGE, index), file.package)
    for index, enum in enumerate(file.enum_type):
        yield from enum_parts(enum, (FILE_ENUM, index), file.package)
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield (FILE_SERVICE, index), name
        for place, method in enumerate(service.method):
            yield (FILE_SERVICE, index, SERVICE_METHOD, place), f"{name}.{method.name}"


def message_parts(message: DescriptorProto, path: Sequence[int], scope: str) -> Iterator[Named]:
    """Yield a message, its fields and what is nested in it."""
    name = f"{scope}.{message.name}"
    yield tuple(path), name
    for index, field in enumerate(message.field):
        yield (*path, MESSAGE_FIELD, index), f"{name}.{field.name}"
    for index, nested in enumerate(message.nested_type):
        yield from message_parts(nested, (*path, MESSAGE_NESTED, index), name)
    for index, enum in enumerate(message.enum_type):
        yield from enum_parts(enum, (*path, MESSAGE_ENUM, index), name)


def enum_parts(enum: EnumDescriptorProto, path: Sequence[int], scope: str) -> Iterator[Named]:
    """Yield an enum and its values, named below the enum to keep two enums' values apart."""
    name = f"{scope}.{enum.name}"
    yield tuple(path), name
    for index, value in enumerate(enum.value):
        yield (*path, ENUM_VALUE, index), f"{name}.{value.name}"
