"""What the protos say, as the generator asks for it: messages, the modules they are in, comments, Python types."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

F = FieldDescriptorProto
SCALARS = {
    **dict.fromkeys((F.TYPE_DOUBLE, F.TYPE_FLOAT), "float"),
    F.TYPE_BOOL: "bool",
    F.TYPE_STRING: "str",
    F.TYPE_BYTES: "bytes",
}
ALSO = {  # what may be given in place of a well-known message
    ".google.protobuf.Timestamp": "datetime.datetime",
    ".google.protobuf.Duration": "datetime.timedelta",
    ".google.protobuf.FieldMask": "Sequence[str]",
}


@dataclass
class Schema:
    """All messages of the files by full name (.package.Message), the module each is in, and all comments."""

    modules: dict[str, str] = field(default_factory=dict)
    messages: dict[str, DescriptorProto] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)

    def add(self, file: FileDescriptorProto) -> None:
        """Take in a file."""
        module = str(PurePosixPath(file.name).with_suffix("")).replace("/", ".") + "_pb2"
        places = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for number, message in enumerate(file.message_type):
            self._add_message(module, f".{file.package}.{message.name}", message, (4, number), places)
        for enum in file.enum_type:
            self.modules[f".{file.package}.{enum.name}"] = module
        for at, service in enumerate(file.service):
            self.comments[f".{file.package}.{service.name}"] = tidy(places.get((6, at), ""))
            for number, method in enumerate(service.method):
                name = f".{file.package}.{service.name}.{method.name}"
                self.comments[name] = tidy(places.get((6, at, 2, number), ""))

    def _add_message(
        self,
        module: str,
        name: str,
        message: DescriptorProto,
        path: tuple[int, ...],
        places: dict[tuple[int, ...], str],
    ) -> None:
        self.modules[name], self.messages[name] = module, message
        for number, one in enumerate(message.field):
            self.comments[f"{name}.{one.name}"] = tidy(places.get((*path, 2, number), ""))
        for enum in message.enum_type:
            self.modules[f"{name}.{enum.name}"] = module
        for number, nested in enumerate(message.nested_type):
            self._add_message(module, f"{name}.{nested.name}", nested, (*path, 3, number), places)


@dataclass
class Module:
    """The source of one service's module, and what it imports."""

    schema: Schema
    package: str
    imports: dict[str, str] = field(default_factory=dict)

    def ref(self, name: str) -> str:
        """Return how the source names a message or enum, imported."""
        module = self.schema.modules[name]
        package, stem = module.rpartition(".")[::2]
        alias = stem
        if self.imports.get(alias, module) != module:
            alias = f"{package.split('.')[-2]}_{stem}"
        self.imports[alias] = module
        parts = [part for part in name.split(".") if part]
        nested = parts[len([part for part in parts if part[0].islower()]) :]
        return ".".join((alias, *nested))

    def hint(self, one: FieldDescriptorProto) -> str:
        """Return the type of a field as a parameter."""
        entry = self.schema.messages.get(one.type_name)
        if entry is not None and entry.options.map_entry:
            key, value = (self.single(inner) for inner in entry.field)
            return f"Mapping[{key}, {value}]"
        return f"Iterable[{self.single(one)}]" if one.label == F.LABEL_REPEATED else self.single(one)

    def single(self, one: FieldDescriptorProto) -> str:
        """Return the type of one value of a field."""
        if one.type == F.TYPE_ENUM:
            return f"{self.ref(one.type_name)} | str"
        if one.type == F.TYPE_MESSAGE:
            return f"{self.ref(one.type_name)} | {ALSO.get(one.type_name, 'Mapping[str, Any]')}"
        return SCALARS.get(one.type, "int")


def tidy(comment: str) -> str:
    """Return a comment as one paragraph that may stand in a docstring."""
    return " ".join(comment.split()).replace("\\", "\\\\").replace('"""', "'''")
