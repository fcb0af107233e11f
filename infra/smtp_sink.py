"""The local mail server (aiosmtpd): each mail is an .eml file, on disk before the sender hears 250."""

from __future__ import annotations

import asyncio
import hmac
import os
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_binary_file, policy
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail of the mailbox, as its envelope and headers tell."""

    file: str
    recipient: str
    subject: str
    list_unsubscribe: str
    message_id: str
    text: str


class Mailbox:
    """Writes mails into a folder; the name of a file sorts by arrival."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Store the mail durably, then accept it."""
        await asyncio.to_thread(self._store, envelope.content or b"", envelope.rcpt_tos)
        return "250 accepted"

    def _store(self, content: bytes | str, recipients: list[str]) -> None:
        body = content.encode() if isinstance(content, str) else content
        target = self._folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.eml"
        partial = target.with_suffix(".partial")
        with partial.open("wb") as out:
            out.write(f"X-Envelope-To: {', '.join(recipients)}\r\n".encode() + body)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(target)


def read_mailbox(folder: Path) -> Iterator[Mail]:
    """Yield the mails in the order they came."""
    for path in sorted(folder.glob("*.eml")):
        with path.open("rb") as source:
            message = message_from_binary_file(source, policy=policy.default)
        if isinstance(message, EmailMessage):
            yield _mail(path.name, message)


def _mail(file: str, message: EmailMessage) -> Mail:
    body = message.get_body(("plain", "html"))
    header = {name: str(message.get(name, "")) for name in ("Subject", "List-Unsubscribe", "Message-ID")}
    recipient = str(message.get("X-Envelope-To", ""))
    text = body.get_content() if body is not None else ""
    return Mail(file, recipient, header["Subject"], header["List-Unsubscribe"], header["Message-ID"], text)


def authenticator(user: str, password: str):  # noqa: ANN201  aiosmtpd is an extra: imported when run
    """Return aiosmtpd's check of one user and password, in constant time."""
    from aiosmtpd.smtp import AuthResult, LoginPassword

    def check(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        known = isinstance(data, LoginPassword)
        given = (data.login, data.password) if isinstance(data, LoginPassword) else (b"", b"")
        same_user = hmac.compare_digest(given[0], user.encode())
        same_password = hmac.compare_digest(given[1], password.encode())
        return AuthResult(success=known and same_user and same_password, handled=False)

    return check


async def serve(folder: Path, port: int, user: str, password: str) -> None:
    """Accept mail on the loopback until cancelled; senders must log in."""
    from aiosmtpd.smtp import SMTP

    def new_session() -> SMTP:
        # no TLS: it listens on the loopback alone
        check = authenticator(user, password)
        return SMTP(Mailbox(folder), authenticator=check, auth_required=True, auth_require_tls=False)

    server = await asyncio.get_running_loop().create_server(new_session, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Run the sink: `python -m infra.smtp_sink FOLDER PORT`, user and password in the environment."""
    import signal

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    asyncio.run(serve(folder, port, os.environ["KEHU_SMTP_USER"], os.environ["KEHU_SMTP_PASSWORD"]))


if __name__ == "__main__":
    main()
