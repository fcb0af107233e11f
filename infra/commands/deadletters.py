"""`kehu deadletters`: see what was parked, and put it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from infra.commands.options import DEFAULT_DATA, Data, fail, new_table, shown

if TYPE_CHECKING:
    from services.chassis.consuming.deadletters import DeadLetter

app = typer.Typer(no_args_is_help=True)
AmqpUri = Annotated[str, typer.Option(help="A broker's address, in place of a local stack's.", envvar="KEHU_AMQP_URI")]
Queue = Annotated[str, typer.Option(help="Only this queue.")]
EventId = Annotated[str, typer.Option(help="Only the event with this id.")]


def _broker(data: Path, amqp_uri: str) -> str:
    from infra.stack import StackError, read_running

    try:
        return amqp_uri or read_running(data).environment["KEHU_AMQP_URI"]
    except StackError as error:
        fail(str(error))


def _away(error: OSError) -> NoReturn:
    fail(f"the broker does not answer ({type(error).__name__}): is the stack up?")


@app.command("list")
def list_letters(data: Data = DEFAULT_DATA, amqp_uri: AmqpUri = "", limit: int = 100) -> None:
    """Show parked events: queue, what, why, when; never their content."""
    from rich.console import Console

    from services.chassis.consuming.deadletters import list_dead

    try:
        letters = list_dead(_broker(data, amqp_uri), limit=limit)
    except OSError as error:
        _away(error)
    table = new_table("queue", "event", "about", "error", "tries", "parked", title=f"{len(letters)} parked events")
    for letter in letters:
        tries = str(letter.attempts)
        table.add_row(*shown(letter.queue, letter.event_id, letter.subject, letter.error, tries, letter.parked_at))
    Console(soft_wrap=True).print(table)


@app.command("replay")
def replay_letters(
    data: Data = DEFAULT_DATA, amqp_uri: AmqpUri = "", queue: Queue = "", event_id: EventId = ""
) -> None:
    """Put parked events back into their queues; handling one twice is harmless."""
    from services.chassis.consuming.deadletters import replay

    def chosen(letter: DeadLetter) -> bool:
        return queue in ("", letter.queue) and event_id in ("", letter.event_id)

    try:
        count = replay(_broker(data, amqp_uri), chosen)
    except OSError as error:
        _away(error)
    typer.echo(f"{count} events put back")
