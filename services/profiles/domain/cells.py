"""Cells that no spreadsheet executes (OWASP, CSV injection; CWE-1236), and back again."""

from __future__ import annotations

import re

MARK = "'"
# what a spreadsheet may begin a formula with, full-width forms too, after whatever it skips
_LIVE = re.compile(r"[\s\u200b-\u200f\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n'\u2019]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # no workbook can hold them


def dead(value: str) -> str:
    """Return the value as text that begins no formula: marked by an apostrophe when it could."""
    return MARK + value if _LIVE.match(value) else value


def alive(cell: str) -> str:
    """Return what `dead` was given."""
    return cell[1:] if cell.startswith(MARK) else cell


def without_controls(value: str) -> str:
    """Return the value without the characters that no workbook can hold."""
    return _CONTROLS.sub("", value)
