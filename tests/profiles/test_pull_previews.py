"""Previews of pulls: what a place would bring, before anything is taken from it."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from kehu.profiles.v1 import intake_pb2, profiles_pb2_grpc

from services.chassis.errors import Exhausted
from services.profiles.errors import PullFailed
from services.profiles.intake.first_look import within
from tests.profiles.people import csv_of
from tests.profiles.test_jobs import state_of
from tests.profiles.test_pulls import Pulls, SafeFiles, fill


@pytest.fixture
def pulls(tmp_path: Path) -> Pulls:
    made = Pulls(tmp_path)
    made.service.tools = dataclasses.replace(made.service.tools, targets=made.targets)
    return made


def look(pulls: Pulls, target: str = "inbox", **fields: Any) -> intake_pb2.PreviewPullResponse:
    request = intake_pb2.PreviewPullRequest(name="sources/till", target=target, **fields)
    with pulls.service.serving() as harness:
        return harness.stub(profiles_pb2_grpc.ProfilesServiceStub).PreviewPull(request, timeout=10)


def test_a_preview_shows_the_oldest_file_that_fits_and_takes_nothing(pulls: Pulls) -> None:
    pulls.put("new.csv", csv_of(range(3)), age=100)
    pulls.put("old.csv", csv_of(range(150)), age=200)
    pulls.put("oldest.txt", b"no table", age=300)
    before = state_of(pulls.service.store)
    found = look(pulls, pattern="*.csv")

    assert (found.file, found.preview.format, found.preview.rows_read) == ("old.csv", "csv", 100)
    assert all(row.accepted for row in found.preview.rows)
    assert state_of(pulls.service.store) == before
    assert pulls.work(pulls.pull(pattern="*.csv")).files_imported == 2, "the pull still finds them new"


def test_a_preview_of_a_table_shows_what_its_first_rows_would_become(pulls: Pulls, tmp_path: Path) -> None:
    fill(tmp_path, range(700), "2025-01-02")
    before = state_of(pulls.service.store)
    found = look(pulls, "crm", table="members", cursor_column="seq")

    assert (found.file, found.preview.format, found.preview.rows_read) == ("members", "table", 100)
    assert "seq" in found.preview.unmapped_columns
    assert found.preview.rows[0].accepted
    assert state_of(pulls.service.store) == before


def test_an_empty_table_has_nothing_to_show(pulls: Pulls, tmp_path: Path) -> None:
    fill(tmp_path, range(0), "2025-01-02")

    assert look(pulls, "crm", table="members").preview.rows_read == 0


def test_credentials_are_needed_and_not_told(pulls: Pulls) -> None:
    SafeFiles(secret="open sesame").pipe_file(f"{pulls.bucket}/people.csv", csv_of(range(2)))

    assert look(pulls, "safe", credentials={"secret": "open sesame"}).preview.rows_read == 2
    with pytest.raises(grpc.RpcError) as refused:
        look(pulls, "safe", credentials={"secret": "wrong words"})
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "wrong" not in str(refused.value)


@pytest.mark.parametrize(
    ("target", "fields", "code"),
    [
        ("elsewhere", {}, grpc.StatusCode.NOT_FOUND),
        ("gone", {}, grpc.StatusCode.FAILED_PRECONDITION),
        ("inbox", {"pattern": "*.nothing"}, grpc.StatusCode.FAILED_PRECONDITION),
        ("inbox", {"folder": ".."}, grpc.StatusCode.INVALID_ARGUMENT),
        ("crm", {"table": "nowhere"}, grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_what_cannot_be_looked_at_says_why(
    pulls: Pulls, target: str, fields: dict[str, str], code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        look(pulls, target, **fields)

    assert refused.value.code() is code


def test_a_place_that_does_not_answer_holds_no_caller_and_two_looks_at_most() -> None:
    released = threading.Event()
    for _ in range(2):
        with pytest.raises(PullFailed, match="does not answer"):
            within(0.05, released.wait)
    with pytest.raises(Exhausted):
        within(0.05, released.wait)
    released.set()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert within(5, lambda: "seen") == "seen"
            return
        except Exhausted:
            assert time.monotonic() < deadline, "a look that ended leaves room for the next"
            time.sleep(0.01)


def test_a_pull_descends_when_asked_to_and_follows_no_link(pulls: Pulls, tmp_path: Path) -> None:
    (pulls.inbox / "till" / "2026").mkdir()
    pulls.put("top.csv", csv_of(range(2)), age=300)
    pulls.put("till/2026/deep.csv", csv_of(range(2, 5)), age=200)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "other.csv").write_bytes(csv_of(range(5, 9)))
    (pulls.inbox / "linked").symlink_to(outside)
    (pulls.inbox / "till" / "round").symlink_to(pulls.inbox)

    assert pulls.work(pulls.pull()).files_imported == 1
    assert look(pulls, folder="till", descend=True).file == "deep.csv"
    assert pulls.work(pulls.pull(descend=True)).files_imported == 2
    assert pulls.people() == 5
