"""Hand messages to a mail server: one connection per thread, kept open, and never in doubt without saying so."""

from __future__ import annotations

import logging
import re
import smtplib
import ssl
import threading
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate, parseaddr
from pathlib import Path

import certifi

from services.chassis.config import SmtpConfig
from services.marketing.ports import MailDoubtful, MailDown, MailRefused, MailStale, OutgoingMail

TIMEOUT_SECONDS = 20.0
IDLE_SECONDS = 10.0  # a connection unused for longer is asked whether it still lives
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}")
POLICY = SMTP_POLICY.clone(max_line_length=998)  # RFC 5322 §2.1.1; a folded link breaks in some programs
NOT_AN_ADDRESS = 553  # RFC 5321 §4.2.3: mailbox name not allowed
_log = logging.getLogger(__name__)


def compose(mail: OutgoingMail, sender: str) -> bytes:
    """Return the message as it goes over the wire, with one-click unsubscription (RFC 8058)."""
    message = EmailMessage(policy=POLICY)
    host = parseaddr(sender)[1].rpartition("@")[2] or "kehu.internal"
    message["From"] = sender
    message["To"] = mail.address
    message["Subject"] = mail.subject
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{mail.delivery_id}@{host}>"
    message["List-Unsubscribe"] = f"<{mail.unsubscribe_url}>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text, cte="base64")
    if mail.html:
        message.add_alternative(mail.html, subtype="html", cte="base64")
    return message.as_bytes()


def _authorities(own: Path | None) -> ssl.SSLContext:
    """Return whom a mail server's certificate may be of: the public authorities, and those of a file of one's own."""
    context = ssl.create_default_context(cafile=certifi.where())
    if own is not None:
        context.load_verify_locations(own)
    return context


class SmtpMailer:
    """A mail server behind the Mailer port; safe for several threads, each with its own connection."""

    def __init__(self, config: SmtpConfig) -> None:
        self._config = config
        self._tls = _authorities(config.ca) if config.starttls else None
        self._local = threading.local()

    def send(self, mail: OutgoingMail, may_send: Callable[[], bool]) -> None:
        """Hand one message over."""
        if not ADDRESS.fullmatch(mail.address):
            raise MailRefused(NOT_AN_ADDRESS, permanent=True)
        content = compose(mail, self._config.sender)
        try:
            connection = self._connection()
            self._envelope(connection, mail.address)
            self._ask(connection, may_send)
            self._expect(connection.docmd("DATA"), 354)
        except (OSError, smtplib.SMTPException) as error:
            self._drop()
            raise MailDown(type(error).__name__) from error
        self._hand_over(connection, content)
        self._local.used = time.monotonic()

    def _ask(self, connection: smtplib.SMTP, may_send: Callable[[], bool]) -> None:
        allowed = False
        try:
            allowed = may_send()
        finally:
            if not allowed:
                self._forget(connection)
        if not allowed:
            raise MailStale

    def _envelope(self, connection: smtplib.SMTP, address: str) -> None:
        code, text = connection.mail(parseaddr(self._config.sender)[1])
        if code >= 400 and code != 421:  # the recipient was not named yet: nobody of the audience is at fault
            _log.warning("the mail server refuses the sender: ask its operator", extra={"code": str(code)})
            raise smtplib.SMTPSenderRefused(code, b"", "")
        self._expect((code, text), 250)
        code, text = connection.rcpt(address)
        self._expect((code, text), 250, 251)

    def _expect(self, reply: tuple[int, bytes], *codes: int) -> None:
        code = reply[0]
        if code in codes:
            return
        if code == 421 or code < 0:  # closing down: nobody's fault, try the next server process
            raise smtplib.SMTPServerDisconnected("closing")
        self._drop()
        raise MailRefused(code, permanent=code >= 500)

    def _hand_over(self, connection: smtplib.SMTP, content: bytes) -> None:
        """Write the message; from its first byte on, a broken connection leaves doubt."""
        quoted = re.sub(rb"(?m)^\.", b"..", content)
        try:
            # one write: a second small one would wait 40 ms for the server's delayed acknowledgement
            connection.send((quoted if quoted.endswith(b"\r\n") else quoted + b"\r\n") + b".\r\n")
            code, _ = connection.getreply()
        except (OSError, smtplib.SMTPException) as error:
            self._drop()
            raise MailDoubtful(type(error).__name__) from error
        if code != 250:
            self._drop()
            raise MailRefused(code, permanent=code >= 500)

    def _connection(self) -> smtplib.SMTP:
        known: smtplib.SMTP | None = getattr(self._local, "connection", None)
        if known is not None:
            if time.monotonic() - self._local.used < IDLE_SECONDS or self._lives(known):
                return known
            self._drop()
        connection = smtplib.SMTP(self._config.host, self._config.port, timeout=TIMEOUT_SECONDS)
        self._local.connection, self._local.used = connection, time.monotonic()
        if self._tls is not None:
            connection.starttls(context=self._tls)
        if self._config.user:
            connection.login(self._config.user, self._config.password)
        connection.ehlo_or_helo_if_needed()
        return connection

    def _lives(self, connection: smtplib.SMTP) -> bool:
        try:
            return bool(connection.noop()[0] == 250)
        except (OSError, smtplib.SMTPException):
            return False

    def _forget(self, connection: smtplib.SMTP) -> None:
        """Take the envelope back; the message was not begun."""
        try:
            connection.rset()
        except (OSError, smtplib.SMTPException):
            self._drop()

    def _drop(self) -> None:
        connection: smtplib.SMTP | None = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            connection.close()
