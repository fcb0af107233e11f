"""Read path variables, query strings and form bodies into request messages, typed by the descriptor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.transcoding.reading import Readers
from gateway.transcoding.scalars import SHOWN, BadField, Convert, scalar_reader
from gateway.transcoding.writing import WRAPPERS, Json

PARAMETERS_LIMIT = 100
PLAIN_BYTES = 2048  # longer ones are cut by parse_qsl, which refuses too many before it looks at them
PLAIN = re.compile(rb"[\w.~:,-]+=[\w.~:,-]*(?:&[\w.~:,-]+=[\w.~:,-]*)*")  # nothing in it is encoded
DEPTH_LIMIT = 5  # nested parameters such as filter.range.from
TEXT_MESSAGES = frozenset(
    f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask")
)  # messages whose JSON form is text


class UnknownParameter(BadField):
    """No field of the request has this name, or the field cannot be given as a parameter."""


def parse_pairs(text: bytes) -> list[tuple[str, str]]:
    """Cut a query string or urlencoded body into names and values.

    Raises:
        BadField: it is not UTF-8, is malformed, or has more than PARAMETERS_LIMIT parts.
    """
    if not text:
        return []
    if len(text) <= PLAIN_BYTES and text.count(b"&") < PARAMETERS_LIMIT and PLAIN.fullmatch(text):
        return [(name, value) for name, _, value in (part.partition("=") for part in text.decode("ascii").split("&"))]
    try:
        return parse_qsl(
            text.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=PARAMETERS_LIMIT,
        )
    except UnicodeError:
        raise BadField("the parameters are not percent-encoded UTF-8") from None
    except ValueError:
        raise BadField(f"the parameters are malformed, or more than {PARAMETERS_LIMIT}") from None


def from_text(convert: Convert) -> Callable[[str], object]:
    """Return a reader of a parameter's text for a scalar that JSON writes otherwise."""

    def read(text: str) -> object:
        value: Json = {"true": True, "false": False}.get(text, text)
        return convert(value)

    return read


class Parameter:
    """How one parameter fills its field, which may be nested."""

    def __init__(self, path: tuple[FieldDescriptor, ...], readers: Readers) -> None:
        leaf = path[-1]
        self._parents = tuple(field.name for field in path[:-1])
        self._oneofs = tuple(field.containing_oneof for field in path)
        self._name = leaf.name
        self.is_repeated = leaf.is_repeated
        kind = leaf.message_type.full_name if leaf.message_type is not None else ""
        self._fill = readers.of(leaf.message_type) if kind else None
        if kind in WRAPPERS:
            read = from_text(scalar_reader(leaf.message_type.fields_by_name["value"]))
            self._read = read
        elif kind:
            self._read = str
        elif leaf.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            self._read = from_text(scalar_reader(leaf))
        elif leaf.enum_type is not None:
            enum = scalar_reader(leaf)
            self._read = lambda text: enum(int(text) if text.isdecimal() and len(text) < 10 else text)
        else:
            self._read = scalar_reader(leaf)

    def put(self, message: Message, text: str) -> None:
        """Set the field, or add to it when it repeats."""
        for parent in self._parents:
            message = getattr(message, parent)
        value = self._read(text)
        if self.is_repeated:
            items = getattr(message, self._name)
            if self._fill is None:
                items.append(value)
            else:
                self._fill(items.add(), value)  # type: ignore[arg-type]
        elif self._fill is None:
            setattr(message, self._name, value)
        else:
            self._fill(getattr(message, self._name), value)  # type: ignore[arg-type]

    def get(self, message: Message) -> object:
        """Return what the field holds."""
        for parent in self._parents:
            message = getattr(message, parent)
        return getattr(message, self._name)


class Parameters:
    """The parameters a request message can be filled from; `taken` are fields that come from elsewhere."""

    def __init__(self, request: Descriptor, readers: Readers, taken: Iterable[str] = ()) -> None:
        self._request = request
        self._readers = readers
        self._taken = frozenset(taken)
        self.find = lru_cache(maxsize=256)(self._find)

    def _find(self, name: str) -> Parameter:
        """Return how a parameter is read.

        Raises:
            UnknownParameter: there is none of this name.
        """
        parts = name.split(".")
        path: list[FieldDescriptor] = []
        descriptor: Descriptor | None = self._request
        for part in parts if len(parts) <= DEPTH_LIMIT else ():
            field = descriptor.fields_by_name.get(part) if descriptor is not None else None
            if field is None or (path and path[-1].is_repeated):
                break
            path.append(field)
            descriptor = field.message_type
        is_taken = any(".".join(parts[: n + 1]) in self._taken for n in range(len(parts)))
        if len(path) != len(parts) or is_taken or not is_leaf(path[-1]):
            raise UnknownParameter("is not a parameter of this request")
        return Parameter(tuple(path), self._readers)

    def fill(self, message: Message, pairs: Iterable[tuple[str, str]], *, ignore_unknown: bool = False) -> None:
        """Fill the message.

        Raises:
            BadField: a parameter is unknown, of a wrong type, or given twice though it does not repeat.
        """
        seen: set[str] = set()
        for name, text in pairs:
            try:
                parameter = self.find(name)
                if name in seen and not parameter.is_repeated:
                    raise BadField("is given twice")
                seen.add(name)
                parameter.put(message, text)
            except UnknownParameter as unknown:
                if not ignore_unknown:
                    raise BadField(unknown.detail, f"/{name.replace('.', '/')[:SHOWN]}") from None
            except BadField as bad:
                raise BadField(bad.detail, f"/{name.replace('.', '/')[:SHOWN]}") from None


def is_leaf(field: FieldDescriptor) -> bool:
    """Whether one text can be the value of the field."""
    kind = field.message_type
    return kind is None or kind.full_name in TEXT_MESSAGES or kind.full_name in WRAPPERS
