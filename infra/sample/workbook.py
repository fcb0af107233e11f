"""An Excel workbook whose bytes do not depend on the clock."""

import re
import zipfile
from io import BytesIO
from pathlib import Path

from openpyxl import Workbook

_FIXED = (2026, 10, 31, 20, 0, 0)
_STAMP = re.compile(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*(<)")


def write(path: Path, title: str, rows: list[dict[str, str]]) -> None:
    """Write rows under the columns of the first row, all cells as text."""
    book = Workbook(write_only=True)
    sheet = book.create_sheet(title)
    columns = list(rows[0])
    sheet.append(columns)
    for row in rows:
        sheet.append([row.get(column) or None for column in columns])
    buffer = BytesIO()
    book.save(buffer)
    with zipfile.ZipFile(buffer) as written, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as fixed:
        for name in written.namelist():
            content = written.read(name)
            if name == "docProps/core.xml":
                content = _STAMP.sub(rb"\g<1>2026-10-31T12:00:00Z\2", content)
            fixed.writestr(zipfile.ZipInfo(name, _FIXED), content, zipfile.ZIP_DEFLATED)
