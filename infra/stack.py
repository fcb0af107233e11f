"""What one stack consists of: its folder, its secrets, its ports, and the environment its processes get."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from infra.certificates import ensure_certificates
from infra.processes import LOOPBACK
from infra.servers import Mongo, Rabbit, SmtpSink
from services.chassis.config import SERVICES
from services.chassis.durable import write_whole

DEPARTMENTS = ("marketing", "service", "sales", "analytics", "data-office")
STEWARD = "data-office"  # the department with a person too: what erases is confirmed by a person


class StackError(Exception):
    """The stack cannot be used as asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One stack's folder and addresses; secrets are in the folder, not here."""

    folder: Path
    gateway_port: int
    ports: Mapping[str, int]
    mongo_uri: str
    amqp_uri: str
    mongo: Mongo | None
    rabbit: Rabbit | None
    smtp: SmtpSink

    @property
    def url(self) -> str:
        """Where the gateway answers."""
        return f"http://{LOOPBACK}:{self.gateway_port}"

    @property
    def credentials_file(self) -> Path:
        """Where callers find how to sign in."""
        return self.folder / "credentials.json"

    @property
    def mailbox(self) -> Path:
        """Where the local mail server keeps what it was handed."""
        return self.smtp.folder

    def environment(self) -> dict[str, str]:
        """Return the variables that every Kehu process of the stack reads (services/chassis/config.py)."""
        addresses = ",".join(f"{name}={LOOPBACK}:{self.ports[name]}" for name in SERVICES)
        return {
            "KEHU_DATA_DIR": str(self.folder),
            "KEHU_MONGO_URI": self.mongo_uri,
            "KEHU_AMQP_URI": self.amqp_uri,
            "KEHU_ADDRESSES": addresses,
            "KEHU_SMTP_HOST": LOOPBACK,
            "KEHU_SMTP_PORT": str(self.smtp.port),
            "KEHU_SMTP_USER": "kehu",
            "KEHU_SMTP_PASSWORD": self.smtp.password,
            "KEHU_PUBLIC_URL": self.url,
            "KEHU_WEBAUTHN_RP_ID": "localhost",  # authenticators know no addresses of numbers
            "KEHU_WEBAUTHN_ORIGINS": f"http://localhost:{self.gateway_port}",
            "KEHU_BOOTSTRAP_FILE": str(self.credentials_file),
            "KEHU_ALLOW_SELF_APPROVAL": "true",  # one administrator lives here; elsewhere two must agree
            "KEHU_WEBHOOK_DEV_HOSTS": LOOPBACK,  # so that a receiver can be tried out here; elsewhere https only
            "KEHU_GATEWAY_HOST": LOOPBACK,
            "KEHU_GATEWAY_PORT": str(self.gateway_port),
        }


def write_private(path: Path, content: object) -> None:
    """Write JSON that only its owner may read, whole or not at all."""
    write_whole(path, json.dumps(content, indent=2).encode())


def read_private(path: Path) -> dict[str, object]:
    """Return what `write_private` wrote; nothing when the file is not there."""
    try:
        document: dict[str, object] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return document


def free_ports(count: int) -> list[int]:
    """Return different loopback ports that nobody listens on now."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextmanager
def locked(folder: Path) -> Iterator[IO[str]]:
    """Hold the folder for one stack.

    Raises:
        StackError: another one runs in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # databases, keys and mails are in it
    with (folder / "stack.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"a stack runs in {folder} already: use it, stop it, or give another --data") from None
        yield lock


def _secrets(folder: Path) -> dict[str, str]:
    """Return the passwords of the stack's servers, made at its first start."""
    path = folder / "secrets.json"
    if not path.exists():
        write_private(path, {name: secrets.token_urlsafe(24) for name in ("mongo", "rabbit", "smtp")})
    found: dict[str, str] = json.loads(path.read_text())
    return found


def _credentials(stack: Stack) -> None:
    """Write credentials.json; what is in it stays valid as long as the data, only the address follows the port."""
    path = stack.credentials_file
    if path.exists():
        known = json.loads(path.read_text())
    else:
        clients = [
            {"department": name, "client_id": f"{name}-app", "client_secret": secrets.token_urlsafe(32)}
            for name in DEPARTMENTS
        ]
        known = {"clients": clients, "administrator": _new_person("administrator")}
    known.setdefault("people", [{"department": STEWARD, **_new_person("steward")}])  # older folders have none
    known.pop("token_url", None)
    write_private(path, {"token_url": f"{stack.url}/oauth2/token", **known})


IDENTITIES = (*SERVICES, "gateway")


def _new_person(username: str) -> dict[str, str]:
    totp_secret = base64.b32encode(secrets.token_bytes(20)).decode()
    return {"username": username, "password": secrets.token_urlsafe(18), "totp_secret": totp_secret}


def renew_certificates(stack: Stack) -> None:
    """Replace the certificates that end in a few hours; every process sees it and goes on."""
    ensure_certificates(stack.folder / "tls", IDENTITIES)


def prepare_stack(folder: Path, gateway_port: int, environ: Mapping[str, str]) -> Stack:
    """Lay out a stack in `folder` and return it: secrets, certificates, credentials and new ports.

    KEHU_MONGO_URI and KEHU_AMQP_URI in `environ` name servers to use in place of its own.
    """
    folder = folder.resolve()
    for part in ("logs", "keys", "lake", "index", "audit"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    ensure_certificates(folder / "tls", IDENTITIES)
    passwords = _secrets(folder)
    names = ["mongo", "rabbit", "rabbit-distribution", "epmd", "smtp", *SERVICES, *(f"{s}-health" for s in SERVICES)]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    mongo_uri, amqp_uri = environ.get("KEHU_MONGO_URI"), environ.get("KEHU_AMQP_URI")
    mongo = None if mongo_uri else Mongo(folder / "mongo", ports["mongo"], passwords["mongo"])
    rabbit_ports = (ports["rabbit"], ports["rabbit-distribution"], ports["epmd"])
    rabbit = None if amqp_uri else Rabbit(folder / "rabbitmq", *rabbit_ports, passwords["rabbit"])
    stack = Stack(
        folder=folder,
        gateway_port=gateway_port,
        ports=ports,
        mongo_uri=mongo.uri if mongo else str(mongo_uri),
        amqp_uri=rabbit.uri if rabbit else str(amqp_uri),
        mongo=mongo,
        rabbit=rabbit,
        smtp=SmtpSink(folder / "mailbox", ports["smtp"], passwords["smtp"]),
    )
    _credentials(stack)
    return stack


@dataclass(frozen=True, slots=True)
class Running:
    """What stack.json says of a stack that was started: for the other commands."""

    url: str
    pid: int
    environment: Mapping[str, str]
    health_ports: Mapping[str, int]
    pids: Mapping[str, int]


def save_running(stack: Stack, pids: Mapping[str, int]) -> None:
    """Write stack.json (mode 0600, for it holds the servers' passwords)."""
    health = {name: stack.ports[f"{name}-health"] for name in SERVICES}
    content = {"url": stack.url, "pid": os.getpid(), "environment": stack.environment()}
    write_private(stack.folder / "stack.json", {**content, "health_ports": health, "pids": dict(pids)})


def read_running(folder: Path) -> Running:
    """Return the stack that was started in the folder.

    Raises:
        StackError: none was.
    """
    try:
        return Running(**json.loads((folder / "stack.json").read_text()))
    except FileNotFoundError:
        raise StackError(f"no stack was started in {folder}: run `kehu up --data {folder}`") from None
