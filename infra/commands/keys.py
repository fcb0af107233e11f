"""`kehu keys`: the key files of services: see them, add a key, destroy one that nothing needs any more."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from infra.commands.options import DEFAULT_DATA, Data, MongoUri, fail, mongo_address, new_table

app = typer.Typer(no_args_is_help=True)
CHANGED = ("events", "search", "uploads", "analytics", "tickets")  # what these seal is written anew or short-lived
NOTICED_SECONDS = 3.0  # after which every process has noticed a new key
Name = Annotated[str, typer.Argument(help=f"One of {', '.join(CHANGED)}.")]
KeysDir = Annotated[Path | None, typer.Option(help="The folder, in place of a local stack's.", envvar="KEHU_KEYS_DIR")]


def _folder(data: Path, keys_dir: Path | None, name: str = "") -> Path:
    if name and name not in CHANGED:
        fail(f"{name} is not changed here, only {', '.join(CHANGED)}; see docs/protection.md")
    folder = keys_dir or data / "keys"
    if not folder.is_dir():
        fail(f"there is no folder {folder}: give --data or --keys-dir")
    return folder


@app.command("list")
def list_keys(data: Data = DEFAULT_DATA, keys_dir: KeysDir = None) -> None:
    """Show the ids of keys, the one that seals last; never a key."""
    from rich.console import Console

    from services.chassis.crypto import read_keys

    folder = _folder(data, keys_dir)
    table = new_table("file", "keys, the newest last")
    for name in (name for name in CHANGED if (folder / f"{name}.key").exists()):
        table.add_row(name, " ".join(key.key_id.hex() for key in read_keys(name, folder)))
    Console().print(table)


@app.command("add")
def add(name: Name, data: Data = DEFAULT_DATA, keys_dir: KeysDir = None) -> None:
    """Add a key, which seals from now on; the others go on opening what they sealed."""
    from services.chassis.crypto import add_key

    typer.echo(f"{name} seals with {add_key(name, _folder(data, keys_dir, name)).key_id.hex()}")


@app.command("remove")
def remove(
    name: Name,
    key_id: Annotated[str, typer.Argument(help="As `kehu keys list` shows it.")],
    data: Data = DEFAULT_DATA,
    keys_dir: KeysDir = None,
    mongo_uri: MongoUri = "",
) -> None:
    """Destroy a key for ever: what it sealed, in backups too, opens no more. Tickets are sealed anew before."""
    from services.chassis.crypto import SealBroken, read_keys, remove_key

    folder = _folder(data, keys_dir, name)
    try:
        if key_id not in [key.key_id.hex() for key in read_keys(name, folder)]:
            fail(f"{name}.key has no key {key_id}; see `kehu keys list`")
        if name == "tickets":
            _reseal_tickets(folder, mongo_address(data, mongo_uri))
        remove_key(name, folder, bytes.fromhex(key_id))
    except SealBroken as error:
        fail(str(error))
    typer.echo(f"{key_id} of {name} is destroyed")


def _reseal_tickets(folder: Path, mongo_uri: str) -> None:
    from services.chassis import records
    from services.chassis.config import load_config
    from services.chassis.crypto import Sealer
    from services.chassis.errors import Unavailable
    from services.tickets.store.resealing import reseal

    config = load_config({"KEHU_MONGO_URI": mongo_uri, "KEHU_AMQP_URI": "not-used"})
    time.sleep(NOTICED_SECONDS)
    try:
        records.connect(config, "tickets")
        typer.echo(f"{reseal(Sealer('tickets', folder))} tickets and comments sealed anew")
    except Unavailable as error:
        fail(f"{error}: is the stack up? Nothing was destroyed")
