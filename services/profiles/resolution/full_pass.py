"""Resolve all stored records at once, and say how the outcome differs from the profiles that are stored.

It runs in a process of its own (`python -m services.profiles.resolution.full_pass`), so that whoever asks for it stays
small: records come in over a pipe, sealed nowhere and written nowhere, and differences go out. A frame is four bytes of
length and JSON; the first is the model, then come pages of profiles, an empty frame ends them.
"""

from __future__ import annotations

import resource
import sys
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any

import numpy as np
import orjson

from services.profiles.domain.blocking import KEY_CANDIDATES_LIMIT
from services.profiles.domain.comparison import Traits, traits_of
from services.profiles.domain.model import MatchModel, model_from_json
from services.profiles.domain.plain import record_from_plain
from services.profiles.domain.values import StandardRecord
from services.profiles.resolution.crowding import Crowding
from services.profiles.resolution.gathering import Codes
from services.profiles.resolution.judging import Judged
from services.profiles.resolution.kernels import unite
from services.profiles.resolution.people import People, labels_of
from services.profiles.values import record_key

MERGE, MIXED, ASK, END = "merge", "mixed", "ask", "end"


class FullPass:
    """The stored profiles and what the records alone would make of them."""

    def __init__(self) -> None:
        self.profiles: list[str] = []
        self.keys: list[tuple[str, str]] = []
        self.homes: list[int] = []
        self._marks: list[int] = []
        self._rows = array("i")  # of each record, where it stands among those compared
        self._unique = Codes()
        self.uniques: list[int] = []
        self.people = People(())

    def add(self, profile_id: str, records: Iterable[tuple[int, StandardRecord]]) -> None:
        """Take a profile with its records, each with a mark that changes when the record does."""
        home, found = len(self.profiles), list(records)
        self.profiles.append(profile_id)
        alike: dict[Traits, int] | None = {} if len(found) > KEY_CANDIDATES_LIMIT else None
        for mark, record in found:
            self._rows.append(self._row_of(record, alike))
            self.keys.append(record.key)
            self.homes.append(home)
            self._marks.append(mark)

    def _row_of(self, record: StandardRecord, alike: dict[Traits, int] | None) -> int:
        """Return where a record stands among those compared; of a profile with very many, all that are alike are one.

        Else their keys would be void, as a crowd's are. Records of a source that has one for each person stay apart.
        """
        row = self.people.gathered.size
        if alike is not None and not record.is_unique_in_source:
            known = alike.setdefault(replace(traits_of(record), key=("", "")), row)
            if known != row:
                return known
        self.people.gathered.add(record)
        self.uniques.append(self._unique.of(record.source_id if record.is_unique_in_source else ""))
        return row

    def differences(self, model: MatchModel) -> Iterator[dict[str, Any]]:
        """Yield what differs, then the figures.

        A merge has profiles that are one cluster, with the sum of their records' marks; mixed are profiles of which one
        or more are in several clusters, with the clusters' records; ask names two profiles that may be one person.
        Each has the phones and e-mails of its records that are known under too many names, if there are any.
        """
        if not self.keys:
            yield {"kind": END, "profiles": len(self.profiles), "records": 0, "clusters": 0}
            return
        labels, edges = self._labels(model)
        homes = np.array(self.homes, np.int32)
        hanging = self._hanging(labels, homes)
        crowding = Crowding(self.people.gathered, *self.people.shared)
        yield from self._joined(labels, homes, hanging, crowding)
        yield from self._questions(edges, homes, hanging, crowding)
        yield {
            "kind": END, "profiles": len(self.profiles), "records": len(self.keys),
            "clusters": int(np.unique(labels).size),
        }  # fmt: skip

    def _labels(self, model: MatchModel) -> tuple[np.ndarray, Judged]:
        """Return each record's cluster, and the pairs that are not apart: of the records that stand for others."""
        rows = np.array(self._rows, np.int32)
        first = _firsts(rows).astype(np.int32)
        names = [self.keys[at] for at in first.tolist()]
        labels, edges = labels_of(self.people, model, np.array(self.uniques), names)
        return first[labels][rows], replace(edges, left=first[edges.left], right=first[edges.right])

    def _hanging(self, labels: np.ndarray, homes: np.ndarray) -> np.ndarray:
        """Return for each record the first record that hangs together with it by profiles and clusters."""
        own = np.arange(homes.size, dtype=np.int32)
        at_home = _firsts(homes)[np.unique(homes, return_inverse=True)[1]]
        sides = np.concatenate([own, own]), np.concatenate([labels, at_home]).astype(np.int32)
        return unite(*sides, homes.size)

    def _joined(
        self, labels: np.ndarray, homes: np.ndarray, hanging: np.ndarray, crowding: Crowding
    ) -> Iterator[dict[str, Any]]:
        profiles, clusters = (np.bincount(hanging[_firsts(of)], minlength=homes.size) for of in (homes, labels))
        differing = np.flatnonzero((profiles[hanging] > 1) | (clusters[hanging] > 1))
        order = differing[np.argsort(hanging[differing], kind="stable")]
        for members in np.split(order, np.flatnonzero(np.diff(hanging[order])) + 1) if order.size else ():
            ids = [self.profiles[at] for at in np.unique(homes[members]).tolist()]
            shared = self._shared(crowding, members.tolist())
            if clusters[hanging[members[0]]] > 1:
                groups: defaultdict[int, list[str]] = defaultdict(list)
                for at in members.tolist():
                    groups[int(labels[at])].append(record_key(*self.keys[at]))
                yield {"kind": MIXED, "profiles": ids, "clusters": list(groups.values()), **shared}
            else:
                mark = sum(self._marks[at] for at in members.tolist())
                yield {"kind": MERGE, "profiles": ids, "mark": mark, **shared}

    def _questions(
        self, edges: Judged, homes: np.ndarray, hanging: np.ndarray, crowding: Crowding
    ) -> Iterator[dict[str, Any]]:
        """Yield the pairs of profiles that records link and that nothing yielded so far brings together."""
        linked = hanging[edges.left] != hanging[edges.right]
        pairs = np.stack([homes[edges.left[linked]], homes[edges.right[linked]]], 1)
        for one, other in np.unique(np.sort(pairs, axis=1), axis=0).tolist():
            begins, ends = (np.searchsorted(homes, (one, other), side) for side in ("left", "right"))
            shared = self._shared(crowding, [*range(begins[0], ends[0]), *range(begins[1], ends[1])])
            yield {"kind": ASK, "profiles": [self.profiles[one], self.profiles[other]], **shared}

    def _shared(self, crowding: Crowding, members: Sequence[int]) -> dict[str, list[tuple[str, str]]]:
        """Return what an item says of the phones and e-mails of its records that are no evidence."""
        found = crowding.of({self._rows[at] for at in members})
        return {"shared": found} if found else {}


def _firsts(numbers: np.ndarray) -> np.ndarray:
    """Return where each distinct number comes first."""
    return np.unique(numbers, return_index=True)[1]


def write_frame(stream: IO[bytes], content: bytes) -> None:
    """Write one frame."""
    stream.write(len(content).to_bytes(4, "big") + content)


def read_frame(stream: IO[bytes]) -> bytes:
    """Return the next frame; EOFError when the other side is gone."""
    size = stream.read(4)
    if len(size) < 4:
        raise EOFError
    content = stream.read(int.from_bytes(size, "big"))
    if len(content) < int.from_bytes(size, "big"):
        raise EOFError
    return content


def records_of(page: Iterable[Any]) -> Iterator[tuple[str, list[tuple[int, StandardRecord]]]]:
    """Return a page's profiles with their records."""
    for profile_id, found in page:
        yield profile_id, [(mark, record_from_plain(plain)) for mark, plain in found]


def received(source: IO[bytes]) -> FullPass:
    """Return what the frames up to the empty one hold: pages of profiles with their records."""
    found = FullPass()
    while page := read_frame(source):
        for profile_id, records in records_of(orjson.loads(page)):
            found.add(profile_id, records)
    return found


def ending(told: Mapping[str, Any]) -> bytes:
    """Return the last frame, with the memory that this process took."""
    return orjson.dumps({**told, "kind": END, "kilobytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss})


def as_child(main: Callable[[], None]) -> None:
    """Run, and end with a fault and without words when whoever asked is gone."""
    try:
        main()
    except (EOFError, BrokenPipeError):
        sys.exit(1)


def main() -> None:
    """Serve one pass over the pipe."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    model = model_from_json(read_frame(source).decode())
    for item in received(source).differences(model):
        write_frame(sink, ending(item) if item["kind"] == END else orjson.dumps(item))
    sink.flush()


if __name__ == "__main__":
    as_child(main)
