"""What the commands share: the stack's folder, and how they say that something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from infra.api import SignIns

PATIENCE_SECONDS = 10.0
DEFAULT_DATA = Path("data")
Data = Annotated[Path, typer.Option("--data", help="The stack's folder.", envvar="KEHU_STACK")]
MongoUri = Annotated[str, typer.Option(help="A database, in place of a local stack's.", envvar="KEHU_MONGO_URI")]


def fail(message: str) -> NoReturn:
    """Say what is wrong and end with code 1."""
    typer.secho(message, fg=typer.colors.RED, err=True)
    raise typer.Exit(1)


def mongo_address(data: Path, mongo_uri: str) -> str:
    """Return the address that was given, or a local stack's."""
    from infra.stack import StackError, read_running

    try:
        return mongo_uri or read_running(data).environment["KEHU_MONGO_URI"]
    except StackError as error:
        fail(str(error))


@contextmanager
def signing_in(data: Path) -> Iterator[SignIns]:
    """Give the ways into the stack's gateway; end with what it refuses."""
    from kehu.client import NO_ANSWER, KehuProblem

    from infra.api import SignIns

    credentials = data / "credentials.json"
    if not credentials.exists():
        fail(f"no stack was started in {data}: run `kehu up --data {data}`")
    try:
        yield SignIns(credentials, PATIENCE_SECONDS)
    except KehuProblem as problem:
        fail(f"{problem}; is the stack up?" if problem.status == NO_ANSWER else str(problem))


def new_table(*columns: str, title: str = "") -> Table:
    """Return a table that folds what is too long: an id cut short is of no use."""
    from rich.table import Column, Table

    return Table(*(Column(name, overflow="fold") for name in columns), title=title or None)


def shown(*cells: str) -> list[Text]:
    """Return cells of a table as they were written: no markup of ours, and nothing that a terminal would obey."""
    from rich.text import Text

    return [Text("".join(char if char.isprintable() else "\ufffd" for char in cell)) for cell in cells]
