"""`kehu audit export`: a trail is written whole, for its owner's eyes, or not at all."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from kehu.access.v1 import audit_pb2 as pb
from typer.testing import CliRunner

from infra.cli import app
from infra.commands import audit as command


def exported(monkeypatch: pytest.MonkeyPatch, file: Path, *pages: pb.ExportAuditBlocksResponse) -> int:
    """Run the command on these pages; a gateway that has no more is away."""
    left = list(pages)

    def export_audit_blocks(**_: object) -> pb.ExportAuditBlocksResponse:
        return left.pop(0) if left else command.fail("away")

    client = SimpleNamespace(access=SimpleNamespace(export_audit_blocks=export_audit_blocks))

    @contextmanager
    def signing_in(data: Path) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(administrator=lambda: nullcontext(client))

    monkeypatch.setattr(command, "signing_in", signing_in)
    return CliRunner().invoke(app, ["audit", "export", str(file)]).exit_code


def test_an_exported_trail_is_for_its_owner_alone_and_never_overwritten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "trail.jsonl"

    assert exported(monkeypatch, file, pb.ExportAuditBlocksResponse(blocks=[pb.AuditBlock(sequence=1)])) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    assert exported(monkeypatch, file, pb.ExportAuditBlocksResponse()) == 1
    assert file.read_bytes() == before


def test_a_trail_that_was_cut_is_not_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "trail.jsonl"

    assert exported(monkeypatch, file, pb.ExportAuditBlocksResponse(next_block=2)) == 1
    assert not file.exists()
