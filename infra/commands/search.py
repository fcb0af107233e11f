"""`kehu search`: find customers and tickets, as a department sees them."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.commands.options import DEFAULT_DATA, Data, fail, new_table, signing_in

Department = Annotated[str, typer.Option("--as", help="The department whose app asks.")]
Purpose = Annotated[str, typer.Option(help="X-Purpose; by default the department's own, '-' for none.")]
PURPOSES = {
    "marketing": "marketing",
    "service": "service",
    "sales": "sales",
    "analytics": "analysis",
    "data-office": "stewardship",
}


def search(
    query: Annotated[str, typer.Argument(help="Name, pinyin, initials, or the last digits of a phone.")],
    data: Data = DEFAULT_DATA,
    department: Department = "data-office",
    purpose: Purpose = "",
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
) -> None:
    """Search customers and tickets; what is shown depends on who asks and why."""
    from rich.console import Console

    from gateway.client import entries

    if department not in PURPOSES:
        fail(f"no such department: {department}; there are {', '.join(PURPOSES)}")
    why = "" if purpose == "-" else purpose or PURPOSES[department]
    with signing_in(data) as sign_ins:
        found = sign_ins.department(department, why).post("/v1/search", {"q": query, "page_size": limit})
    title = f"{found.get('total_size', 0)} hits as {department}, {why or 'no purpose'}"
    table = new_table("name", "shown", "phone or number", "department", title=title)
    for hit in entries(found, "hits"):
        table.add_row(*_row(hit))
    Console().print(table)
    hidden = found.get("groups_not_searched")
    if isinstance(hidden, list) and hidden:
        typer.echo(f"not searched, for want of the right: {', '.join(hidden)}")


def _row(hit: dict[str, object]) -> tuple[str, str, str, str]:
    name, profile, ticket = str(hit["name"]), hit.get("profile"), hit.get("ticket")
    if isinstance(profile, dict):
        phones = profile.get("phones") or [""]
        return name, profile.get("display_name", ""), phones[0], profile.get("owner_department", "")
    if isinstance(ticket, dict):
        return name, ticket.get("subject", ""), ticket.get("number", ""), ticket.get("department", "")
    return name, "", "", ""
