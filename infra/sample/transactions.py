"""The grocer's 1,469,307 transaction lines as a Parquet file for `interactions:import`."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.sample.journey import read_table

LAST_DAY_OF_DATA = date(2018, 1, 1)
_LOCAL_OFFSET = timedelta(hours=8)  # the tills' clocks are read as China Standard Time
_SECOND_CARD_EVERY = 3  # of three baskets of someone with two cards, one goes on the second
_COLUMNS = ["household_id", "store_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp"]


def write(path: Path, cards: Mapping[int, tuple[str, str]], reference_date: date) -> int:
    """Write the lines, shifted by whole days so that the last falls on the day before `reference_date`.

    Columns: message_id (unique), event_type "order_completed", source_id, source_record_id (the till's card),
    basket_id, event_time (UTC, µs), amount_cents, currency, quantity, category, department, store_id, channel.
    Returns the number of lines.
    """
    lines = read_table("transactions", _COLUMNS)
    products = read_table("products", ["product_id", "product_category", "department"])
    rows = pc.index_in(lines["product_id"], value_set=products["product_id"].combine_chunks())
    serial = pc.utf8_lpad(pc.cast(pa.array(range(lines.num_rows)), pa.string()), 7, "0")
    table = pa.table(
        {
            "message_id": pc.binary_join_element_wise("till", serial, "-"),
            "event_type": _constant("order_completed", lines),
            "source_id": _constant("till", lines),
            "source_record_id": _cards(lines, cards),
            "basket_id": pc.cast(lines["basket_id"], pa.string()),
            "event_time": _shifted(lines["transaction_timestamp"], reference_date),
            "amount_cents": pc.cast(pc.round(pc.multiply(lines["sales_value"], 100.0)), pa.int64()),
            "currency": _constant("CNY", lines),
            "quantity": pc.cast(lines["quantity"], pa.int32()),
            "category": _looked_up(products["product_category"], rows),
            "department": _looked_up(products["department"], rows),
            "store_id": pc.dictionary_encode(pc.cast(lines["store_id"], pa.string())),
            "channel": _constant("store", lines),
        }
    )
    pq.write_table(table, path, compression="zstd", row_group_size=200_000)
    return int(table.num_rows)


def _constant(text: str, lines: pa.Table) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int8()), lines.num_rows), pa.array([text]))


def _looked_up(values: pa.ChunkedArray, rows: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the product's value for each line; products without one have the empty category."""
    return pc.dictionary_encode(pc.fill_null(pc.take(values, rows), ""))


def _cards(lines: pa.Table, cards: Mapping[int, tuple[str, str]]) -> pa.ChunkedArray:
    households = pa.array(list(cards), pa.int64())
    rows = pc.index_in(lines["household_id"], value_set=households)
    first, second = (pc.take(pa.array([pair[which] for pair in cards.values()]), rows) for which in (0, 1))
    basket = lines["basket_id"]
    remainder = pc.subtract(basket, pc.multiply(pc.divide(basket, _SECOND_CARD_EVERY), _SECOND_CARD_EVERY))
    return pc.dictionary_encode(pc.if_else(pc.equal(remainder, 0), second, first))


def _shifted(times: pa.ChunkedArray, reference_date: date) -> pa.ChunkedArray:
    shift = timedelta(days=(reference_date - timedelta(days=1) - LAST_DAY_OF_DATA).days) - _LOCAL_OFFSET
    local = pc.cast(times, pa.timestamp("us"), safe=False)
    moved = pc.add(local, pa.scalar(shift, pa.duration("us")))
    return pc.cast(moved, pa.timestamp("us", tz="UTC"))
