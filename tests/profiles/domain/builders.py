"""Short ways to make the domain's values in tests."""

from datetime import UTC, datetime

from services.profiles.domain.sources import ColumnMapping, SourceSettings
from services.profiles.domain.standardize import standardize
from services.profiles.domain.values import RawRecord, StandardRecord

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
FIELDS = ("name", "phone", "email", "gender", "birth_date", "resident_id", "address")
RESIDENT_ID = "110105199001023014"
OTHER_RESIDENT_ID = "330106198505062028"


def source(source_id: str = "till", *, trust_rank: int = 10, date_order: str = "ymd", is_unique: bool = False):
    mapping = tuple(ColumnMapping(name, name) for name in ("source_record_id", "updated_time", *FIELDS))
    return SourceSettings(source_id, mapping, date_order, trust_rank, "sales", is_unique=is_unique)


def record(key: str = "1", *, source_id: str = "till", at: datetime = NOW, **fields: str) -> StandardRecord:
    settings = {name: fields.pop(name) for name in ("trust_rank", "date_order", "is_unique") if name in fields}
    return standardize(RawRecord(source_id, key, at, fields), source(source_id, **settings))
