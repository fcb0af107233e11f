"""PostgreSQL and MariaDB from Debian's packages and S3 from moto, as servers of the tests: loopback, temporary."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from infra.processes import LOOPBACK, Command, clean_environment, free_port, listens
from infra.servers import MissingServer

POSTGRES_FOLDERS = Path("/usr/lib/postgresql")
MARIADB = Path("/usr/sbin/mariadbd")
PASSWORD = "only-for-tests"


def _unprivileged() -> str:
    """Return another user for root, as whom alone PostgreSQL starts; else nothing."""
    if os.geteuid() != 0:
        return ""
    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"


@dataclass(frozen=True, slots=True)
class Postgres:
    """PostgreSQL from Debian's package, its data in a folder."""

    folder: Path
    port: int = field(default_factory=free_port)
    name: str = "postgresql"

    @property
    def url(self) -> str:
        """The address, in SQLAlchemy's form, without credentials."""
        return f"postgresql+psycopg://{LOOPBACK}:{self.port}/postgres"

    def prepare(self) -> None:
        """Make the data folder on the first start.

        Raises:
            MissingServer: PostgreSQL is not installed.
        """
        if self._programs() is None:
            raise MissingServer("PostgreSQL is not installed: run `apt-get install postgresql`")
        if self.folder.exists():
            return
        self.folder.mkdir(mode=0o700, parents=True)
        (self.folder / "password").write_text(PASSWORD)
        user = _unprivileged()
        if user:
            for place in (self.folder, self.folder / "password"):
                shutil.chown(place, user)
        argv = [str(self._programs() / "initdb"), "-D", str(self.folder / "data"), "-U", "kehu", "-A", "scram-sha-256"]
        argv += [f"--pwfile={self.folder / 'password'}", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(argv, check=True, capture_output=True, user=user or None, cwd=self.folder)

    @staticmethod
    def _programs() -> Path | None:
        found = sorted(POSTGRES_FOLDERS.glob("*/bin"))
        return found[-1] if found else None

    def command(self) -> Command:
        """Return the daemon's command line."""
        argv = [str(self._programs() / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        argv += ["-h", LOOPBACK, "-k", str(self.folder), "-c", "fsync=off"]
        return Command(tuple(argv), clean_environment({}), self.folder, _unprivileged())

    def is_ready(self) -> bool:
        """Tell whether it lets us in."""
        return listens(self.port) and _answers(self.url)

    def tidy(self) -> None:
        """Leave nothing: the processes end with the first."""


@dataclass(frozen=True, slots=True)
class MariaDb:
    """MariaDB from Debian's package, its data in a folder."""

    folder: Path
    port: int = field(default_factory=free_port)
    name: str = "mariadb"

    @property
    def url(self) -> str:
        """The address, in SQLAlchemy's form, without credentials."""
        return f"mysql+pymysql://{LOOPBACK}:{self.port}/crm?charset=utf8mb4"

    def prepare(self) -> None:
        """Make the data folder and a user on the first start.

        Raises:
            MissingServer: MariaDB is not installed.
        """
        if not MARIADB.exists() or not shutil.which("my_print_defaults"):
            install = "apt-get install mariadb-server-core mariadb-client-core"
            raise MissingServer(f"MariaDB is not installed: run `{install}`")
        if self.folder.exists():
            return
        self.folder.mkdir(parents=True)
        argv = ["mariadb-install-db", "--no-defaults", f"--datadir={self.folder / 'data'}", "--skip-test-db"]
        argv += ["--auth-root-authentication-method=normal", *self._user()]
        subprocess.run(argv, check=True, capture_output=True, cwd=self.folder)
        statements = (
            "create database crm character set utf8mb4;\n"
            f"create user kehu@'127.0.0.1' identified by '{PASSWORD}';\n"
            "grant all on *.* to kehu@'127.0.0.1';\n"
        )
        (self.folder / "init.sql").write_text(statements.replace("create database", "create database if not exists")
                                              .replace("create user", "create user if not exists"))  # fmt: skip

    @staticmethod
    def _user() -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []

    def command(self) -> Command:
        """Return the daemon's command line."""
        argv = [str(MARIADB), "--no-defaults", f"--datadir={self.folder / 'data'}", f"--port={self.port}"]
        argv += [f"--bind-address={LOOPBACK}", f"--socket={self.folder / 'socket'}", "--skip-name-resolve"]
        argv += [f"--init-file={self.folder / 'init.sql'}", f"--pid-file={self.folder / 'pid'}", *self._user()]
        return Command(tuple(argv), clean_environment({}), self.folder)

    def is_ready(self) -> bool:
        """Tell whether it lets us in."""
        return listens(self.port) and _answers(self.url)

    def tidy(self) -> None:
        """Leave nothing: the process is all there is."""


@dataclass(frozen=True, slots=True)
class S3:
    """moto's S3, which checks who signs when it is asked to."""

    folder: Path
    port: int = field(default_factory=free_port)
    name: str = "s3"

    @property
    def endpoint(self) -> str:
        """The address."""
        return f"http://{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        """Make its folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        """Return its command line."""
        argv = (sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(self.port))
        return Command(argv, clean_environment({"INITIAL_NO_AUTH_ACTION_COUNT": "3"}), self.folder)

    def login(self) -> tuple[str, str]:
        """Return key and secret of a user who may do everything; from the first call on others may do nothing."""
        import boto3

        place = self.folder / "login"
        if not place.exists():
            given = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
            iam = boto3.client("iam", endpoint_url=self.endpoint, **given)
            iam.create_user(UserName="kehu")
            statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            iam.put_user_policy(UserName="kehu", PolicyName="all", PolicyDocument=policy)
            key = iam.create_access_key(UserName="kehu")["AccessKey"]
            place.write_text(f"{key['AccessKeyId']} {key['SecretAccessKey']}")
        key, secret = place.read_text().split()
        return key, secret

    def is_ready(self) -> bool:
        """Tell whether it listens."""
        return listens(self.port)

    def tidy(self) -> None:
        """Leave nothing: the process is all there is."""


def _answers(url: str) -> bool:
    try:
        with engine_of(url).connect():
            return True
    except Exception:
        return False


def engine_of(url: str):  # noqa: ANN201  SQLAlchemy is imported only where a database is met
    """Return an engine with the tests' credentials."""
    import sqlalchemy as sql

    return sql.create_engine(sql.make_url(url).set(username="kehu", password=PASSWORD), poolclass=sql.NullPool)
