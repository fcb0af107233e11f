"""`kehu erasures`: tell services whose backup was restored who was erased since it was made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from infra.commands.options import DEFAULT_DATA, Data, MongoUri, fail, mongo_address

app = typer.Typer(no_args_is_help=True)
Since = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The day before the backup was made, UTC.")]


@app.callback()
def erasures() -> None:
    """Erasures of people, and backups."""


@app.command("retell")
def tell_again(since: Since, data: Data = DEFAULT_DATA, mongo_uri: MongoUri = "") -> None:
    """Tell all services again who was erased since; may be repeated."""
    from services.chassis import records
    from services.chassis.config import load_config
    from services.chassis.errors import Unavailable
    from services.chassis.jobs import Jobs
    from services.profiles.protection.erasing import retell
    from services.profiles.store import MongoStore

    try:
        uri = mongo_address(data, mongo_uri)
        records.connect(load_config({"KEHU_MONGO_URI": uri, "KEHU_AMQP_URI": "not-used"}), "profiles")
        told = retell(MongoStore(), Jobs("profiles"), since.replace(tzinfo=UTC))
    except Unavailable as error:
        fail(f"{error}: is the stack up?")
    typer.echo(f"{told} erasures are told again")
