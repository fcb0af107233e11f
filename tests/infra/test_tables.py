"""Tables of the command line: what others wrote stands there as it is, and does nothing."""

from __future__ import annotations

import io

import pytest
from kehu.search.v1.search_pb2 import Hit, TicketHit
from rich.console import Console

from infra.commands.options import new_table, shown
from infra.commands.search import _row

HOSTILE = ("退货[/退货]单", "[red]x[/red]", ":smile:", "\x1b]0;owned\x07\x1b[2Jx", "\u202eabc", "a\nb")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_customer_wrote_changes_neither_the_table_nor_the_terminal(text: str) -> None:
    out, table = io.StringIO(), new_table("name", "shown", "number", "department")
    table.add_row(*shown(*_row(Hit(name="tickets/1", ticket=TicketHit(subject=text)))))
    Console(file=out, force_terminal=True, width=200).print(table)
    line = next(each for each in out.getvalue().split("\n") if "tickets/1" in each)

    assert "".join(char if char.isprintable() else "\ufffd" for char in text) in line
    assert "\x1b]" not in line and "\x1b[2J" not in line
