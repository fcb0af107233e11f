"""A method of the API as the generated services describe it, and its request as HTTP (google/api/http.proto)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, Parse
from google.protobuf.message import Message

R_co = TypeVar("R_co", bound=Message, covariant=True)
R = TypeVar("R", bound=Message)
VARIABLE = re.compile(r"\{([^}=]+)(?:=([^}]*))?\}")
ETAG = re.compile(r"[\x21\x23-\x7e]{1,62}")
REPLACING = frozenset(("PUT", "PATCH", "DELETE"))


@dataclass(frozen=True, slots=True)
class Binding:
    """One HTTP form of a method; `body` is "" (none), "*" (the whole message) or a field's name."""

    verb: str
    template: str
    body: str = ""


@dataclass(frozen=True, slots=True)
class Method(Generic[R_co]):
    """One RPC; `items` is the list of a page when it is paged."""

    full_name: str
    request: type[Message]
    response: type[R_co]
    bindings: tuple[Binding, ...]
    is_read: bool = False
    is_public: bool = False
    items: str = ""

    @property
    def takes_key(self) -> bool:
        """Whether a repeat with the same request_id answers as the first did."""
        found = self.request.DESCRIPTOR.fields_by_name.get("request_id")
        return found is not None and found.type == FieldDescriptor.TYPE_STRING


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A request without what every request carries; never shown, for it holds what the caller sends."""

    verb: str
    template: str
    path: str = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def message_of(method: Method[Message], fields: Mapping[str, object]) -> Message:
    """Return the request; what is None is not given.

    Raises:
        TypeError, ValueError: a field has another type.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        kind = method.request.DESCRIPTOR.fields_by_name[name].message_type
        if kind is FieldMask.DESCRIPTOR and not isinstance(value, FieldMask | Mapping):
            given[name] = FieldMask(paths=[value] if isinstance(value, str) else value)
    return method.request(**given)


def http_call(method: Method[Message], message: Message) -> HttpCall:
    """Return the request as HTTP, by the first form whose path the message fills.

    Raises:
        ValueError: it fills none; the text names the field and what it must look like.
    """
    for binding in method.bindings:
        path = expand(binding.template, message)
        if path is not None:
            return _http_call(binding, path, message)
    wanted = ", or ".join(
        " and ".join(f"{name} must look like {pattern or '*'}" for name, pattern in VARIABLE.findall(binding.template))
        for binding in method.bindings
    )
    raise ValueError(f"{method.full_name}: {wanted}")


def expand(template: str, message: Message) -> str | None:
    """Return the path, None when a variable of it is empty or of another form."""
    path = template
    for name, pattern in VARIABLE.findall(template):
        found = filled(str(value_at(message, name)), pattern or "*")
        if found is None:
            return None
        path = VARIABLE.sub(lambda _, found=found: found, path, count=1)  # type: ignore[misc]
    return path


def filled(value: str, pattern: str) -> str | None:
    """Return a variable's text with each segment encoded, None when it is not of the pattern."""
    parts, wanted = value.split("/"), pattern.split("/")
    if wanted[-1] == "**":
        wanted[-1:] = ["*"] * (len(parts) - len(wanted) + 1)
    fits = len(parts) == len(wanted) and all(
        part and part not in (".", "..") and want in ("*", part) for part, want in zip(parts, wanted, strict=True)
    )
    return "/".join(quote(part, safe="") for part in parts) if fits else None


def value_at(message: Message, path: str) -> Any:
    """Return the value of a field path such as source.name."""
    value: Any = message
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _http_call(binding: Binding, path: str, message: Message) -> HttpCall:
    document = written(message)
    for name, _ in VARIABLE.findall(binding.template):
        document.pop(name, None)
    headers: dict[str, str] = {}
    etag = etag_of(binding, message)
    if etag:
        headers["If-Match"] = f'"{etag}"'
    if not binding.body:
        return HttpCall(binding.verb, binding.template, _with_query(path, document), headers=headers)
    body = document if binding.body == "*" else document.pop(binding.body, {})
    if binding.body != "*":
        path = _with_query(path, without(document, binding.template))
    headers["Content-Type"] = "application/json"
    return HttpCall(binding.verb, binding.template, path, json.dumps(body, ensure_ascii=False).encode(), headers)


def without(document: dict[str, Any], template: str) -> dict[str, Any]:
    """Return the document without what stands in the path."""
    taken = {name.split(".")[0] for name, _ in VARIABLE.findall(template)}
    return {name: value for name, value in document.items() if name not in taken}


def written(message: Message) -> dict[str, Any]:
    """Return a message as JSON, by its own names; masks too, which json_format would write in camel case."""
    document: dict[str, Any] = MessageToDict(_without_masks(message), preserving_proto_field_name=True)
    for one, value in message.ListFields():
        if one.message_type is FieldMask.DESCRIPTOR and not one.is_repeated:
            document[one.name] = ",".join(value.paths)
    return document


def _without_masks(message: Message) -> Message:
    masks = [one.name for one, _ in message.ListFields() if one.message_type is FieldMask.DESCRIPTOR]
    if not masks:
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    for name in masks:
        copy.ClearField(name)
    return copy


def etag_of(binding: Binding, message: Message) -> str:
    """Return the version a change is meant for: the request's own etag, or that of the resource it changes."""
    if binding.verb not in REPLACING:
        return ""
    etag = getattr(message, "etag", "")
    if not etag and binding.body not in ("", "*"):
        etag = getattr(getattr(message, binding.body), "etag", "")
    return etag if isinstance(etag, str) and ETAG.fullmatch(etag) else ""


def _with_query(path: str, document: Mapping[str, Any]) -> str:
    pairs = list(parameters(document))
    return f"{path}?{urlencode(pairs, quote_via=quote)}" if pairs else path


def parameters(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield a message as parameters: nested fields with dots, lists as repeated names."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from parameters(value, f"{prefix}{name}.")
        else:
            for one in value if isinstance(value, list) else [value]:
                yield f"{prefix}{name}", json.dumps(one) if isinstance(one, bool) else str(one)


def form_fields(document: Mapping[str, Any], template: str) -> dict[str, str | list[str]]:
    """Return an upload's header as form fields."""
    found: dict[str, str | list[str]] = {}
    for name, text in parameters(without(dict(document), template)):
        known = found.setdefault(name, text)
        if known is not text:
            found[name] = [*(known if isinstance(known, list) else [known]), text]
    return found


def reply_of(response: type[R], content: bytes, content_type: str) -> R:
    """Return a reply as a message; fields and values that are newer than this client are passed over."""
    message = response()
    if isinstance(message, HttpBody):
        message.content_type, message.data = content_type, content
        return message
    return Parse(content, message, ignore_unknown_fields=True) if content else message


def line_of(line: bytes | str | Mapping[str, Any]) -> bytes:
    """Return one line of JSON with its end.

    Raises:
        ValueError: it is more than a line.
    """
    text = json.dumps(line, ensure_ascii=False) if isinstance(line, Mapping) else line
    raw = text.encode() if isinstance(text, str) else text
    raw = raw.removesuffix(b"\n")
    if b"\n" in raw:
        raise ValueError("a line may not hold a line end: give the records one by one")
    return raw + b"\n"


def line_chunks(lines: Iterable[bytes | str | Mapping[str, Any]], most: int, most_bytes: int) -> Iterator[list[bytes]]:
    """Yield the lines in chunks of at most so many lines and, but for a single line, bytes."""
    chunk: list[bytes] = []
    size = 0
    for line in map(line_of, lines):
        if chunk and (len(chunk) == most or size + len(line) > most_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield chunk
