"""`kehu policy`: read, check and change the access policy, through the gateway's API, as the administrator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.commands.options import DEFAULT_DATA, Data, fail, new_table, signing_in

if TYPE_CHECKING:
    from gateway.client import Json, KehuClient

app = typer.Typer(no_args_is_help=True)
CONTENT = ("comment", "model", "rules", "role_links", "row_filters", "tests")
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A policy as `show` writes it.")]


def _read(file: Path) -> Json:
    """Return the content of a policy file, or end with what is wrong."""
    try:
        document = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        fail(f"{file} is no JSON: {error}")
    if not isinstance(document, dict):
        fail(f"{file} must hold one JSON object, as `kehu policy show` writes it")
    return {name: document[name] for name in CONTENT if name in document}


def _draft(client: KehuClient, file: Path) -> str:
    """Draft a revision from the file and return its id, or end with the faults found in it."""
    from gateway.client import entries

    drafted = client.post("/v1/policies", _read(file))
    policy_id = str(drafted["name"]).removeprefix("policies/")
    checked = client.post(f"/v1/policies/{policy_id}:validate")
    if not checked.get("valid"):
        fail("\n".join(f"{fault.get('field')}: {fault.get('description')}" for fault in entries(checked, "faults")))
    return policy_id


@app.command("list")
def list_policies(data: Data = DEFAULT_DATA) -> None:
    """Show the revisions."""
    from rich.console import Console

    table = new_table("policy", "version", "state", "author", "comment")
    with signing_in(data) as sign_ins:
        for policy in sign_ins.administrator().items("/v1/policies", "policies"):
            state = str(policy.get("state", "")).removeprefix("POLICY_STATE_").lower()
            row = (policy.get(name, "") for name in ("author", "comment"))
            table.add_row(str(policy["name"]), str(policy.get("version", "")), state, *map(str, row))
    Console().print(table)


@app.command()
def show(policy: Annotated[str, typer.Argument(help="Its id.")] = "current", data: Data = DEFAULT_DATA) -> None:
    """Print a revision as JSON: save it, edit it, apply it."""
    with signing_in(data) as sign_ins:
        document = sign_ins.administrator().get(f"/v1/policies/{policy}")
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


@app.command()
def validate(file: File, data: Data = DEFAULT_DATA) -> None:
    """Check a policy file; nothing changes but for a draft that is kept."""
    with signing_in(data) as sign_ins:
        policy_id = _draft(sign_ins.administrator(), file)
    typer.echo(f"valid; kept as draft {policy_id}")


@app.command()
def apply(file: File, data: Data = DEFAULT_DATA) -> None:
    """Check a policy file, submit it and approve it: in force everywhere within seconds."""
    with signing_in(data) as sign_ins:
        client = sign_ins.administrator()
        policy_id = _draft(client, file)
        client.post(f"/v1/policies/{policy_id}:submit")
        approved = client.post(f"/v1/policies/{policy_id}:approve")
    typer.echo(f"version {approved.get('version')} is in force")
