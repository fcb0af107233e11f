"""One suite for all keepers of master keys: a file, a hardware module (SoftHSM), a key service over HTTP."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.chassis.crypto import DataKeys, MasterKey, MasterKeyUnavailable, Protection, SealBroken
from services.chassis.crypto.hsm import Pkcs11Keeper
from tests.conftest import unavailable

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
SERVICE_TOKEN = "a-token"


class FakeTransit(ThreadingHTTPServer):
    """The calls of a transit engine that a keeper makes, with real AES behind them; `broken` answers 503."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FakeTransitCalls)
        self.keys = {1: AESGCM.generate_key(256)}
        self.oldest = 1
        self.broken = False
        self.calls = 0


class FakeTransitCalls(BaseHTTPRequestHandler):
    server: FakeTransit

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _handle(self) -> None:
        state, length = self.server, int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        state.calls += 1
        if state.broken:
            return self._answer(503, {"errors": ["Vault is sealed"]})
        if self.headers["X-Vault-Token"] != SERVICE_TOKEN:
            return self._answer(403, {"errors": ["permission denied"]})
        verb, _, rest = self.path.removeprefix("/v1/transit/").partition("/")
        if verb == "encrypt":
            return self._answer(200, {"data": {"batch_results": [self._encrypt(item) for item in body["batch_input"]]}})
        if verb == "decrypt":
            results = [self._decrypt(item) for item in body["batch_input"]]
            return self._answer(400 if all("error" in item for item in results) else 200,
                                {"data": {"batch_results": results}})  # fmt: skip
        if rest.endswith("/rotate"):
            state.keys[max(state.keys) + 1] = AESGCM.generate_key(256)
        elif rest.endswith("/trim"):
            state.oldest = body["min_available_version"]
            state.keys = {number: key for number, key in state.keys.items() if number >= state.oldest}
        return self._answer(200, {"data": {"latest_version": max(state.keys), "min_decryption_version": state.oldest}})

    do_GET = do_POST = _handle

    def _encrypt(self, item: dict[str, str]) -> dict[str, str]:
        version, nonce = max(self.server.keys), AESGCM.generate_key(128)[:12]
        plain, aad = base64.b64decode(item["plaintext"]), base64.b64decode(item["associated_data"])
        body = nonce + AESGCM(self.server.keys[version]).encrypt(nonce, plain, aad)
        return {"ciphertext": f"vault:v{version}:{base64.b64encode(body).decode()}"}

    def _decrypt(self, item: dict[str, str]) -> dict[str, str]:
        try:
            _, version, body = item["ciphertext"].split(":")
            raw = base64.b64decode(body)
            key = AESGCM(self.server.keys[int(version[1:])])
            plain = key.decrypt(raw[:12], raw[12:], base64.b64decode(item["associated_data"]))
            return {"plaintext": base64.b64encode(plain).decode()}
        except Exception:
            return {"error": "cipher: message authentication failed"}


@pytest.fixture
def transit():
    server = FakeTransit()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def hsm(tmp_path_factory) -> dict[str, str]:
    """A SoftHSM token of our own; its library reads its configuration once a process."""
    if not SOFTHSM.exists() or shutil.which("softhsm2-util") is None:
        unavailable("SoftHSM is not installed: run `apt-get install softhsm2`")
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    patch = pytest.MonkeyPatch()
    patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    init = ["softhsm2-util", "--init-token", "--free", "--label", "kehu", "--pin", "4711", "--so-pin", "4712"]
    subprocess.run(init, check=True, capture_output=True)
    (folder / "pin").write_text("4711\n")
    return {"pkcs11.module": str(SOFTHSM), "pkcs11.token": "kehu", "pkcs11.pin_file": str(folder / "pin")}


def transit_protection(server: FakeTransit, folder: Path, former: tuple[str, ...] = ()) -> Protection:
    (folder / "token").write_text(SERVICE_TOKEN)
    settings = {"transit.url": f"http://127.0.0.1:{server.server_port}", "transit.key": "kehu",
                "transit.token_file": str(folder / "token")}  # fmt: skip
    return Protection(master_key="transit", settings=settings, former=former)


@pytest.fixture(params=["file", "pkcs11", "transit"])
def protection(request, tmp_path) -> Protection:
    if request.param == "pkcs11":
        label = {"pkcs11.label": f"kehu-{tmp_path.name}"}
        return Protection(master_key="pkcs11", settings={**request.getfixturevalue("hsm"), **label})
    if request.param == "transit":
        return transit_protection(request.getfixturevalue("transit"), tmp_path)
    return Protection()


def test_data_keys_unwrap_under_their_own_ids_only(protection, tmp_path):
    master = MasterKey(tmp_path, protection)
    keys = {"key-1": b"k" * 32, "key-2": b"l" * 32}
    wrapped = master.wrap(keys)

    assert MasterKey(tmp_path, protection).unwrap(wrapped) == keys
    assert not any(key in value for key in keys.values() for value in wrapped.values())
    with pytest.raises(SealBroken):
        master.unwrap({"key-2": wrapped["key-1"]})
    for at in (-1, -20, 40):
        bad = bytearray(wrapped["key-1"])
        bad[at] ^= 1
        with pytest.raises(SealBroken):
            master.unwrap({"key-1": bytes(bad)})


def test_rewrapping_moves_data_keys_to_the_newest_version_and_the_old_one_can_be_destroyed(protection, tmp_path):
    master = MasterKey(tmp_path, protection)
    keys = DataKeys(master)
    wrapped, cipher = keys.new(["key-1"])["key-1"]
    sealed, old = cipher.seal("golden", b"x", "p1"), master.version_of(wrapped)
    other = MasterKey(tmp_path, protection)
    new = master.create()

    assert (master.newest(), master.versions()[-1]) == (new, new)
    assert master.is_stale(wrapped) and old in master.versions()
    again = master.rewrap({"key-1": wrapped})
    assert not master.is_stale(again["key-1"])
    assert other.unwrap(again) == master.unwrap({"key-1": wrapped})
    with pytest.raises(SealBroken):
        master.retire(new)
    master.retire(old)
    assert old not in master.versions()
    assert DataKeys(master).ciphers(again)["key-1"].open("golden", sealed, "p1") == b"x"
    with pytest.raises(SealBroken):
        MasterKey(tmp_path, protection).unwrap({"key-1": wrapped})


def test_an_installation_moves_from_a_file_to_another_keeper(protection, tmp_path):
    wrapped = MasterKey(tmp_path).wrap({"key-1": b"k" * 32})
    moving = MasterKey(tmp_path, Protection(
        master_key=protection.master_key, settings=protection.settings, former=("file",),
    ))  # fmt: skip

    assert moving.unwrap(wrapped) == {"key-1": b"k" * 32}
    again = moving.rewrap(wrapped)
    assert moving.version_of(again["key-1"]).startswith(f"{protection.master_key}/")
    assert MasterKey(tmp_path, protection).unwrap(again) == {"key-1": b"k" * 32}


def test_while_the_key_service_is_away_known_keys_open_and_new_ones_are_refused(transit, tmp_path):
    keys = DataKeys(MasterKey(tmp_path, transit_protection(transit, tmp_path)))
    known = {key_id: value for key_id, (value, _) in keys.new(["key-1"]).items()}
    stranger = DataKeys(MasterKey(tmp_path, transit_protection(transit, tmp_path)))
    transit.broken = True

    assert keys.ciphers(known)["key-1"].key_id == "key-1"
    with pytest.raises(MasterKeyUnavailable):
        keys.new(["key-2"])
    with pytest.raises(MasterKeyUnavailable):
        stranger.ciphers(known)
    transit.broken = False
    assert stranger.ciphers(known)["key-1"].key_id == "key-1"


def test_a_key_service_that_is_gone_or_locks_us_out_is_unavailable(transit, tmp_path):
    master = MasterKey(tmp_path, transit_protection(transit, tmp_path))
    (tmp_path / "token").write_text("another")
    with pytest.raises(MasterKeyUnavailable, match="403"):
        master.wrap({"key-1": b"k" * 32})
    (tmp_path / "token").unlink()
    with pytest.raises(MasterKeyUnavailable):
        master.wrap({"key-1": b"k" * 32})


def test_five_hundred_customers_cost_one_call_of_the_key_service(transit, tmp_path):
    keys = DataKeys(MasterKey(tmp_path, transit_protection(transit, tmp_path)))
    keys.new([f"key-{i}" for i in range(500)])

    assert transit.calls == 1


def test_a_hardware_module_that_is_away_is_unavailable_and_comes_back(hsm, tmp_path):
    master = MasterKey(tmp_path, Protection(master_key="pkcs11", settings={**hsm, "pkcs11.label": "kehu-away"}))
    wrapped, keeper = master.wrap({"key-1": b"k" * 32}), master._current
    keeper._session.close()
    keeper._settings["token"] = "pulled out"
    for _ in range(2):
        with pytest.raises(MasterKeyUnavailable):
            master.unwrap(wrapped)
        with pytest.raises(MasterKeyUnavailable):
            master.wrap({"key-2": b"k" * 32})

    keeper._settings["token"] = hsm["pkcs11.token"]
    assert master.unwrap(wrapped) == {"key-1": b"k" * 32}


def test_processes_that_start_at_once_open_what_each_other_wrapped(hsm, tmp_path, monkeypatch):
    protection = Protection(master_key="pkcs11", settings={**hsm, "pkcs11.label": "kehu-at-once"})
    one, look = MasterKey(tmp_path, protection), Pkcs11Keeper.versions
    empty: list[list[str]] = [[], []]  # the other looked before the one had made its key
    monkeypatch.setattr(Pkcs11Keeper, "versions", lambda keeper: empty.pop() if empty else look(keeper))
    other = MasterKey(tmp_path, protection)._current

    assert one.newest() == f"pkcs11/{other.newest()}"
    twins = other._keys[other.newest()]
    assert len(twins) == 2
    for key in twins:  # whichever the module names first
        other._keys = {other.newest(): [key]}
        wrapped = other.wrap({"key-1": b"k" * 32})
        assert one._current.unwrap(wrapped) == {"key-1": b"k" * 32}


def test_an_unknown_keeper_or_a_missing_setting_is_refused_at_the_start(tmp_path):
    with pytest.raises(SealBroken, match="nobody"):
        MasterKey(tmp_path, Protection(master_key="nobody"))
    with pytest.raises(SealBroken, match=r"transit\.url, transit\.key"):
        MasterKey(tmp_path, Protection(master_key="transit"))
