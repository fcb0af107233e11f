"""Match a raw request path with the compiled route templates; one exact form per path, no regular expression.

Template grammar: google/api/http.proto. A path is refused, never repaired: `//`, dot segments, encoded
unreserved characters, `;`, a trailing slash, control characters and bytes outside UTF-8 reach no route.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

T = TypeVar("T")

PATH_LIMIT = 2048  # longest template filled with the longest ids stays far below
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
PLAIN = UNRESERVED | frozenset(b"!$&'()*+,=:@")
PLAIN_PATH = bytes((*PLAIN, ord("/")))
DOTS = frozenset(("", ".", ".."))
FORBIDDEN = frozenset('/\\;%?#"<>^`{|}')
DOTTED = "the path has an empty or dot segment"


class BadPath(ValueError):
    """The path is not in the one form routes are matched in."""


class BadTemplate(ValueError):
    """A proto's route template cannot be compiled, or two methods claim the same route."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A captured span of segments, `segments[start:stop]`, that fills the request field `field`."""

    field: str
    start: int
    stop: int | None


@dataclass(frozen=True, slots=True)
class Template:
    """A route template cut into segments (literal text, `*`, or a final `**`), variables and verb."""

    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str


def split_template(text: str) -> Iterator[str]:
    """Yield the slash-separated pieces of a template, keeping `{name=a/*}` whole."""
    depth = start = 0
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if character == "/" and depth == 0:
            yield text[start:position]
            start = position + 1
    yield text[start:]


def parse_template(text: str) -> Template:
    """Cut a google.api.http template.

    Raises:
        BadTemplate: it does not start with a slash, has an empty segment, or `**` is not last.
    """
    if not text.startswith("/"):
        raise BadTemplate(f"{text} must start with /")
    has_verb = ":" in text[max(text.rfind("/"), text.rfind("}")) :]
    head, _, verb = text.rpartition(":") if has_verb else (text, "", "")
    segments: list[str] = []
    variables: list[Variable] = []
    for piece in split_template(head[1:]):
        if piece.startswith("{"):
            name, _, pattern = piece[1:-1].partition("=")
            inner = (pattern or "*").split("/")
            stop = None if inner[-1] == "**" else len(segments) + len(inner)
            variables.append(Variable(name, len(segments), stop))
            segments.extend(inner)
        else:
            segments.append(piece)
    if not all(segments) or "**" in segments[:-1]:
        raise BadTemplate(f"{text}: an empty segment, or ** before the end")
    return Template(tuple(segments), tuple(variables), verb)


def segments_of(raw_path: bytes) -> list[str]:
    """Decode the segments of a path; see decode_segment."""
    if raw_path.translate(None, PLAIN_PATH):
        return [decode_segment(piece) for piece in raw_path[1:].split(b"/")]
    found = raw_path[1:].decode("ascii").split("/")
    if not DOTS.isdisjoint(found):
        raise BadPath(DOTTED)
    return found


def decode_segment(raw: bytes) -> str:
    """Decode one segment exactly once.

    Raises:
        BadPath: it is empty, a dot segment, encodes what needs no encoding, or hides a delimiter.
    """
    text = raw.decode("ascii") if PLAIN.issuperset(raw) else decode_escapes(raw)
    if text in DOTS:
        raise BadPath(DOTTED)
    return text


def decode_escapes(raw: bytes) -> str:
    """Decode a segment that carries %XX escapes; see decode_segment."""
    pieces = raw.split(b"%")
    if not PLAIN.issuperset(b"".join(pieces)):
        raise BadPath("the path has a character that must be percent-encoded, or may not be there")
    for piece in pieces[1:]:
        try:
            code = bytes.fromhex(piece[:2].decode("ascii"))
        except ValueError:
            raise BadPath("the path has a broken percent-escape") from None
        if len(code) != 1 or code[0] in UNRESERVED:
            raise BadPath("the path percent-encodes a character that needs none")
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise BadPath("the path is not UTF-8") from None
    if not text.isprintable() or not FORBIDDEN.isdisjoint(text):
        raise BadPath("the path hides a delimiter or a control character")
    return text


@dataclass(slots=True)
class Node(Generic[T]):
    """One place of the segment trie; `ends[verb][http_method]` are the routes that stop here."""

    literals: dict[str, Node[T]] = field(default_factory=dict)
    star: Node[T] | None = None
    rest: Node[T] | None = None
    ends: dict[str, dict[str, tuple[Template, T]]] = field(default_factory=dict)

    def child(self, segment: str) -> Node[T]:
        """Return the node below for a template segment, made when missing."""
        if segment == "*":
            self.star = self.star or Node()
            return self.star
        if segment == "**":
            self.rest = self.rest or Node()
            return self.rest
        return self.literals.setdefault(segment, Node())


@dataclass(slots=True)
class Match(Generic[T]):
    """What a path led to: the methods answered there, and the segments its variables are cut from."""

    ends: dict[str, tuple[Template, T]]
    segments: list[str]


class Router(Generic[T]):
    """A trie of segments; literals win over `*`, which wins over `**`."""

    def __init__(self) -> None:
        self._root: Node[T] = Node()

    def add(self, http_method: str, template: Template, target: T) -> None:
        """Add a route.

        Raises:
            BadTemplate: another target already answers this method on this path.
        """
        node = self._root
        for segment in template.segments:
            node = node.child(segment)
        methods = node.ends.setdefault(template.verb, {})
        if http_method in methods:
            path = "/".join(template.segments)
            raise BadTemplate(f"{http_method} /{path}:{template.verb} is claimed twice")
        methods[http_method] = (template, target)

    def find(self, raw_path: bytes) -> Match[T] | None:
        """Return what answers at the path as sent on the wire, None when nothing does.

        Raises:
            BadPath: the path is malformed, whether or not a route would match a repaired form.
        """
        if len(raw_path) > PATH_LIMIT or not raw_path.startswith(b"/"):
            raise BadPath(f"the path must start with / and have at most {PATH_LIMIT} bytes")
        segments = segments_of(raw_path)
        last, _, verb = raw_path.rpartition(b"/")[2].rpartition(b":")
        if last:
            found = self._walk(self._root, [*segments[:-1], decode_segment(last)], 0, decode_segment(verb))
            if found is not None:
                return found
        return self._walk(self._root, segments, 0, "")

    def _walk(self, node: Node[T], segments: list[str], index: int, verb: str) -> Match[T] | None:
        if index == len(segments):
            ends = node.ends.get(verb)
            return Match(ends, segments) if ends else None
        below = node.literals.get(segments[index])
        found = self._walk(below, segments, index + 1, verb) if below else None
        if found is None and node.star is not None:
            found = self._walk(node.star, segments, index + 1, verb)
        if found is None and node.rest is not None and verb in node.rest.ends:
            found = Match(node.rest.ends[verb], segments)
        return found


def captures(template: Template, segments: list[str]) -> list[tuple[str, str]]:
    """Return (field, text) for each variable of the matched template."""
    return [(found.field, "/".join(segments[found.start : found.stop])) for found in template.variables]
