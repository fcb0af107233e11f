"""Master keys with a key service over HTTP: the transit engine of HashiCorp Vault and OpenBao (API v1).

Settings: `transit.url` (https://host:8200), `transit.key` (its name), `transit.token_file`; `transit.mount` (transit
when not given), `transit.ca_file`. The key must be of type aes256-gcm96 or sm4-gcm. A whole batch is one call.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from services.chassis.crypto.keys import SealBroken
from services.chassis.crypto.master import MasterKeyUnavailable

SECONDS = 3.0
LOOK_SECONDS = 5.0  # how often the service is asked for the newest version
_REQUIRED = ("url", "key", "token_file")
_REFUSED = 400


class TransitKeeper:
    """A MasterKeeper that is a key of a transit engine; a version is its number."""

    def __init__(self, keys_dir: Path, settings: Mapping[str, str], cipher: str) -> None:
        """Remember where it is; nobody is called.

        Raises:
            SealBroken: a setting is missing.
        """
        missing = [f"transit.{name}" for name in _REQUIRED if not settings.get(name)]
        if missing:
            raise SealBroken(f"KEHU_MASTER_KEY_SETTINGS lacks {', '.join(missing)}")
        self._token_file = Path(settings["token_file"])
        self._mount, self._name = settings.get("mount", "transit"), settings["key"]
        self._client = httpx.Client(
            base_url=settings["url"], timeout=SECONDS, verify=settings.get("ca_file") or True, trust_env=False
        )
        self._lock = threading.Lock()
        self._known: tuple[float, list[str]] = (0.0, [])

    def wrap(self, data_keys: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the data keys encrypted by the newest version."""
        items = [{"plaintext": _text(value), "associated_data": _text(key_id.encode())}
                 for key_id, value in data_keys.items()]  # fmt: skip
        found = self._batch("encrypt", items)
        return {key_id: str(item["ciphertext"]).encode() for key_id, item in zip(data_keys, found, strict=True)}

    def unwrap(self, wrapped: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the data keys."""
        items = [{"ciphertext": value.decode("ascii", "replace"), "associated_data": _text(key_id.encode())}
                 for key_id, value in wrapped.items()]  # fmt: skip
        found = self._batch("decrypt", items)
        return {key_id: base64.b64decode(item["plaintext"]) for key_id, item in zip(wrapped, found, strict=True)}

    def version_of(self, wrapped: bytes) -> str:
        """Return the number in `vault:v3:…`."""
        return wrapped[:32].decode("ascii", "replace").split(":")[1].removeprefix("v") if b":" in wrapped[:32] else "?"

    def newest(self) -> str:
        """Return the newest version; asked every few seconds."""
        looked, versions = self._known
        return versions[-1] if versions and time.monotonic() - looked < LOOK_SECONDS else self.versions()[-1]

    def versions(self) -> list[str]:
        """Return the versions that decrypt."""
        data = self._call("GET", f"keys/{self._name}")["data"]
        first, last = int(data["min_decryption_version"]) or 1, int(data["latest_version"])
        found = [str(number) for number in range(first, last + 1)]
        self._known = (time.monotonic(), found)
        return found

    def create(self) -> str:
        """Let the service make a new version."""
        self._call("POST", f"keys/{self._name}/rotate", {})
        return self.versions()[-1]

    def retire(self, version: str) -> None:
        """Let the service forget this version and all before it: it trims a key from its beginning only."""
        after = int(version) + 1
        if version != self.versions()[0]:
            raise SealBroken("a key service forgets its oldest version first")
        least = {"min_decryption_version": after, "min_encryption_version": after}
        self._call("POST", f"keys/{self._name}/config", least)
        self._call("POST", f"keys/{self._name}/trim", {"min_available_version": after})
        self.versions()

    def _batch(self, verb: str, items: list[dict[str, str]]) -> list[dict[str, Any]]:
        results = self._call("POST", f"{verb}/{self._name}", {"batch_input": items})["data"]["batch_results"]
        if len(results) != len(items) or any(item.get("error") for item in results):
            raise SealBroken("the key service refused a data key: it was changed, moved, or its version is gone")
        return list(results)

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Call the service.

        Raises:
            MasterKeyUnavailable: it does not answer, is sealed, or does not let us in.
            SealBroken: it refuses what it was given.
        """
        try:
            headers = {"X-Vault-Token": self._token_file.read_text(encoding="ascii").strip()}
            with self._lock:
                reply = self._client.request(method, f"/v1/{self._mount}/{path}", json=body, headers=headers)
            if reply.status_code == _REFUSED:
                raise SealBroken("the key service refused: a data key was changed, moved, or its version is gone")
            if not reply.is_success:
                raise MasterKeyUnavailable(f"the key service does not serve us (HTTP {reply.status_code})")
            return dict(reply.json()) if reply.content else {}
        except (httpx.HTTPError, OSError, ValueError) as error:
            raise MasterKeyUnavailable(f"the key service does not answer ({type(error).__name__})") from None


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
