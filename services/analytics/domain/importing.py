"""What an imported file must look like, and the statements that turn its rows into interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.analytics.domain.errors import UnreadableInteractionFile

REQUIRED: Final = ("source_record_id", "message_id", "event_time")
AMOUNTS: Final = ("amount_cents", "amount")  # one of them
OPTIONAL: Final = ("event_type", "channel", "category", "basket_id", "product_id", "quantity")
COLUMNS: Final = (*REQUIRED, *AMOUNTS, *OPTIONAL)
UNMATCHED: Final = "UNMATCHED_SOURCE_RECORD"
WRONG_COLUMN_COUNT: Final = "WRONG_COLUMN_COUNT"
DEFAULT_EVENT_TYPE: Final = "order_completed"


@dataclass(frozen=True, slots=True)
class FileOptions:
    """How a file is to be read: `renames` is their column name → ours."""

    source_id: str
    event_type: str
    channel: str
    renames: Mapping[str, str]
    offset_minutes: int


def parse_renames(text: str) -> dict[str, str]:
    """Return "theirs=ours,…" as a mapping.

    Raises:
        UnreadableInteractionFile: a part has no =, or names a column of ours that does not exist or comes twice.
    """
    renames: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        theirs, separator, ours = part.rpartition("=")
        if not separator or not theirs or ours not in COLUMNS or ours in renames.values():
            raise UnreadableInteractionFile(
                "columns must be their_name=our_name with commas between, ours each once of: " + ", ".join(COLUMNS)
            )
        renames[theirs] = ours
    return renames


def parse_offset(text: str) -> int:
    """Return "+08:00" as minutes; empty is China Standard Time."""
    text = text or "+08:00"
    minutes = int(text[1:3]) * 60 + int(text[4:6])
    return -minutes if text[0] == "-" else minutes


def columns_of(names: Sequence[str], options: FileOptions) -> dict[str, str]:
    """Return our column name → the file's, for the columns of a file that are ours.

    Raises:
        UnreadableInteractionFile: a required column is missing; metadata says which.
    """
    ours = {options.renames.get(name, name): name for name in names}
    missing = [name for name in REQUIRED if name not in ours]
    if not any(name in ours for name in AMOUNTS):
        missing.append("amount")
    if missing:
        raise UnreadableInteractionFile(
            "the file lacks required columns; rename yours with `columns`",
            metadata={"missing_columns": ",".join(missing)},
        )
    return {name: ours[name] for name in COLUMNS if name in ours}


def normalizing_sql(columns: Mapping[str, str]) -> str:
    """Return the statement that reads `incoming` (our columns as they are in the file) with a reason where unfit.

    Parameters: $offset (minutes), $event_type, $channel, $earliest, $latest. `incoming` has row_number.
    A time without zone is local time at $offset; amounts of currency units are rounded to the cent, half away from 0.
    """
    text = {name: _text(name, columns) for name in (*REQUIRED, *OPTIONAL)}
    return f"""
        WITH raw AS (
            SELECT row_number, {text["source_record_id"]} AS source_record_id, {text["message_id"]} AS message_id,
                {_time(columns)} AS event_time, {text["event_time"]} AS raw_time,
                {_amount(columns)} AS amount_cents, {_text(_amount_column(columns), columns)} AS raw_amount,
                coalesce({text["event_type"]}, $event_type) AS event_type,
                coalesce({text["channel"]}, $channel) AS channel, {text["category"]} AS category,
                {text["basket_id"]} AS basket_id, {text["product_id"]} AS product_id,
                coalesce(TRY_CAST({text["quantity"]} AS DOUBLE), 1) AS quantity
            FROM incoming)
        SELECT row_number, source_record_id, message_id, event_type, event_time, amount_cents,
            nullif(channel, '') AS channel, category, basket_id, product_id,
            CASE WHEN abs(quantity) <= 1000000 THEN round(quantity)::INTEGER ELSE 0 END AS quantity,
            strftime(make_timestamp(epoch_us(event_time)), '%Y-%m') AS month, {_REASON} AS reason
        FROM raw"""


_REASON: Final = """
    CASE WHEN source_record_id IS NULL OR message_id IS NULL OR raw_time IS NULL OR raw_amount IS NULL
            THEN 'MISSING_VALUE'
        WHEN event_time IS NULL OR event_time < $earliest OR event_time > $latest THEN 'INVALID_TIME'
        WHEN amount_cents IS NULL OR abs(amount_cents) > 100000000000 THEN 'INVALID_AMOUNT'
        WHEN NOT regexp_full_match(event_type, '[a-z][a-z0-9_]{0,63}') THEN 'INVALID_EVENT_TYPE'
        WHEN NOT regexp_full_match(message_id, '[A-Za-z0-9_.:/-]{1,128}')
            OR NOT regexp_full_match(coalesce(channel, ''), '[a-z0-9_]{0,32}')
            OR length(source_record_id) > 200 OR length(coalesce(category, '')) > 64
            OR NOT regexp_full_match(coalesce(basket_id, ''), '[A-Za-z0-9_.:/-]{0,64}')
            OR NOT regexp_full_match(coalesce(product_id, ''), '[A-Za-z0-9_.:/-]{0,64}')
            THEN 'INVALID_TEXT'
    END"""
# `incoming` is a normalized batch, `resolved` (source_record_id, profile_id, record) of those known.
MATCHED_SQL: Final = """
    SELECT message_id, profile_id, event_type, event_time, amount_cents, channel, category, basket_id, product_id,
        quantity, record, month
    FROM incoming JOIN resolved USING (source_record_id) WHERE reason IS NULL"""
APART_SQL: Final = f"""
    SELECT $operation AS operation, row_number, coalesce(reason, '{UNMATCHED}') AS reason, $now AS event_time
    FROM incoming i ANTI JOIN (
        SELECT row_number FROM incoming JOIN resolved USING (source_record_id) WHERE reason IS NULL
    ) m ON m.row_number = i.row_number"""


def _text(name: str, columns: Mapping[str, str]) -> str:
    """Return the trimmed text of a column, NULL when empty or not there."""
    return f"nullif(trim({name}::VARCHAR), '')" if name in columns else "NULL::VARCHAR"


def _amount_column(columns: Mapping[str, str]) -> str:
    return "amount_cents" if "amount_cents" in columns else "amount"


def _amount(columns: Mapping[str, str]) -> str:
    if "amount_cents" in columns:
        return "TRY_CAST(TRY_CAST(amount_cents AS DECIMAL(18,0)) AS BIGINT)"
    return "TRY_CAST(round(TRY_CAST(amount AS DECIMAL(18,4)) * 100) AS BIGINT)"


def _time(columns: Mapping[str, str]) -> str:
    """Return the time in UTC; what carries no zone is shifted by $offset, a zone by name but UTC makes it NULL."""
    text = "trim(event_time::VARCHAR)"
    cast = f"TRY_CAST({text} AS TIMESTAMPTZ)"
    zoned = rf"regexp_full_match({text}, '.*:.*[0-9](Z| UTC|[+-][0-9]{{2}}(:?[0-9]{{2}})?)')"
    local = rf"regexp_full_match({text}, '[0-9T /-]+(:[0-9:. ]+)?')"
    return f"CASE WHEN {zoned} THEN {cast} WHEN {local} THEN {cast} - to_minutes($offset) END"
