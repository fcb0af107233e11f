"""The servers of stack and tests: MongoDB wire, RabbitMQ, SMTP sink; on the loopback, with passwords."""

from __future__ import annotations

import contextlib
import os
import shutil
import smtplib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from infra.processes import FRUGAL, LOOPBACK, Command, clean_environment, free_port, listens, running

USER = "kehu"
RABBITMQ_SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's; /usr/sbin's would `su rabbitmq`
MISSING_RABBITMQ = (
    "RabbitMQ is not installed: run `apt-get install rabbitmq-server` "
    "(`make up` does it on Debian and Ubuntu), or set KEHU_AMQP_URI to a broker you have, such as amqp://user:password@host:5672/"
)


class MissingServer(Exception):
    """A server's program is not on this machine; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Mongo:
    """SecantusDB, a MongoDB-wire server for small data, always as a process of its own (it is GPL-2.0)."""

    folder: Path
    port: int
    password: str
    authenticated: bool = True
    cache: str = "1G"
    name: str = "mongo"

    @property
    def uri(self) -> str:
        """The address with user and password; the options are what SecantusDB is fast and durable with."""
        login = f"{USER}:{quote(self.password, safe='')}@" if self.authenticated else ""
        options = "retryWrites=false&w=1&journal=true"
        return f"mongodb://{login}{LOOPBACK}:{self.port}/?{'authSource=admin&' if login else ''}{options}"

    def prepare(self) -> None:
        """Create the user on the first start: SecantusDB provisions users only while it asks for none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / "user-created"
        if not self.authenticated or marker.exists():
            return
        open_server = Mongo(self.folder, free_port(), "", authenticated=False)
        with running(open_server, self.folder / "first-start.log"), _client(open_server.uri) as client:
            users = client.admin.command("usersInfo", USER)["users"]
            verb = "updateUser" if users else "createUser"
            roles = [{"role": "root", "db": "admin"}]
            client.admin.command(verb, USER, pwd=self.password, roles=roles)
        marker.touch()

    def command(self) -> Command:
        """Return the daemon's command line; what does not fit its cache makes every write dearer, docs/intake.md."""
        argv = [sys.executable, "-m", "secantus", "--host", LOOPBACK, "--port", str(self.port)]
        argv += ["--storage-path", str(self.folder / "wiredtiger"), "--cache-size", self.cache]
        argv += ["--log-level", "WARNING"] + (["--auth"] if self.authenticated else [])
        return Command(tuple(argv), clean_environment(FRUGAL), self.folder)

    def is_ready(self) -> bool:
        """Tell whether it answers a ping with our password."""
        if not listens(self.port):
            return False
        from pymongo.errors import PyMongoError

        try:
            with _client(self.uri) as client:
                client.admin.command("listDatabases", nameOnly=True)
        except PyMongoError:
            return False
        return True

    def tidy(self) -> None:
        """Leave nothing: the process is all there is."""


def _client(uri: str):  # noqa: ANN202  pymongo is imported only where a database is met: the CLI stays fast
    from pymongo import MongoClient

    return MongoClient(uri, serverSelectionTimeoutMS=1000)


@dataclass(frozen=True, slots=True)
class Rabbit:
    """RabbitMQ from Debian's package as an ordinary process: own ports, own data, own epmd, no service."""

    folder: Path
    port: int
    distribution_port: int
    epmd_port: int
    password: str
    name: str = "rabbitmq"

    @property
    def uri(self) -> str:
        """The address with user and password."""
        return f"amqp://{USER}:{quote(self.password, safe='')}@{LOOPBACK}:{self.port}//"

    def prepare(self) -> None:
        """Write the configuration; the user is made with the database, on the first boot.

        Raises:
            MissingServer: RabbitMQ is not installed.
        """
        if not RABBITMQ_SCRIPT.exists():
            raise MissingServer(MISSING_RABBITMQ)
        for part in ("mnesia", "log", "home"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[].\n")
        lines = [
            f"listeners.tcp.default = {LOOPBACK}:{self.port}",
            f"default_user = {USER}",
            f"default_pass = {self.password}",
            "vm_memory_high_watermark.absolute = 512MB",
            "disk_free_limit.absolute = 200MB",
            "log.console.level = warning",
        ]
        config = self.folder / "rabbitmq.conf"
        config.touch(mode=0o600)
        config.write_text("\n".join(lines) + "\n")

    def _environment(self) -> dict[str, str]:
        base = self.folder
        names = {
            "HOME": base / "home",
            "RABBITMQ_MNESIA_BASE": base / "mnesia",
            "RABBITMQ_LOG_BASE": base / "log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": base / "enabled_plugins",
            "RABBITMQ_CONFIG_FILE": base / "rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": base / "advanced.config",
            "RABBITMQ_PID_FILE": base / "rabbitmq.pid",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": "kehu@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": self.port,
            "RABBITMQ_DIST_PORT": self.distribution_port,
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": self.epmd_port,
            "RABBITMQ_LOGS": "-",
            # "allow input" makes the script exec the Erlang machine: no shell between it and our signals
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}"
            " +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }
        return clean_environment({name: str(value) for name, value in names.items()})

    def command(self) -> Command:
        """Return Debian's start script with everything kept inside our folder."""
        return Command((str(RABBITMQ_SCRIPT),), self._environment(), self.folder)

    def is_ready(self) -> bool:
        """Tell whether a client can log in."""
        if not listens(self.port):
            return False
        import amqp

        try:
            host, seconds = f"{LOOPBACK}:{self.port}", 1
            with amqp.Connection(host, USER, self.password, connect_timeout=seconds, read_timeout=seconds):
                return True
        except (OSError, amqp.AMQPError):
            return False

    def tidy(self) -> None:
        """Stop the epmd that Erlang starts as a daemon and leaves behind."""
        epmd = shutil.which("epmd")
        if epmd is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            argv = [epmd, "-port", str(self.epmd_port), "-kill"]
            subprocess.run(argv, env=self._environment(), capture_output=True, timeout=5)


@dataclass(frozen=True, slots=True)
class SmtpSink:
    """The local mail server: accepts mail for anybody, keeps it in a folder, delivers none."""

    folder: Path
    port: int
    password: str
    name: str = "smtp"

    def prepare(self) -> None:
        """Make the mailbox."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        """Return the sink's command line; the password goes by the environment."""
        argv = (sys.executable, "-m", "infra.smtp_sink", str(self.folder), str(self.port))
        extra = {"KEHU_SMTP_USER": USER, "KEHU_SMTP_PASSWORD": self.password, "PYTHONPATH": _import_root()}
        return Command(argv, clean_environment(extra))

    def is_ready(self) -> bool:
        """Tell whether it greets."""
        if not listens(self.port):
            return False
        try:
            with smtplib.SMTP(LOOPBACK, self.port, timeout=1):
                return True
        except (OSError, smtplib.SMTPException):
            return False

    def tidy(self) -> None:
        """Leave the mails where they are."""


def _import_root() -> str:
    """The folder `infra` is imported from, so that children find it from any working folder."""
    return os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "proto")])


def new_rabbit(folder: Path, password: str) -> Rabbit:
    """Return a broker on three free ports."""
    return Rabbit(folder, free_port(), free_port(), free_port(), password)
