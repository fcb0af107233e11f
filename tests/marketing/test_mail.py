"""Handing over mail: real servers on loopback, well-behaved and not."""

from __future__ import annotations

import contextlib
import email
import email.policy
import socketserver
import ssl
import threading
from dataclasses import replace

import pytest

from infra.certificates import ensure_certificates
from infra.smtp_sink import read_mailbox
from services.chassis.config import SmtpConfig
from services.marketing.mail import SmtpMailer, compose
from services.marketing.ports import MailDoubtful, MailDown, MailRefused, MailStale, OutgoingMail

MAIL = OutgoingMail(
    "ab" * 16,
    "li@example.cn",
    "您好 李小明",
    "你好\n.\n再见",
    "<p>你好</p>",
    "https://k.example/v1/unsubscribe/" + "t" * 43,
)
SENDER = "Kehu <no-reply@kehu.example>"


def config(port: int, user: str = "", password: str = "") -> SmtpConfig:
    return SmtpConfig("127.0.0.1", port, user, password, SENDER, False)


def test_a_message_carries_one_click_unsubscription_and_a_stable_id():
    """RFC 8058: both headers, the link whole."""
    message = email.message_from_bytes(compose(MAIL, SENDER), policy=email.policy.default)

    assert message["List-Unsubscribe"] == f"<{MAIL.unsubscribe_url}>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["Message-ID"] == f"<{MAIL.delivery_id}@kehu.example>"
    assert (message["Subject"], message["To"]) == ("您好 李小明", "li@example.cn")
    assert f"List-Unsubscribe: <{MAIL.unsubscribe_url}>\r\n".encode() in compose(MAIL, SENDER)


def test_the_sink_gets_the_message_as_written(smtp_sink):
    from infra.servers import USER

    mailer = SmtpMailer(config(smtp_sink.port, USER, smtp_sink.password))

    mailer.send(MAIL, lambda: True)
    mailer.send(MAIL, lambda: True)

    first, second = read_mailbox(smtp_sink.folder)
    assert (first.recipient, first.subject) == ("li@example.cn", "您好 李小明")
    assert first.text.replace("\r\n", "\n").strip() == "你好\n.\n再见"
    assert first.message_id == second.message_id
    assert MAIL.unsubscribe_url in first.list_unsubscribe


def test_a_message_whose_allowance_ran_out_is_not_begun_and_the_next_one_goes(smtp_sink):
    from infra.servers import USER

    mailer = SmtpMailer(config(smtp_sink.port, USER, smtp_sink.password))

    with pytest.raises(MailStale):
        mailer.send(MAIL, lambda: False)
    mailer.send(MAIL, lambda: True)

    assert len(list(read_mailbox(smtp_sink.folder))) == 1


class Scripted(socketserver.StreamRequestHandler):
    """A mail server that answers each command as its script says; "hang up" closes the line."""

    def handle(self):
        self.reply(self.server.script.get("", "220 hello"))
        self.answer()

    def answer(self):
        script = self.server.script
        for line in self.rfile:
            command = line.decode().split(" ")[0].split(":")[0].strip().upper()
            answer = script.get(command, "250 ok")
            if answer == "hang up":
                return
            self.reply(answer)
            if command == "DATA" and answer.startswith("354"):
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                self.server.messages += 1
                if script.get(".") == "hang up":
                    return
                self.reply(script.get(".", "250 taken"))

    def reply(self, text):
        self.wfile.write(text.encode() + b"\r\n")


class Encrypted(Scripted):
    """One that asks for TLS first and shows the certificate of `folder`."""

    def handle(self):
        self.reply("220 hello")
        self.rfile.readline()
        self.reply("250-hello\r\n250 STARTTLS")
        self.rfile.readline()
        self.reply("220 go")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        folder = self.server.folder
        context.load_cert_chain(folder / "mail.pem", folder / "mail.key")
        with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as line:
            self.rfile, self.wfile = line.makefile("rb"), line.makefile("wb", 0)
            self.answer()


@pytest.mark.parametrize("authority", ["ours", "others", "none named"])
def test_mail_is_handed_over_to_a_server_whose_certificate_an_authority_of_ours_signed(tmp_path, authority):
    trusted = authority == "ours"  # with none named, the public ones
    ensure_certificates(tmp_path / "ours", ["mail"])
    ensure_certificates(tmp_path / "others", ["mail"])
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Encrypted) as server:
        server.daemon_threads, server.script, server.messages = True, {"DATA": "354 go"}, 0
        server.folder = tmp_path / ("others" if authority == "others" else "ours")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        named = None if authority == "none named" else tmp_path / "ours" / "ca.pem"
        mine = replace(config(server.server_address[1]), starttls=True, ca=named)
        try:
            if trusted:
                SmtpMailer(mine).send(MAIL, lambda: True)
            else:
                with pytest.raises(MailDown):
                    SmtpMailer(mine).send(MAIL, lambda: True)
        finally:
            server.shutdown()

    assert server.messages == (1 if trusted else 0)


@pytest.fixture
def scripted():
    servers = []

    def start(**script):
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Scripted)
        server.daemon_threads = True
        server.script = {"DATA": "354 go"} | {{"END": "."}.get(k, k): v for k, v in script.items()}
        server.messages = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return SmtpMailer(config(server.server_address[1])), server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("answer", ["550 not you", "552 too much today", "451 slower"])
def test_a_server_that_refuses_the_sender_is_down_and_no_recipient_is_refused(scripted, answer):
    """Else the rest of an audience would be given up for what one setting or one quota of ours is to blame."""
    mailer, server = scripted(MAIL=answer)

    with pytest.raises(MailDown):
        mailer.send(MAIL, lambda: True)
    server.script["MAIL"] = "250 ok"
    mailer.send(MAIL, lambda: True)

    assert server.messages == 1


@pytest.mark.parametrize(
    ("script", "code", "permanent"),
    [
        ({"RCPT": "550 unknown"}, 550, True),
        ({"RCPT": "450 greylisted"}, 450, False),
        ({"DATA": "554 no"}, 554, True),
        ({"END": "554 content"}, 554, True),
        ({"END": "451 later"}, 451, False),
    ],
)
def test_a_refusal_keeps_its_code_and_kind(scripted, script, code, permanent):
    mailer, _ = scripted(**script)

    with pytest.raises(MailRefused) as caught:
        mailer.send(MAIL, lambda: True)

    assert (caught.value.code, caught.value.permanent) == (code, permanent)


@pytest.mark.parametrize("command", ["EHLO", "MAIL", "RCPT", "DATA"])
def test_a_line_that_breaks_before_the_message_is_down_not_doubtful(scripted, command):
    script = {command: "hang up"} | ({"HELO": "hang up"} if command == "EHLO" else {})
    mailer, server = scripted(**script)

    with pytest.raises(MailDown):
        mailer.send(MAIL, lambda: True)

    assert server.messages == 0


def test_a_line_that_breaks_after_the_message_leaves_doubt(scripted):
    mailer, server = scripted(END="hang up")

    with pytest.raises(MailDoubtful):
        mailer.send(MAIL, lambda: True)

    assert server.messages == 1


def test_a_server_that_is_closing_is_down(scripted):
    mailer, _ = scripted(MAIL="421 closing")

    with pytest.raises(MailDown):
        mailer.send(MAIL, lambda: True)


def test_nobody_there_is_down():
    with socketserver.TCPServer(("127.0.0.1", 0), Scripted) as free:
        port = free.server_address[1]

    with pytest.raises(MailDown):
        SmtpMailer(config(port)).send(MAIL, lambda: True)


@pytest.mark.parametrize("address", ["", "no-at", "a@b\r\nRCPT TO:<x@y>", "a b@c.cn", "<a@b>", "李@例子.cn"])
def test_what_is_no_address_is_refused_before_the_server_sees_it(scripted, address):
    mailer, _ = scripted()

    with pytest.raises(MailRefused) as caught:
        mailer.send(OutgoingMail(MAIL.delivery_id, address, "s", "t", "", "u"), lambda: True)

    assert (caught.value.code, caught.value.permanent) == (553, True)


def test_an_exception_of_the_last_check_takes_the_envelope_back(scripted):
    mailer, server = scripted()

    def fails():
        raise LookupError

    with pytest.raises(LookupError):
        mailer.send(MAIL, fails)
    mailer.send(MAIL, lambda: True)

    assert server.messages == 1
