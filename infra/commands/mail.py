"""`kehu mail`: read the mailbox of the local stack."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.commands.options import DEFAULT_DATA, Data, new_table, shown


def mail(
    data: Data = DEFAULT_DATA,
    last: Annotated[int, typer.Option(min=1, help="How many, newest last.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with the text.")] = False,
) -> None:
    """Show the mails that the platform has sent."""
    import json
    from collections import deque
    from dataclasses import asdict

    from infra.smtp_sink import read_mailbox

    mails = deque(read_mailbox(data / "mailbox"), maxlen=last)
    if as_json:
        for each in mails:
            typer.echo(json.dumps(asdict(each), ensure_ascii=False))
        return
    from rich.console import Console

    count = sum(1 for _ in (data / "mailbox").glob("*.eml"))
    table = new_table("to", "subject", "unsubscribe", title=f"{len(mails)} of {count} mails")
    for each in mails:
        table.add_row(*shown(each.recipient, each.subject, each.list_unsubscribe))
    Console(soft_wrap=True).print(table)
