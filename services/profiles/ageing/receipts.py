"""Receipts of retention: numbered, chained, sealed, and able to prove one item without showing another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from google.protobuf import json_format
from kehu.profiles.v1 import retention_pb2 as pb

from services.chassis.errors import AlreadyExists
from services.profiles.domain import merkle
from services.profiles.errors import ReceiptNotFound
from services.profiles.store import Store
from services.profiles.values import LeafPage, StoredReceipt
from services.profiles.vault import Vault

DIGITS = 8
PAGES_AT_ONCE = 100


class Receipts:
    """Writes and reads the receipts of one store; nothing here changes or removes one."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def add_items(self, run: str, part: int, items: Sequence[str]) -> None:
        """Keep the hashes of what a part of a run took; a repeat changes nothing."""
        if items:
            hashes = b"".join(self._leaf(run, item) for item in items)
            self._store.leaves.add_missing([LeafPage(f"{run}/{part:08d}", run, hashes)])

    def issue(self, run: str, start: datetime, counts: Sequence[pb.RetentionCount]) -> StoredReceipt:
        """Write the receipt of a run that has ended; a repeat returns the first."""
        tree = merkle.trace(self._leaves(run), b"")
        while True:
            if found := self._store.receipts.page({"run": run}, "", 1):
                return found[0]
            last = self._last()
            number = int(last.id) + 1 if last else 1
            receipt = pb.RetentionReceipt(
                name=f"retentionReceipts/{number:0{DIGITS}d}", run=run, counts=counts, item_count=tree.count,
                merkle_root=tree.root.hex(), previous_seal=last.seal if last else "",
            )  # fmt: skip
            receipt.start_time.FromDatetime(start)
            receipt.end_time.FromDatetime(datetime.now(UTC))
            content = json_format.MessageToJson(receipt, indent=None, ensure_ascii=False, sort_keys=True)
            made = StoredReceipt(f"{number:0{DIGITS}d}", run, content, self._vault.receipt_seal(content))
            try:
                return self._store.receipts.insert(made)
            except AlreadyExists:
                continue  # another run ended at the same moment and has this number

    def message(self, stored: StoredReceipt) -> pb.RetentionReceipt:
        """Return the message of a receipt, which says whether its seal fits."""
        receipt = json_format.Parse(stored.content, pb.RetentionReceipt())
        receipt.seal = stored.seal
        receipt.is_genuine = self._vault.receipt_seal(stored.content) == stored.seal
        return receipt

    def prove(self, name: str, item: str) -> pb.RetentionProof:
        """Return the way from an item to the root of a receipt.

        Raises:
            ReceiptNotFound: there is no such receipt, or the item is not among its items.
        """
        stored = self._store.receipts.get(name.rpartition("/")[2])
        if stored is None:
            raise ReceiptNotFound("there is no such receipt", metadata={"name": name})
        found = merkle.trace(self._leaves(stored.run), self._leaf(stored.run, item))
        if found.index < 0:
            raise ReceiptNotFound("the item is not among those of the receipt", metadata={"name": name})
        return pb.RetentionProof(
            item=item, nonce=self._vault.leaf_nonce(stored.run, item), leaf_index=found.index, item_count=found.count,
            path=[each.hex() for each in found.path], merkle_root=found.root.hex(),
        )  # fmt: skip

    def _leaf(self, run: str, item: str) -> bytes:
        return merkle.leaf_hash((self._vault.leaf_nonce(run, item) + item).encode())

    def _leaves(self, run: str) -> Iterator[bytes]:
        after, size = "", merkle.HASH_BYTES
        while pages := self._store.leaves.page({"run": run}, after, PAGES_AT_ONCE):
            after = pages[-1].id
            for page in pages:
                yield from (page.hashes[at : at + size] for at in range(0, len(page.hashes), size))

    def _last(self) -> StoredReceipt | None:
        """Return the newest receipt; numbers have no gaps, so it is found by halving."""
        if self._store.receipts.get(f"{1:0{DIGITS}d}") is None:
            return None
        low, high = 1, 2
        while self._store.receipts.get(f"{high:0{DIGITS}d}") is not None:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._store.receipts.get(f"{middle:0{DIGITS}d}") else (low, middle)
        return self._store.receipts.get(f"{low:0{DIGITS}d}")
