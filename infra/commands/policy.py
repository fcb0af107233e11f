"""`kehu policy`."""

import typer

app = typer.Typer()


def search() -> None: ...
