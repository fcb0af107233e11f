"""Read a steward's word on one field as the text of a source is read."""

from datetime import datetime

from services.profiles.domain.golden import MANUAL_SOURCE, extract_of
from services.profiles.domain.sources import SourceSettings
from services.profiles.domain.standardize import standardize
from services.profiles.domain.values import ManualOverride, RawRecord

NOT_ONE_VALUE = "NOT_ONE_VALUE"
DERIVED = frozenset(("title", "province_code", "city_code", "district_code"))  # these come with name and address


def read_override(
    field: str, text: str, set_by: str, time: datetime, reason: str, expire_time: datetime
) -> ManualOverride | str:
    """Return the override with its value in standard form, or the code that says why the text is no value of the field.

    Whatever would be a mere warning in a source's record is refused here: a steward can write it rightly.
    """
    department = text.strip() if field == "owner_department" else ""
    settings = SourceSettings(MANUAL_SOURCE, (), owner_department=department)
    record = standardize(RawRecord(MANUAL_SOURCE, set_by, time, {field: text}), settings)
    faults = [item.reason for item in record.problems if item.field == field]
    values = [value for value, _ in extract_of(field)(record)]
    if faults or len(values) != 1 or field in DERIVED:
        return faults[0] if faults else NOT_ONE_VALUE
    return ManualOverride(field, values[0], record, reason, expire_time)
