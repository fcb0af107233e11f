"""The `kehu` command line: start the platform, look at it, use it, mend it.

Every command imports what it needs itself, so that `kehu --help` and the start of each process stay quick.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from infra.commands import audit, deadletters, erasures, keys, mail, policy, search
from infra.commands.options import DEFAULT_DATA, Data, fail

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a log has one line per frame, and no boxes
    help="Kehu (客户): a customer-data middle office.",
)
app.add_typer(policy.app, name="policy", help="Access policies, through the gateway's API.")
app.add_typer(audit.app, name="audit", help="The audit trail, to prove it elsewhere.")
app.add_typer(deadletters.app, name="deadletters", help="Events that were parked after their tries.")
app.add_typer(erasures.app, name="erasures", help="Erasures of people, and backups.")
app.add_typer(keys.app, name="keys", help="The key files of services.")
app.command("search")(search.search)
app.command("mail")(mail.mail)


@app.command()
def up(
    data: Data = DEFAULT_DATA,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the gateway answers.")] = 8080,
    sample: Annotated[bool, typer.Option(help="Load the sample on the first start.")] = True,
) -> None:
    """Run the whole platform on this machine until Ctrl-C."""
    from rich.console import Console

    from infra.local import up as run_stack
    from infra.servers import MissingServer
    from infra.stack import StackError

    try:
        raise typer.Exit(run_stack(data, port, sample, Console(highlight=False, soft_wrap=True)))
    except (StackError, MissingServer) as error:
        fail(str(error))


def _services(names: list[str]) -> list[str]:
    from services.chassis.config import SERVICES

    unknown = [name for name in names if name not in SERVICES]
    if unknown:
        fail(f"no such service: {', '.join(unknown)}; there are {', '.join(SERVICES)}")
    return names or list(SERVICES)


@app.command()
def serve(service: Annotated[str, typer.Argument(help="Which one.")]) -> None:
    """Serve one service's RPCs; configured by KEHU_* variables."""
    from infra import process

    [name] = _services([service])
    process.serve(name)


@app.command()
def consume(services: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None) -> None:
    """Handle the events of the services named."""
    # eventlet must patch a process before anything else is imported: become one that begins with it
    os.execv(sys.executable, [sys.executable, "-m", "infra.consume", *_services(services or [])])


@app.command()
def work(services: Annotated[list[str] | None, typer.Argument(help="Default: all.")] = None) -> None:
    """Run the long jobs of the services named."""
    from infra import process

    process.work(_services(services or []))


@app.command()
def gateway() -> None:
    """Serve the HTTP API."""
    from infra import process

    process.gateway()


@app.command()
def status(data: Data = DEFAULT_DATA) -> None:
    """Show the processes of a stack, whether they are ready, and their memory."""
    from infra.commands.status import show_status
    from infra.stack import StackError

    try:
        raise typer.Exit(show_status(data))
    except StackError as error:
        fail(str(error))


@app.command()
def load(data: Data = DEFAULT_DATA) -> None:
    """Load the sample into a running stack, step by step; an interrupted load goes on where it was."""
    from infra.commands.load import load_sample
    from infra.stack import StackError

    try:
        load_sample(data)
    except StackError as error:
        fail(str(error))


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
