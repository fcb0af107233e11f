"""Read the rows of a file of records, one after the other, whatever its format, in bounded memory.

`open_rows(file, options)` tells the format, refuses what is packed, and returns the columns and an iterator of
`Row`; a row that cannot be read carries a fault code instead of values, and the reading goes on.
"""

from services.profiles.intake.formats import FileOptions, RowSource, open_rows
from services.profiles.intake.rows import FAULTS, FIELD_UNKNOWN, WHOLE_ROW, Row, describe_fault

__all__ = ["FAULTS", "FIELD_UNKNOWN", "WHOLE_ROW", "FileOptions", "Row", "RowSource", "describe_fault", "open_rows"]
