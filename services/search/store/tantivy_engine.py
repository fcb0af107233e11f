"""The embedded index: tantivy folders under an alias file, shared by processes through file locks.

index_dir/alias.json names what is live and what is being built; each index is a folder. Writers hold the alias
lock shared and the folder's lock exclusively for one short batch, so consumer and rebuild job alternate; whoever
moves the alias holds its lock exclusively. Readers take no lock: they follow alias.json and meta.json.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tantivy

from services.chassis.durable import write_whole
from services.search.store import tantivy_query
from services.search.store.port import (
    GONE,
    KEYWORD_FIELDS,
    TERM_FIELDS,
    Aliases,
    EngineUnavailable,
    IndexDocument,
    IndexGone,
    IndexQuery,
    IndexResult,
    Tombstone,
    newest,
    next_name,
)

WRITER_BYTES = 15_000_000  # tantivy's minimum for one thread; a batch of 500 documents needs about 2 MB


def build_schema(term_fields: Sequence[str] = TERM_FIELDS) -> tantivy.Schema:
    """Return the schema: tokens are made by us, so every text field is raw."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=True, fast=True, tokenizer_name="raw", index_option="basic")
    builder.add_integer_field("version", stored=True, fast=True)
    builder.add_integer_field("changed", stored=True, fast=True)
    builder.add_boolean_field("deleted", indexed=True, fast=True)
    for name in term_fields:
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    for name in KEYWORD_FIELDS:
        builder.add_text_field(name, fast=True, tokenizer_name="raw", index_option="basic")
    builder.add_bytes_field("payload", stored=True)
    return builder.build()


@dataclass(slots=True)
class _Reader:
    """An open index, the fields it has, and the commit it has loaded."""

    name: str
    index: tantivy.Index
    fields: frozenset[str]
    stamp: tuple[int, int]


class TantivyEngine:
    """The Engine on local files."""

    def __init__(self, index_dir: Path, schema: tantivy.Schema | None = None) -> None:
        """Keep indexes in `index_dir`; new ones get this release's schema, or the one given."""
        self._root = index_dir
        self._schema = schema or build_schema()
        self._reader: _Reader | None = None
        self._reader_lock = threading.Lock()

    def prepare(self) -> None:
        """Create the first index when there is none."""
        with self._errors():
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._lock("alias", fcntl.LOCK_EX):
                if not self._alias_file.exists():
                    self._save(Aliases(self._new_index()))

    def write(self, documents: Sequence[IndexDocument]) -> None:
        """Write to the live index and to all that are being built."""
        if not documents:
            return
        with self._errors(), self._lock("alias", fcntl.LOCK_SH):
            aliases = self._load()
            for name in (aliases.live, *aliases.building):
                self._commit(name, documents)

    def load(self, index: str, documents: Sequence[IndexDocument]) -> None:
        """Write to one index that is being built."""
        with self._errors(), self._lock("alias", fcntl.LOCK_SH):
            if index not in self._load().building:
                raise IndexGone(GONE)
            if documents:
                self._commit(index, documents)

    def search(self, query: IndexQuery) -> IndexResult:
        """Return a page of hits."""
        with self._errors():
            reader, searcher = self._open_live()
            return tantivy_query.run(reader.index.schema, reader.fields, searcher, query)

    def aliases(self) -> Aliases:
        """Return what is live and what is being built."""
        with self._errors():
            return self._load()

    def create(self) -> str:
        """Create an index that writers write to from now on."""
        with self._errors(), self._lock("alias", fcntl.LOCK_EX):
            aliases = self._load()
            self._sweep(aliases)
            name = self._new_index()
            self._save(Aliases(aliases.live, (*aliases.building, name)))
            return name

    def swap(self, index: str) -> str:
        """Make a built index the live one."""
        with self._errors(), self._lock("alias", fcntl.LOCK_EX):
            aliases = self._load()
            if aliases.live != index:
                if index not in aliases.building:
                    raise IndexGone(GONE)
                building = tuple(name for name in aliases.building if name != index)
                self._save(Aliases(index, building))
            return aliases.live

    def drop(self, index: str) -> None:
        """Delete an index that is not live; open readers keep its files until they move on."""
        with self._errors(), self._lock("alias", fcntl.LOCK_EX):
            aliases = self._load()
            if index == aliases.live:
                raise ValueError("the live index is not dropped")
            self._save(Aliases(aliases.live, tuple(name for name in aliases.building if name != index)))
            shutil.rmtree(self._root / index, ignore_errors=True)
            (self._root / f"{index}.lock").unlink(missing_ok=True)

    def tombstones(self, page: int = 500) -> Iterator[list[Tombstone]]:
        """Yield the tombstones of the live index."""
        with self._errors():
            reader, searcher = self._open_live()
            yield from tantivy_query.tombstones(reader.index.schema, searcher, page)

    def _commit(self, name: str, documents: Sequence[IndexDocument]) -> None:
        """Write what is not older than what is there, in one commit."""
        with self._lock(name, fcntl.LOCK_EX):
            index = tantivy.Index.open(str(self._root / name))
            fresh = newest(documents)
            fields = self._fields(name)
            known = tantivy_query.versions(index.schema, index.searcher(), [each.id for each in fresh])
            fresh = [each for each in fresh if each.version >= known.get(each.id, each.version)]
            if not fresh:
                return
            writer = index.writer(heap_size=WRITER_BYTES, num_threads=1)
            try:
                for document in fresh:
                    writer.delete_documents_by_term("id", document.id)
                    writer.add_document(_to_tantivy(document, fields))
                writer.commit()
            finally:
                writer.wait_merging_threads()

    def _open_live(self) -> tuple[_Reader, tantivy.Searcher]:
        """Return the live index and a searcher of its last commit; follows the alias when it moved meanwhile."""
        for _ in range(3):
            name = self._load().live
            with self._reader_lock, contextlib.suppress(FileNotFoundError):
                reader = self._reader
                stamp = self._stamp(name)
                if reader is None or reader.name != name:
                    index = tantivy.Index.open(str(self._root / name))
                    index.config_reader("manual")
                    reader = self._reader = _Reader(name, index, self._fields(name), (0, 0))
                if reader.stamp != stamp:
                    reader.index.reload()
                    reader.stamp = stamp
                return reader, reader.index.searcher()
        raise EngineUnavailable("the index is being replaced; try again")

    def _stamp(self, name: str) -> tuple[int, int]:
        found = (self._root / name / "meta.json").stat()
        return found.st_ino, found.st_mtime_ns

    def _fields(self, name: str) -> frozenset[str]:
        """Return the fields of an index; one built by an older release may lack some until it is rebuilt."""
        meta = json.loads((self._root / name / "meta.json").read_text(encoding="utf-8"))
        return frozenset(field["name"] for field in meta["schema"])

    @property
    def _alias_file(self) -> Path:
        return self._root / "alias.json"

    def _load(self) -> Aliases:
        found = json.loads(self._alias_file.read_text(encoding="ascii"))
        return Aliases(found["live"], tuple(found["building"]))

    def _save(self, aliases: Aliases) -> None:
        text = json.dumps({"live": aliases.live, "building": aliases.building})
        write_whole(self._alias_file, text.encode("ascii"))

    def _new_index(self) -> str:
        name = next_name(path.name for path in self._root.iterdir() if path.is_dir())
        (self._root / name).mkdir(mode=0o700)
        tantivy.Index(self._schema, path=str(self._root / name))
        return name

    def _sweep(self, aliases: Aliases) -> None:
        """Remove folders that no alias names: left by a process that died between two steps."""
        for path in self._root.iterdir():
            if path.is_dir() and path.name not in (aliases.live, *aliases.building):
                shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self, name: str, mode: int) -> Iterator[None]:
        with (self._root / f"{name}.lock").open("w", encoding="ascii") as file:
            fcntl.flock(file, mode)
            yield

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, json.JSONDecodeError) as error:
            raise EngineUnavailable("the index cannot be read or written; try again") from error
        except ValueError as error:
            if "live index" in str(error):
                raise
            raise EngineUnavailable("the index cannot be read or written; try again") from error


def _to_tantivy(document: IndexDocument, fields: frozenset[str]) -> tantivy.Document:
    made = tantivy.Document()
    made.add_text("id", document.id)
    made.add_integer("version", document.version)
    made.add_integer("changed", document.changed)
    made.add_boolean("deleted", document.deleted)
    if not document.deleted:
        for name, tokens in document.terms.items():
            for token in tokens if name in fields else ():
                made.add_text(name, token)
        for name, value in document.keywords.items():
            if value and name in fields:
                made.add_text(name, value)
        made.add_bytes("payload", document.payload)
    return made
