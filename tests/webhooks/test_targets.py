"""Row 58: no URL leads a delivery inside. Each is sent in earnest beside a listener that counts connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from services.webhooks.domain.errors import TargetRefused
from services.webhooks.domain.targets import is_public, read_target
from services.webhooks.sender import Sender

REFUSED_URLS = [
    "http://hooks.example.com/x",
    "ftp://hooks.example.com/x",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_POST",
    "dict://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://127.0.0.1.:8443/",
    "https://0/",
    "https://0.0.0.0/",
    "https://localhost/",
    "https://localhost:{port}/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://api.localhost/",
    "https://[::1]/",
    "https://[::1]:{port}/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fd00::1]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.100.100.200/latest/meta-data/",
    "https://10.0.0.1/",
    "https://192.168.1.1/",
    "https://172.16.0.1/",
    "https://metadata.google.internal/",
    "https://vault.svc/",
    "https://access.kehu.svc.cluster.local:8443/",
    "https://mongodb/",
    "https://user:secret@hooks.example.com/",
    "https://hooks.example.com@127.0.0.1:{port}/",
    "https://hooks.example.com#@127.0.0.1:{port}/",
    "https://hooks.example.com\\@127.0.0.1:{port}/",
    "https://127.0.0.1:{port}\\@hooks.example.com/",
    "https://hooks.example.com:22/",
    "https://hooks.example.com:27017/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:99999/",
    "https://hooks.example.com:+443/",
    "https://hooks.example.com :443/",
    "https://hooks.example.com/\r\nHost: inside",
    "https://hooks.example.com/ HTTP/1.1",
    "https://①②⑦.⓪.⓪.①/",
    "https://ⓛocalhost/",
    "https:///127.0.0.1/",
    "https:127.0.0.1/",
    "//127.0.0.1:{port}/",
    "https://-hooks.example.com/",
    "https://hooks..example.com/",
    "https://%6c%6f%63alhost/",
    "",
]
INSIDE = [
    "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.31.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
    "100.100.100.200", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
    "224.0.0.1",
    "239.1.1.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
    "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::1", "2001::1", "2001:db8::1",
    "3fff::1", "fe80::1", "fe80::1%lo", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "5f00::1",
    "nonsense",
]  # fmt: skip


class Canary:
    """A listener on loopback, IPv4 and IPv6, that counts who connects."""

    def __init__(self) -> None:
        self.connects = 0
        self._listeners = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._listeners[0].getsockname()[1]
        if socket.has_ipv6:
            self._listeners.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for each in self._listeners:
            threading.Thread(target=self._count, args=(each,), daemon=True).start()

    def _count(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connects += 1
            connection.close()

    def close(self) -> None:
        for each in self._listeners:
            each.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    found = Canary()
    yield found
    found.close()


def test_no_refused_url_makes_a_connection(canary: Canary) -> None:
    """Names resolve to the listener here, whatever they are: only the check of the URL keeps it silent."""
    sender = Sender(resolve=lambda host, port: ["127.0.0.1", "::1"], seconds=2)
    outcomes = {url: sender.send(url.replace("{port}", str(canary.port)), b"{}", {}).kind for url in REFUSED_URLS}

    assert len(REFUSED_URLS) >= 40
    assert {url: kind for url, kind in outcomes.items() if kind != "refused"} == {}
    assert canary.connects == 0


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_refusal_says_what_to_change(url: str) -> None:
    with pytest.raises(TargetRefused) as refused:
        read_target(url.replace("{port}", "9999"))

    assert refused.value.why
    assert refused.value.violations[0].field == "webhook_subscription.target_url"


@pytest.mark.parametrize("address", INSIDE)
def test_a_name_that_leads_inside_is_not_connected_to(address: str, canary: Canary) -> None:
    """DNS of the target's own choosing: a public name with an address of ours, alone and behind a public one."""
    for answers in ([address], ["93.184.216.34", address]):
        sender = Sender(resolve=lambda host, port, answers=answers: answers, seconds=2)
        sender._post = lambda *_: pytest.fail("it would have connected")  # type: ignore[method-assign]

        assert sender.send("https://hooks.example.com/x", b"{}", {}).kind == "refused"
    assert not is_public(address)


def test_a_public_address_is_public() -> None:
    """Else the others would prove nothing."""
    assert all(map(is_public, ("93.184.216.34", "8.8.8.8", "114.114.114.114", "2400:3200::1", "2606:4700:4700::1111")))
    assert read_target("https://Hooks.Example.com/a?b=c").host == "hooks.example.com"
    assert read_target("https://hooks.example.com:8443").port == 8443


def test_a_name_that_changes_its_mind_is_asked_once_and_the_checked_address_is_used(
    canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding: the second answer is loopback; nobody asks a second time, and the connection is to the first."""
    import httpcore

    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    asked, connected = [], []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    def connect(self: object, host: str, port: int, *rest: object, **named: object) -> None:
        connected.append((host, port))
        raise httpcore.ConnectError("nobody there")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    kind = Sender(resolve=resolve, seconds=2).send("https://rebinding.example.com:8443/", b"{}", {}).kind

    assert (kind, asked, connected) == ("unreachable", ["rebinding.example.com"], [("93.184.216.34", 8443)])
    assert canary.connects == 0


def test_the_environment_cannot_divert_a_delivery(canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    sender = Sender(dev_hosts=["127.0.0.1"], seconds=2)

    assert sender.send("https://127.0.0.1:1/", b"{}", {}).kind == "unreachable"
    assert canary.connects == 0


def test_only_hosts_that_the_configuration_names_are_sent_to_unchecked() -> None:
    assert read_target("http://127.0.0.1:9000/x", ["127.0.0.1"]).unchecked
    assert read_target("http://127.0.0.1:9000/x", ["127.0.0.1:9000"]).unchecked
    for url in ("http://127.0.0.1:9001/x", "http://127.0.0.2:9000/x", "https://localhost/"):
        with pytest.raises(TargetRefused):
            read_target(url, ["127.0.0.1:9000"])
