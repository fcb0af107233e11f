"""Servers for the tests: started once a session by the first test that asks, stopped at its end."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from infra.opensearch import new_opensearch
from infra.processes import StartError, free_port, running
from infra.servers import MissingServer, Mongo, Rabbit, SmtpSink, new_rabbit
from tests.databases import S3, MariaDb, Postgres

Started = TypeVar("Started", Postgres, MariaDb, S3)
PASSWORD = "only-for-tests"  # loopback, a temporary folder, gone with the session
MARKER_OF_FIXTURE = {
    "mongo_uri": "mongo",
    "amqp_uri": "rabbit",
    "rabbit_server": "rabbit",
    "opensearch_url": "opensearch",
    "postgres": "sql",
    "mariadb": "sql",
    "s3": "s3",
    "stack": "flow",
}
OPT_IN = ("opensearch", "flow", "spark")


def unavailable(reason: str) -> None:
    """Skip, or fail where KEHU_REQUIRE_SERVERS=1 says that every server must be there (CI)."""
    if os.environ.get("KEHU_REQUIRE_SERVERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with the servers it starts; leave the slow ones to those who ask (-m, or CI)."""
    required = os.environ.get("KEHU_REQUIRE_SERVERS") == "1"
    asked = config.getoption("-m", default="")
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKER_OF_FIXTURE:
                item.add_marker(MARKER_OF_FIXTURE[fixture])
        for marker in OPT_IN:
            if item.get_closest_marker(marker) and not required and marker not in asked:
                item.add_marker(pytest.mark.skip(reason=f"opt in with `-m {marker}`; CI runs it"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, object, object]:
    """Collect no garbage while a failure is described.

    A report parses the failing test. Python 3.11 breaks off with "AST constructor recursion depth mismatch", and pytest
    with it, when the collector lets another thread in that parses too, as each printed traceback does.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for the data and logs of the session's servers."""
    with tempfile.TemporaryDirectory(prefix="kehu-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def mongo_uri(server_folder: Path) -> Iterator[str]:
    """The address of a MongoDB-wire server: KEHU_MONGO_URI, else SecantusDB started for the session."""
    given = os.environ.get("KEHU_MONGO_URI")
    if given:
        yield given
        return
    server = Mongo(server_folder / "mongo", free_port(), PASSWORD)
    try:
        with running(server, server_folder / "mongo.log"):
            yield server.uri
    except StartError as error:
        unavailable(f"{error}\n`make setup` installs SecantusDB (extra `local`)")


@pytest.fixture(scope="session")
def rabbit_server(server_folder: Path) -> Iterator[Rabbit]:
    """RabbitMQ started for the session, for tests that use it without hurting it."""
    server = new_rabbit(server_folder / "rabbitmq", PASSWORD)
    try:
        with running(server, server_folder / "rabbitmq.log", seconds=90):
            yield server
    except (StartError, MissingServer) as error:
        unavailable(str(error))


@pytest.fixture(scope="session")
def amqp_uri(request: pytest.FixtureRequest) -> str:
    """The address of a broker: KEHU_AMQP_URI, else RabbitMQ started for the session."""
    given = os.environ.get("KEHU_AMQP_URI")
    return given if given else request.getfixturevalue("rabbit_server").uri


@pytest.fixture(scope="session")
def opensearch_url(server_folder: Path) -> Iterator[str]:
    """The address of an OpenSearch: KEHU_OPENSEARCH_URL, else one node started for the session."""
    given = os.environ.get("KEHU_OPENSEARCH_URL")
    if given:
        yield given
        return
    server = new_opensearch()
    try:
        with running(server, server_folder / "opensearch.log", seconds=180):
            yield server.url
        shutil.rmtree(server.folder, ignore_errors=True)
    except (StartError, MissingServer) as error:
        unavailable(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL started for the session; as root in a folder that the user it runs as may enter."""
    with tempfile.TemporaryDirectory(prefix="kehu-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield from _started(Postgres(Path(folder) / "postgresql"), Path(folder) / "log")


@pytest.fixture(scope="session")
def mariadb(server_folder: Path) -> Iterator[MariaDb]:
    """MariaDB started for the session."""
    yield from _started(MariaDb(server_folder / "mariadb"), server_folder / "mariadb.log")


@pytest.fixture(scope="session")
def s3(server_folder: Path) -> Iterator[S3]:
    """An S3 started for the session."""
    yield from _started(S3(server_folder / "s3"), server_folder / "s3.log")


def _started(server: Started, log: Path) -> Iterator[Started]:
    try:
        with running(server, log):
            yield server
    except (StartError, MissingServer) as error:
        unavailable(str(error))


@pytest.fixture
def smtp_sink(tmp_path: Path, server_folder: Path) -> Iterator[SmtpSink]:
    """A local mail server with an empty mailbox, for one test."""
    server = SmtpSink(tmp_path / "mailbox", free_port(), PASSWORD)
    with running(server, server_folder / "smtp.log"):
        yield server
