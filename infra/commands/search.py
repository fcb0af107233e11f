"""`kehu search`."""

import typer

app = typer.Typer()


def search() -> None: ...
