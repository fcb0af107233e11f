"""The servers of tests and stack: started, guarded by a password, gone afterwards."""

from __future__ import annotations

import smtplib
import socket
import urllib.request
from pathlib import Path

import amqp
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from infra.processes import StartError, listens, running, wait_until
from infra.servers import Rabbit, SmtpSink
from infra.smtp_sink import read_mailbox


def test_the_database_refuses_who_has_no_password(mongo_uri):
    with MongoClient(mongo_uri) as client:
        client.kehu_test.things.insert_one({"_id": "a"})
    bare = "mongodb://" + mongo_uri.split("@")[1].split("/")[0]

    with MongoClient(bare) as stranger, pytest.raises(OperationFailure):
        stranger.kehu_test.things.find_one()


def test_the_broker_refuses_a_wrong_password(rabbit_server):
    with pytest.raises(amqp.AccessRefused):
        amqp.Connection(f"127.0.0.1:{rabbit_server.port}", userid="guest", password="guest").connect()


def test_the_broker_listens_on_the_loopback_alone(rabbit_server):
    ports = {rabbit_server.port, rabbit_server.distribution_port, rabbit_server.epmd_port}
    listening = [
        line.split()[1].split(":")
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    everywhere = {"00000000", "0" * 32}

    assert [port for address, port in listening if address in everywhere and int(port, 16) in ports] == []


def test_a_mail_is_on_disk_when_the_sender_hears_250(smtp_sink: SmtpSink):
    with smtplib.SMTP("127.0.0.1", smtp_sink.port) as client:
        client.login("kehu", smtp_sink.password)
        client.sendmail("shop@kehu.internal", ["li@example.cn"], b"Subject: hello\r\n\r\nbody\r\n")

    [mail] = read_mailbox(smtp_sink.folder)
    assert (mail.recipient, mail.subject, mail.text.strip()) == ("li@example.cn", "hello", "body")


def test_mail_without_login_is_refused(smtp_sink: SmtpSink):
    with smtplib.SMTP("127.0.0.1", smtp_sink.port) as client, pytest.raises(smtplib.SMTPSenderRefused):
        client.sendmail("a@kehu.internal", ["b@example.cn"], b"Subject: x\r\n\r\n")


def test_a_server_that_cannot_start_says_where_its_log_is(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = SmtpSink(tmp_path / "mailbox", taken.getsockname()[1], "x")

        with (
            pytest.raises(StartError, match="address already in use"),
            running(server, tmp_path / "log", seconds=5),
        ):
            pass


def test_a_stopped_broker_leaves_no_epmd(tmp_path, rabbit_server):
    from infra.servers import new_rabbit

    server: Rabbit = new_rabbit(tmp_path / "rabbit", "pw")
    with running(server, tmp_path / "rabbit.log", seconds=90):
        assert listens(server.epmd_port)

    assert wait_until(lambda: not listens(server.epmd_port), 5)
    assert not listens(server.port)


def test_opensearch_answers(opensearch_url):
    with urllib.request.urlopen(opensearch_url, timeout=5) as reply:
        assert b'"number" : "3.' in reply.read()
