"""WebAuthn in a real browser with its virtual authenticator, against a page of ten lines."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest

from services.access.domain.webauthn import RelyingParty
from tests.access.browser import FOUND, Browser, running_browser
from tests.access.test_api import refusal
from tests.access.test_authenticators import activate, asked, asked_again, begin, by_passkey, by_password, step_up
from tests.access.test_step_up import claims
from tests.access.world import World, running_world

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FOUND, reason="install Chromium: apt-get install chromium")]
PAGE = b"""<!doctype html><title>Kehu</title><script>
const key = PublicKeyCredential
async function create(options) {
  const publicKey = key.parseCreationOptionsFromJSON(options)
  return JSON.stringify(await navigator.credentials.create({publicKey}))
}
async function get(options) {
  const publicKey = key.parseRequestOptionsFromJSON(options)
  return JSON.stringify(await navigator.credentials.get({publicKey}))
}
</script>"""


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *parts: object) -> None:
        """Say nothing."""


@pytest.fixture
def origin() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def shown(browser: Browser, call: str, options: str) -> str:
    return str(browser.run(f"{call}({options})"))


def signs_in(world: World, browser: Browser) -> None:
    begun = begin(world)
    activate(world, begun, credential=shown(browser, "create", begun.creation_options))

    held = by_password(world, shown(browser, "get", asked(world)))
    fresh = step_up(world, held, shown(browser, "get", asked_again(world)))
    passkey = by_passkey(world, shown(browser, "get", asked(world, "", True)))

    assert [claims(each)["amr"] for each in (held, fresh, passkey)] == [["pwd", "pop"], ["pwd", "pop"], ["pop", "mfa"]]
    answer = json.loads(shown(browser, "get", asked(world)))
    answer["response"]["signature"] = answer["response"]["signature"][:-4] + "AAAA"
    with pytest.raises(grpc.RpcError) as caught:
        by_password(world, json.dumps(answer))
    assert refusal(caught.value) == ("UNAUTHENTICATED", "CREDENTIALS_REFUSED")


def test_a_browser_registers_a_passkey_signs_in_and_steps_up(origin: str, tmp_path: Path) -> None:
    party = RelyingParty("localhost", (origin,))
    with running_world(relying_party=party) as world, running_browser(tmp_path) as browser:
        browser.open(f"{origin}/")
        browser.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
            "isUserVerified": True, "automaticPresenceSimulation": True,
        }  # fmt: skip
        browser.send("WebAuthn.addVirtualAuthenticator", options=options)
        signs_in(world, browser)
