"""The source of one method: its typed def with the protos' comments, and what the runtime is told of it."""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.api import annotations_pb2, field_behavior_pb2, http_pb2
from google.longrunning import operations_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, MethodDescriptorProto, MethodOptions
from kehu.options.v1 import options_pb2

from client.schema import SCALARS, F, Module

VERBS = ("get", "put", "post", "delete", "patch")
OPERATION = ".google.longrunning.Operation"
WIDTH = 112
LINES = "Iterable[bytes | str | Mapping[str, Any]]"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method: a field of its request."""

    name: str
    hint: str
    is_required: bool
    comment: str

    @property
    def argument(self) -> str:
        """The name in Python."""
        return f"{self.name}_" if keyword.iskeyword(self.name) or self.name == "self" else self.name


def bindings_of(rule: http_pb2.HttpRule) -> Iterator[tuple[str, str, str]]:
    """Yield verb, template and body of each HTTP form of a method."""
    kind = rule.WhichOneof("pattern")
    if kind in VERBS:
        yield kind.upper(), getattr(rule, kind), rule.body
    for more in rule.additional_bindings:
        yield from bindings_of(more)


def is_routed(method: MethodDescriptorProto) -> bool:
    """Tell whether the gateway answers for the method."""
    outside = (options_pb2.AUDIENCE_PUBLIC, options_pb2.AUDIENCE_PRINCIPAL)
    options = method.options
    return options.HasExtension(annotations_pb2.http) and options.Extensions[options_pb2.access].audience in outside


def item_field(method: MethodDescriptorProto, request: DescriptorProto, page: DescriptorProto) -> str:
    """Return the list that a read gives page by page (AIP-158, AIP-4233): its first field, or its only list."""
    is_read = method.options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    takes, gives = ({one.name for one in message.field} for message in (request, page))
    if not is_read or "page_token" not in takes or "next_page_token" not in gives:
        return ""
    lists = [one for one in page.field if one.label == F.LABEL_REPEATED]
    if len(lists) == 1 or (lists and lists[0].number == 1):
        return lists[0].name
    return ""  # several lists, and none is the one: the caller passes page_token on


class MethodText:
    """The source of one method: its constant and its def."""

    def __init__(self, module: Module, service: str, method: MethodDescriptorProto) -> None:
        self._module, self._method = module, method
        self._full_name = f"{service}.{method.name}"
        self._options = method.options
        self._bindings = list(bindings_of(method.options.Extensions[annotations_pb2.http]))
        self._is_upload = method.options.Extensions[options_pb2.upload]
        self._is_lines = method.options.Extensions[options_pb2.lines]
        messages = module.schema.messages
        self._request = method.input_type
        if self._is_upload:
            (header,) = (one for one in messages[method.input_type].field if one.name == "header")
            self._request = header.type_name
        self._items = item_field(method, messages[self._request], messages[method.output_type])

    @property
    def name(self) -> str:
        """The name in Python."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self._method.name).lower()

    @property
    def constant(self) -> str:
        """The name of what the runtime is told of the method."""
        return f"_{self.name.upper()}"

    def spec(self) -> str:
        """Return the assignment of the constant."""
        # a request in a body first: proxies and browsers keep URLs
        ordered = sorted(self._bindings, key=lambda binding: not binding[2])
        bindings = ", ".join(f'Binding("{verb}", "{path}", "{body}")' for verb, path, body in ordered)
        is_read = self._options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS
        flags = {
            "is_read": is_read,
            "is_public": self._options.Extensions[options_pb2.access].audience == options_pb2.AUDIENCE_PUBLIC,
        }
        told = "".join(f", {flag}=True" for flag, holds in flags.items() if holds)
        items = f', items="{self._items}"' if self._items else ""
        return (
            f'{self.constant} = Method("{self._full_name[1:]}", {self._module.ref(self._request)}, '
            f"{self._module.ref(self._method.output_type)}, ({bindings},){told}{items})"
        )

    def parameters(self) -> list[Parameter]:
        """Return the fields of the request as parameters, those that must be given first."""
        in_path = [set(re.findall(r"\{([a-z_]+)", path)) for _, path, _ in self._bindings]
        needed = set.intersection(*in_path)
        left_out = {"file_name"} if self._is_upload else {"lines", "first_line"} if self._is_lines else set()
        found = [
            Parameter(
                one.name,
                self._module.hint(one),
                one.name in needed
                or field_behavior_pb2.REQUIRED in one.options.Extensions[field_behavior_pb2.field_behavior],
                self._module.schema.comments.get(f"{self._request}.{one.name}", ""),
            )
            for one in self._module.schema.messages[self._request].field
            if one.name not in left_out
        ]
        if self._is_upload:
            found.insert(0, Parameter("file", "Path | IO[bytes]", True, "The file, sent as it is read."))
        if self._is_lines:
            found.insert(0, Parameter("lines", LINES, True, "JSON objects, or lines of JSON; taken as they are sent."))
        return sorted(found, key=lambda parameter: not parameter.is_required)

    def source(self) -> str:
        """Return the def."""
        parameters = self.parameters()
        if self._is_lines:
            parameters.append(Parameter("first_line", "int", False, "The number of the first line; 1 when not given."))
        signature = "".join(
            f", {one.argument}: {one.hint}" + ("" if one.is_required else " | None = None") for one in parameters
        )
        head = f"    def {self.name}(self{', *' if parameters else ''}{signature}) -> {self._answer()}:\n"
        return f"{head}{self._docstring(parameters)}        return {self._call(parameters)}\n"

    def _answer(self) -> str:
        if self._method.output_type == OPERATION:
            return f"Operation[{', '.join(self._types())}]"
        page = self._module.ref(self._method.output_type)
        if self._items:
            return f"Pages[{self._item()}, {page}]"
        return f"Iterator[{page}]" if self._is_lines else page

    def _item(self) -> str:
        page = self._module.schema.messages[self._method.output_type]
        (one,) = (one for one in page.field if one.name == self._items)
        return self._module.ref(one.type_name) if one.type_name else SCALARS.get(one.type, "int")

    def _call(self, parameters: Sequence[Parameter]) -> str:
        own = ("file",) if self._is_upload else ("lines", "first_line") if self._is_lines else ()
        fields = ", ".join(f'"{one.name}": {one.argument}' for one in parameters if one.name not in own)
        more = [*self._types(), *own]
        return f"self.{self._kind()}({', '.join((self.constant, f'{{{fields}}}', *more))})"

    def _kind(self) -> str:
        if self._method.output_type == OPERATION:
            return "_operation"
        return "_upload" if self._is_upload else "_lines" if self._is_lines else "_pages" if self._items else "_call"

    def _types(self) -> list[str]:
        """Return what the reply's type does not say: the items of a page, what an operation ends with and tells."""
        if self._method.output_type == OPERATION:
            info = self._options.Extensions[operations_pb2.operation_info]
            return [
                self._module.ref(f".{self._module.package}.{name}") for name in (info.response_type, info.metadata_type)
            ]
        return [self._item()] if self._items else []

    def _docstring(self, parameters: Sequence[Parameter]) -> str:
        about = textwrap.wrap(self._module.schema.comments[self._full_name] or f"{self._method.name}.", WIDTH - 6)
        lines = [f'"""{about[0]}', *about[1:]]
        told = [one for one in parameters if one.comment]
        if told:
            lines += ["", "Args:"]
            for one in told:
                text = textwrap.wrap(f"{one.argument}: {one.comment}", WIDTH - 8, subsequent_indent="    ")
                lines += [f"    {line}" for line in text]
        if len(lines) == 1:
            lines[0] += '"""'
        else:
            lines.append('"""')
        return "".join(f"        {line}\n" if line else "\n" for line in lines)
