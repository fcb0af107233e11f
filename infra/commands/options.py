"""What the commands share: the stack's folder, and how they say that something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

DEFAULT_DATA = Path("data")
Data = Annotated[Path, typer.Option("--data", help="The stack's folder.", envvar="KEHU_STACK")]


def fail(message: str) -> NoReturn:
    """Say what is wrong and end with code 1."""
    typer.secho(message, fg=typer.colors.RED, err=True)
    raise typer.Exit(1)
