"""`kehu audit`: take the trail out as a file that proves itself, and verify such a file with no server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from infra.commands.options import DEFAULT_DATA, Data, fail, signing_in

app = typer.Typer(no_args_is_help=True)
BLOCK = ("sequence", "batch_id", "lines", "previous", "hash", "signature")


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="Where to write it; must not be there yet.")],
    first: Annotated[int, typer.Option(min=0, help="The first block; 0 is the oldest kept.")] = 0,
    last: Annotated[int, typer.Option(min=0, help="The last block; 0 is the newest.")] = 0,
    data: Data = DEFAULT_DATA,
) -> None:
    """Write blocks, checkpoints and public keys to a file, for `kehu audit verify`."""
    from google.protobuf.json_format import MessageToDict

    from services.access.domain.proof import block_line, checkpoint_line, header

    blocks = 0
    with signing_in(data) as sign_ins, _new(file) as out, sign_ins.administrator() as client:
        following, size = first, 0
        while following or not size:
            page = client.access.export_audit_blocks(first_block=following, last_block=last)
            if not size:
                size += out.write(header(page.block_key, page.checkpoint_key) + b"\n")
            for block in page.blocks:
                raw = MessageToDict(block, preserving_proto_field_name=True)
                size += out.write(block_line({name: raw.get(name, "") for name in BLOCK}) + b"\n")
            for document in page.checkpoints:
                size += out.write(checkpoint_line(document) + b"\n")
            blocks += len(page.blocks)
            following = page.next_block
    typer.echo(f"{blocks} blocks in {file}")


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file that `export` wrote.")],
    key: Annotated[str, typer.Option(help="The checkpoints' public key as you noted it down, hexadecimal.")] = "",
) -> None:
    """Verify a file without any server; ends with 1 when something does not fit."""
    from services.access.domain.proof import NoProof, prove

    try:
        with file.open("rb") as lines:
            found = prove(lines)
    except NoProof as error:
        fail(f"{file}: {error}")
    if key and key.lower() != found.checkpoint_key:
        fail("the checkpoints are signed by another key than the one you noted down")
    if found.fault:
        fail(found.fault)
    if key and not found.covered_to:
        fail("no checkpoint covers these blocks: nothing here is signed by the key you noted down; export later ones")
    typer.echo(f"blocks {found.first_block} to {found.last_block} fit: {found.entries} entries")
    if found.covered_to:
        typer.echo(f"a checkpoint of {found.covered_at} covers them to block {found.covered_to}")
    else:
        typer.echo("no checkpoint covers them: they are signed by the key of the blocks alone")
    if not key:
        typer.echo(f"signed by {found.checkpoint_key}: compare it with the key you noted down, or give --key")


@contextmanager
def _new(file: Path) -> Iterator[BinaryIO]:
    """Give a file that its owner alone may read; a trail that was cut is not left: it would look like a whole one."""
    try:
        out = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError:
        fail(f"{file} is there already: choose another name")
    try:
        with out:
            yield out
    except BaseException:
        file.unlink(missing_ok=True)
        raise
