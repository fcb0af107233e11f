"""What the commands share: the stack's folder, and how they say that something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_DATA = Path("data")
Data = Annotated[Path, typer.Option("--data", help="The stack's folder.", envvar="KEHU_STACK")]


def fail(message: str) -> NoReturn:
    """Say what is wrong and end with code 1."""
    typer.secho(message, fg=typer.colors.RED, err=True)
    raise typer.Exit(1)


def new_table(*columns: str, title: str = "") -> Table:
    """Return a table that folds what is too long: an id cut short is of no use."""
    from rich.table import Column, Table

    return Table(*(Column(name, overflow="fold") for name in columns), title=title or None)
