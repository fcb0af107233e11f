"""Merkle trees as RFC 9162 section 2.1 has them: one root stands for a list, a short path proves one entry of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
_Node = tuple[int, bytes, bool]  # height, hash, whether the wanted leaf is in it


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry; its first byte keeps it apart from every inner node."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a leaf stands among how many, -1 for nowhere; the hashes that lead from it up to the root; the root."""

    index: int
    count: int
    path: Sequence[bytes]
    root: bytes


def trace(leaves: Iterable[bytes], wanted: bytes) -> Trace:
    """Find a leaf among the hashes of entries, read once; memory grows with the logarithm of their number."""
    peaks: list[_Node] = []  # whole trees, the tallest first
    path: list[bytes] = []
    index, count = -1, 0
    for leaf in leaves:
        is_wanted = index < 0 and leaf == wanted
        if is_wanted:
            index = count
        count, node = count + 1, (0, leaf, is_wanted)
        while peaks and peaks[-1][0] == node[0]:
            node = _joined(peaks.pop(), node, path)
        peaks.append(node)
    if not peaks:
        return Trace(-1, 0, (), hashlib.sha256().digest())
    node = peaks.pop()
    while peaks:
        node = _joined(peaks.pop(), node, path)
    return Trace(index, count, path, node[1])


def _joined(left: _Node, right: _Node, path: list[bytes]) -> _Node:
    """Return the tree of two, noting the other one's hash where the wanted leaf is in one."""
    if left[2] or right[2]:
        path.append(right[1] if left[2] else left[1])
    return left[0] + 1, node_hash(left[1], right[1]), left[2] or right[2]


def root_by_path(leaf: bytes, index: int, count: int, hashes: Sequence[bytes]) -> bytes:
    """Return the root that a path leads to: what whoever checks a proof computes.

    Raises:
        ValueError: the path is not as long as the place in the tree asks.
    """
    if count == 1:
        if hashes or index:
            raise ValueError("a path of this length belongs to another place")
        return leaf
    if not hashes or not 0 <= index < count:
        raise ValueError("a path of this length belongs to another place")
    split, *below = _split(count), *hashes[:-1]
    if index < split:
        return node_hash(root_by_path(leaf, index, split, below), hashes[-1])
    return node_hash(hashes[-1], root_by_path(leaf, index - split, count - split, below))


def _split(count: int) -> int:
    """Return the largest power of two below a count above 1."""
    return 1 << (count - 1).bit_length() - 1
