"""Build a method's request message from path, query, body and headers, as one HTTP form of it says."""

from __future__ import annotations

import re

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.transcoding.catalog import Binding, Method
from gateway.transcoding.paths import Template, captures
from gateway.transcoding.query import Parameters, parse_pairs
from gateway.transcoding.reading import Readers
from gateway.transcoding.scalars import BadField
from gateway.transcoding.writing import Json

KEY = re.compile(r'"?([A-Za-z0-9][A-Za-z0-9._:-]{0,63})"?')
ETAG = re.compile(r'"([\x21\x23-\x7e]{1,62})"')


class HeaderRefused(ValueError):
    """A header asks for what the method does not offer, or is malformed."""


class RequestReader:
    """The compiled reader of one HTTP form of one method."""

    def __init__(self, method: Method, binding: Binding, template: Template, readers: Readers) -> None:
        self._class = GetMessageClass(method.request)
        self._template = template
        self.body_field = binding.body
        taken = {variable.field for variable in template.variables}
        everything = Parameters(method.request, readers)
        self._variables = [everything.find(variable.field) for variable in template.variables]
        self._fields = taken
        self.query = Parameters(method.request, readers, taken | {binding.body} - {""})
        self.takes_body = bool(binding.body)
        self._fill = None
        if binding.body == "*":
            self._fill = readers.of(method.request)
        elif binding.body:
            self._fill = readers.of(method.request.fields_by_name[binding.body].message_type)
        self.has_request_id = is_text(method.request, "request_id")
        self._etag_field = etag_field(method.request, binding.body)

    def read(self, segments: list[str], query: bytes, body: Json) -> Message:
        """Return the message; the path wins, and a body that says otherwise is refused.

        Raises:
            BadField: naming the field or parameter.
        """
        message: Message = self._class()
        if self._fill is not None:
            self._fill(message if self.body_field == "*" else getattr(message, self.body_field), body)
        if query:
            if self.body_field == "*":
                raise BadField("this route takes everything in the body, nothing in the query string")
            self.query.fill(message, parse_pairs(query))
        self.place(message, segments)
        return message

    def read_form(self, segments: list[str], query: bytes, form: list[tuple[str, str]]) -> Message:
        """Return the message of a form; unknown form fields are ignored (RFC 6749 §3.2)."""
        message: Message = self._class()
        self.query.fill(message, parse_pairs(query))
        self.query.fill(message, form, ignore_unknown=True)
        self.place(message, segments)
        return message

    def place(self, message: Message, segments: list[str]) -> None:
        """Fill the path's variables."""
        for (field, text), variable in zip(captures(self._template, segments), self._variables, strict=True):
            if self._fill is not None and variable.get(message) not in ("", 0, text):
                raise BadField("differs from the path", f"/{field.removeprefix(f'{self.body_field}.')}")
            try:
                variable.put(message, text)
            except BadField as bad:
                raise BadField(bad.detail, f"/{field.replace('.', '/')}") from None

    def put_request_id(self, message: Message, key: str) -> None:
        """Carry Idempotency-Key in the request's request_id.

        Raises:
            HeaderRefused: the method keeps none, the key is malformed, or the body has another.
        """
        found = KEY.fullmatch(key)
        if found is None:
            raise HeaderRefused("Idempotency-Key must be 1 to 64 of A-Z a-z 0-9 . _ : -, a letter or digit first")
        if not self.has_request_id:
            raise HeaderRefused("this method keeps no request ids; do not send Idempotency-Key")
        if getattr(message, "request_id") not in ("", found[1]):  # noqa: B009 - the type is only known here
            raise HeaderRefused("Idempotency-Key and request_id differ")
        setattr(message, "request_id", found[1])  # noqa: B010

    def put_etag(self, message: Message, if_match: str) -> None:
        """Carry If-Match in the request's or its resource's etag; `*` asks only for existence.

        Raises:
            HeaderRefused: there is no etag to carry it in, or it is not one strong entity tag.
        """
        if if_match == "*":
            return
        found = ETAG.fullmatch(if_match)
        if found is None:
            raise HeaderRefused('If-Match must be one strong tag in quotes, such as "3", or *')
        if not self._etag_field:
            raise HeaderRefused("this method has no etag; do not send If-Match")
        for parent in self._etag_field[:-1]:
            message = getattr(message, parent)
        if message.etag not in ("", found[1]):
            raise HeaderRefused("If-Match and etag differ")
        message.etag = found[1]


def is_text(message: Descriptor | None, field: str) -> bool:
    """Whether the message has a string field of this name."""
    found = message.fields_by_name.get(field) if message is not None else None
    return found is not None and found.type == FieldDescriptor.TYPE_STRING and not found.is_repeated


def etag_field(request: Descriptor, body: str) -> tuple[str, ...]:
    """Return the path of the field that carries the etag: the request's own, or its resource's."""
    if is_text(request, "etag"):
        return ("etag",)
    resource = request.fields_by_name.get(body)
    if resource is not None and is_text(resource.message_type, "etag"):
        return (body, "etag")
    return ()
