"""`kehu search`: find customers and tickets, as a department sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from infra.commands.options import DEFAULT_DATA, Data, fail, new_table, shown, signing_in

if TYPE_CHECKING:
    from kehu.search.v1.search_pb2 import Hit

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

    if department not in PURPOSES:
        fail(f"no such department: {department}; there are {', '.join(PURPOSES)}")
    why = "" if purpose == "-" else purpose or PURPOSES[department]
    with signing_in(data) as sign_ins:
        found = sign_ins.department(department, why).search.search(q=query, page_size=limit).first
    title = f"{found.total_size} hits as {department}, {why or 'no purpose'}"
    table = new_table("name", "shown", "phone or number", "department", title=title)
    for hit in found.hits:
        table.add_row(*shown(*_row(hit)))
    Console().print(table)
    if found.groups_not_searched:
        typer.echo(f"not searched, for want of the right: {', '.join(found.groups_not_searched)}")


def _row(hit: Hit) -> tuple[str, str, str, str]:
    if hit.HasField("ticket"):
        return hit.name, hit.ticket.subject, hit.ticket.number, hit.ticket.department
    return hit.name, hit.profile.display_name, next(iter(hit.profile.phones), ""), hit.profile.owner_department
