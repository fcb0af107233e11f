"""The supervisor starts, restarts with back-off, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from infra import supervisor as module
from infra.processes import Command, Memory, memory_of, wait_until
from infra.supervisor import Supervisor, rotate

ROOT = Path(__file__).parents[2]


@dataclass
class Script:
    """A server that is a shell script; ready when its file is there."""

    name: str
    script: str
    folder: Path
    tidied: list[str] = field(default_factory=list)

    def prepare(self) -> None:
        (self.folder / self.name).unlink(missing_ok=True)

    def command(self) -> Command:
        text = f"touch {self.folder / self.name}; {self.script}"
        return Command(("/bin/sh", "-c", text), {"PATH": os.environ["PATH"]})

    def is_ready(self) -> bool:
        return (self.folder / self.name).exists()

    def tidy(self) -> None:
        self.tidied.append(self.name)


@contextlib.contextmanager
def supervised(*servers: Script):
    said: list[str] = []
    running = Supervisor(servers, servers[0].folder, said.append)
    running.start()
    try:
        yield running, said
    finally:
        running.stop()


def ticks_until(running: Supervisor, claim, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not claim() and time.monotonic() < deadline:
        running.tick()
    return claim()


def test_all_are_started_and_ready(tmp_path):
    servers = [Script(name, "exec sleep 60", tmp_path) for name in ("one", "two")]
    with supervised(*servers) as (running, _):
        assert running.wait_ready(10) == []
        assert set(running.pids()) == {"one", "two"}


def test_a_killed_process_is_started_again_and_it_is_said(tmp_path):
    with supervised(Script("one", "exec sleep 60", tmp_path)) as (running, said):
        running.wait_ready(10)
        first = running.pids()["one"]
        os.kill(first, signal.SIGKILL)

        assert ticks_until(running, lambda: running.pids().get("one", first) != first)
        assert said[0].startswith("one stopped (SIGKILL)")
        assert said[-1] == "one started again"


def test_a_process_that_keeps_dying_is_tried_less_and_less_often(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF_SECONDS", (0.0, 0.0, 30.0))
    with supervised(Script("one", "exit 3", tmp_path)) as (running, said):
        assert ticks_until(running, lambda: sum("exit code 3" in line for line in said) == 3)
        assert "in 30 s" in said[-1]


def test_a_process_that_cannot_be_started_is_tried_again_and_the_others_are_watched_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF_SECONDS", (0.0, 0.3))
    one, two = (Script(name, "exec sleep 60", tmp_path) for name in ("one", "two"))
    with supervised(one, two) as (running, said):
        running.wait_ready(10)
        log, others = tmp_path / "one.log", running.pids()["two"]
        log.unlink()
        log.mkdir()  # cannot be opened as a log
        os.kill(running.pids()["one"], signal.SIGKILL)
        assert ticks_until(running, lambda: sum("one: IsADirectoryError" in line for line in said) == 2)
        assert said[-1].endswith(f"tried again in 0.3 s, see {log}")
        os.kill(others, signal.SIGKILL)
        assert ticks_until(running, lambda: running.pids().get("two", others) != others)
        log.rmdir()

        assert ticks_until(running, lambda: "one" in running.pids())
        assert said[-1] == "one started again"


def test_neither_a_failing_renewal_nor_a_log_that_cannot_be_kept_nor_a_deaf_listener_ends_the_watch(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "ROTATE_EVERY", 0.0)
    monkeypatch.setattr(module, "LOG_LIMIT", 0)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        raise BrokenPipeError

    def renew() -> None:
        raise ValueError("no certificate")

    (tmp_path / "one.log.1").mkdir()
    (tmp_path / "one.log").write_text("grown")
    server = Script("one", "exec sleep 60", tmp_path)
    running = Supervisor([server], tmp_path, say, renew)
    running.watched[0].start()
    try:
        assert running.wait_ready(10) == []
        running.tick()
    finally:
        running.stop()

    assert any("ValueError: no certificate" in line for line in said)
    assert any("one.log: IsADirectoryError" in line for line in said)


def test_a_stop_ends_children_of_children_too(tmp_path):
    script = Script("one", "sleep 300 & wait", tmp_path)
    with supervised(script) as (running, _):
        running.wait_ready(10)
        tree = psutil.Process(running.pids()["one"])
        assert wait_until(lambda: bool(tree.children(recursive=True)), 5)
        children = tree.children(recursive=True)

    assert script.tidied == ["one"]
    assert wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 5)


def test_a_stop_asked_for_ends_the_watch(tmp_path):
    with supervised(Script("one", "exec sleep 60", tmp_path)) as (running, _):
        running.ask_to_stop()
        running.watch()

        assert running.is_stopping


def test_children_die_with_a_killed_supervisor(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from infra.processes import Command, spawn;"
        "child = spawn(Command(('/bin/sleep', '300'))); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()

    assert wait_until(lambda: not child.is_running() or child.status() == "zombie", 5)


def test_a_grown_log_is_kept_once_and_emptied_in_place(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOG_LIMIT", 10)
    log = tmp_path / "one.log"
    with log.open("ab") as writer:
        writer.write(b"a" * 20)
        writer.flush()
        rotate(log)
        writer.write(b"b")

    assert (tmp_path / "one.log.1").read_bytes() == b"a" * 20
    assert log.read_bytes() == b"b"


HEAVY = {"grpc", "google", "pymongo", "mongoengine", "nameko", "eventlet", "fastapi", "pyarrow", "httpx", "gateway"}


@pytest.mark.parametrize(("command", "named"), [([], "serve"), (["deadletters"], "replay"), (["policy"], "apply")])
def test_help_names_the_commands_and_loads_no_driver(command, named):
    timed = [sys.executable, "-X", "importtime", "-m", "infra.cli", *command, "--help"]
    done = subprocess.run(timed, capture_output=True, cwd=ROOT, text=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}

    assert done.returncode == 0
    assert named in done.stdout
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_an_unknown_service_is_named_with_those_there_are():
    done = subprocess.run([sys.executable, "-m", "infra.cli", "serve", "nothing"], capture_output=True, cwd=ROOT)

    assert done.returncode == 1
    assert b"no such service: nothing; there are access" in done.stderr


def test_an_incomplete_environment_is_told_at_once():
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "serve", "consent"],
        capture_output=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
    )

    assert done.returncode == 2
    assert b"KEHU_MONGO_URI is not set" in done.stderr


def test_a_process_of_the_stack_loads_no_command_line():
    timed = [sys.executable, "-X", "importtime", "-m", "infra.process", "serve", "consent"]
    done = subprocess.run(timed, capture_output=True, cwd=ROOT, env={"PATH": os.environ["PATH"]}, text=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}

    assert done.returncode == 2
    assert "KEHU_MONGO_URI is not set" in done.stderr
    assert loaded & {"typer", "click", "rich"} == set()


@pytest.mark.parametrize("arguments", [[], ["serve"], ["serve", "nothing"], ["work", "nothing"], ["serve", "a", "b"]])
def test_a_process_with_wrong_arguments_says_which_there_are(arguments):
    done = subprocess.run([sys.executable, "-m", "infra.process", *arguments], capture_output=True, cwd=ROOT)

    assert done.returncode == 2
    assert b"serve SERVICE" in done.stderr


def test_the_consumer_imports_no_service_that_listens_to_nothing():
    program = (
        "import sys, infra.consume as c; c.known_subscriptions = tuple; assert c.consumers(['access'], None) == [];"
        "print([name for name in sys.modules if name == 'services.access.main'])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, cwd=ROOT, text=True)

    assert done.stdout.strip() == "[]", done.stderr


def test_the_memory_of_a_process_takes_in_those_below_it_and_is_nothing_when_it_is_gone():
    holder = "import sys; held = b'x' * (64 << 20); print('held', flush=True); sys.stdin.read()"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holder!r}])"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"held\n"
        alone, both = memory_of(parent.pid, with_children=False), memory_of(parent.pid)
        assert parent.stdin is not None
        parent.stdin.close()

    assert both.proportional - alone.proportional > 64 << 20
    assert both.resident >= both.proportional > 0
    assert memory_of(parent.pid) == Memory(0, 0)
