"""Merkle trees as RFC 9162 section 2.1 has them: one root stands for a list, a short path proves one entry of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

HASH_BYTES = 32


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry; its first byte keeps it apart from every inner node."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Iterable[bytes]) -> bytes:
    """Return the root of the hashes of entries, read once; memory grows with the logarithm of their number."""
    peaks: list[tuple[int, bytes]] = []  # height and hash of whole trees, the tallest first
    for leaf in leaves:
        height, found = 0, leaf
        while peaks and peaks[-1][0] == height:
            height, found = height + 1, node_hash(peaks.pop()[1], found)
        peaks.append((height, found))
    if not peaks:
        return hashlib.sha256().digest()
    _, found = peaks.pop()
    while peaks:
        found = node_hash(peaks.pop()[1], found)
    return found


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes that lead from one leaf to the root, from the leaf up."""
    if len(leaves) <= 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*path(leaves[:split], index), root(leaves[split:])]
    return [*path(leaves[split:], index - split), root(leaves[:split])]


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
