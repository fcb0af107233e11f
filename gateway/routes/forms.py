"""Read multipart/form-data as it comes: fields, then at most one file."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.problems import Problem, refusal
from gateway.reasons import Reason
from gateway.wire import MULTIPART

FIELDS_BYTES = 64 * 1024  # form fields are parameters, not content
PARTS_LIMIT = 50
HEADER_BYTES = 8 * 1024  # of one part


@dataclass(slots=True)
class Part:
    """A part of the form being read."""

    name: str = ""
    file_name: str = ""
    is_file: bool = False
    raw_header: bytearray = field(default_factory=bytearray)
    headers: dict[str, bytes] = field(default_factory=dict)
    text: bytearray = field(default_factory=bytearray)


class FormReader:
    """Parses a multipart body as it comes; fields must stand before the one file."""

    def __init__(self, boundary: bytes) -> None:
        self.fields: list[tuple[str, str]] = []
        self.file_name = ""
        self.pending = bytearray()
        self.is_finished = False
        self.has_file = False
        self._part = Part()
        self._sizes = 0
        self._parts = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_text,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )
        self._value = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Read on.

        Raises:
            Problem: the form is broken, has two files, too many parts or too long fields.
        """
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise broken("the multipart body is malformed") from None

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > PARTS_LIMIT:
            raise broken(f"the form has more than {PARTS_LIMIT} parts")
        if self.has_file:
            raise broken("the file must be the last part; put the fields before it")
        self._part = Part()

    def _header_text(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start, HEADER_BYTES)
        self._part.raw_header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start, HEADER_BYTES)
        self._value += data[start:end]

    def _header_end(self) -> None:
        name = self._part.raw_header.decode("latin-1").lower()
        self._part.headers[name] = bytes(self._value)
        self._part.raw_header.clear()
        self._value.clear()

    def _headers(self) -> None:
        kind, options = parse_options_header(self._part.headers.get("content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise broken("a part has no Content-Disposition: form-data with a name")
        self._part.name = decoded(options[b"name"])
        if b"filename" in options:
            self._part.is_file = self.has_file = True
            self.file_name = decoded(options[b"filename"])

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self.pending += data[start:end]
        else:
            self._count(end - start, FIELDS_BYTES)
            self._part.text += data[start:end]

    def _end(self) -> None:
        if not self._part.is_file:
            self.fields.append((self._part.name, decoded(bytes(self._part.text))))

    def _finish(self) -> None:
        self.is_finished = True

    def _count(self, size: int, limit: int) -> None:
        self._sizes += size
        if self._sizes > limit + HEADER_BYTES * self._parts:
            raise broken("the form's fields are too long")


def boundary_of(content_type: bytes) -> bytes:
    """Return the boundary that a Content-Type names.

    Raises:
        Problem: 415, it is not multipart/form-data with one.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != MULTIPART.encode() or not 1 <= len(boundary) <= 70:
        raise refusal(415, Reason.UNSUPPORTED_MEDIA_TYPE, "send multipart/form-data with a boundary")
    return boundary


def fields_of(content_type: bytes, body: bytes) -> list[tuple[str, str]]:
    """Return the fields of a whole form.

    Raises:
        Problem: it is broken, or has a file.
    """
    form = FormReader(boundary_of(content_type))
    form.feed(body)
    if form.has_file or not form.is_finished:
        raise broken("the form has a file, which this route does not take, or ends too early")
    return form.fields


def broken(detail: str) -> Problem:
    """Return the refusal of a broken form."""
    return refusal(400, Reason.MALFORMED_FORM, detail)


def decoded(raw: bytes) -> str:
    """Return form text, which must be UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise broken("the form's text is not UTF-8") from None
