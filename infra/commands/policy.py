"""`kehu policy`: read, check and change the access policy, through the gateway's API, as the administrator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.commands.options import DEFAULT_DATA, Data, fail, new_table

if TYPE_CHECKING:
    from infra.api import Json, Session

app = typer.Typer(no_args_is_help=True)
CONTENT = ("comment", "model", "rules", "role_links", "row_filters")
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A policy as `show` writes it.")]


def _session(data: Path) -> Session:
    from infra.api import SignIns

    if not (data / "credentials.json").exists():
        fail(f"no stack was started in {data}: run `kehu up --data {data}`")
    return SignIns(data / "credentials.json").administrator()


def _read(file: Path) -> Json:
    """Return the content of a policy file, or end with what is wrong."""
    try:
        document = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        fail(f"{file} is no JSON: {error}")
    if not isinstance(document, dict):
        fail(f"{file} must hold one JSON object, as `kehu policy show` writes it")
    return {name: document[name] for name in CONTENT if name in document}


def _draft(session: Session, file: Path) -> tuple[str, Json]:
    """Draft a revision from the file; return its id and the faults found in it."""
    drafted = session.post("/v1/policies", _read(file))
    policy_id = str(drafted["name"]).removeprefix("policies/")
    return policy_id, session.post(f"/v1/policies/{policy_id}:validate")


@app.command("list")
def list_policies(data: Data = DEFAULT_DATA) -> None:
    """Show the revisions."""
    from rich.console import Console

    from infra.api import ApiError

    table = new_table("policy", "version", "state", "author", "comment")
    try:
        for policy in _session(data).pages("/v1/policies", "policies"):
            state = str(policy.get("state", "")).removeprefix("POLICY_STATE_").lower()
            row = (policy.get(name, "") for name in ("author", "comment"))
            table.add_row(str(policy["name"]), str(policy.get("version", "")), state, *map(str, row))
    except ApiError as error:
        fail(str(error))
    Console().print(table)


@app.command()
def show(policy: Annotated[str, typer.Argument(help="Its id.")] = "current", data: Data = DEFAULT_DATA) -> None:
    """Print a revision as JSON: save it, edit it, apply it."""
    from infra.api import ApiError

    try:
        document = _session(data).get(f"/v1/policies/{policy}")
    except ApiError as error:
        fail(str(error))
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


@app.command()
def validate(file: File, data: Data = DEFAULT_DATA) -> None:
    """Check a policy file; nothing changes but for a draft that is kept."""
    from infra.api import ApiError

    try:
        policy_id, checked = _draft(_session(data), file)
    except ApiError as error:
        fail(str(error))
    _tell_faults(checked)
    typer.echo(f"valid; kept as draft {policy_id}")


@app.command()
def apply(file: File, data: Data = DEFAULT_DATA) -> None:
    """Check a policy file, submit it and approve it: in force everywhere within seconds."""
    from infra.api import ApiError

    session = _session(data)
    try:
        policy_id, checked = _draft(session, file)
        _tell_faults(checked)
        session.post(f"/v1/policies/{policy_id}:submit")
        approved = session.post(f"/v1/policies/{policy_id}:approve")
    except ApiError as error:
        fail(str(error))
    typer.echo(f"version {approved.get('version')} is in force")


def _tell_faults(checked: Json) -> None:
    """End with the faults, if there are any."""
    from infra.api import entries

    if not checked.get("valid"):
        fail("\n".join(f"{fault.get('field')}: {fault.get('description')}" for fault in entries(checked, "faults")))
