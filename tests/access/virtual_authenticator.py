"""An authenticator in software, as a browser drives it (Web Authentication Level 2, §6), with a switch per fault."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

PRESENT, VERIFIED, ATTESTED = 1, 4, 64


def text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def raw(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "==")


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


@dataclass
class VirtualAuthenticator:
    """One credential; `counts` makes it a key with a counter, else its counter stays 0 as that of passkeys."""

    algorithm: str = "ES256"
    counts: bool = True
    verifies: bool = True
    bits: int = 2048
    credential_id: bytes = field(default_factory=lambda: os.urandom(32))
    handle: str = ""
    count: int = 0

    def __post_init__(self) -> None:
        if self.algorithm == "ES256":
            self.key: Any = ec.generate_private_key(ec.SECP256R1())
        elif self.algorithm == "EdDSA":
            self.key = ed25519.Ed25519PrivateKey.generate()
        else:
            self.key = rsa.generate_private_key(65537, self.bits)

    def public_key(self) -> bytes:
        """Return the public key as COSE."""
        public = self.key.public_key()
        if self.algorithm == "ES256":
            found = public.public_numbers()
            return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: number(found.x, 32), -3: number(found.y, 32)})
        if self.algorithm == "EdDSA":
            return cbor2.dumps({1: 1, 3: -8, -1: 6, -2: public.public_bytes_raw()})
        found = public.public_numbers()
        return cbor2.dumps({1: 3, 3: -257, -1: number(found.n, self.bits // 8), -2: number(found.e, 3)})

    def sign(self, message: bytes) -> bytes:
        if self.algorithm == "ES256":
            return self.key.sign(message, ec.ECDSA(hashes.SHA256()))
        if self.algorithm == "EdDSA":
            return self.key.sign(message)
        return self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())

    def create(self, options: str, origin: str, **faults: Any) -> str:
        """Return what `navigator.credentials.create` gives, as JSON."""
        asked = json.loads(options)
        self.handle = asked["user"]["id"]
        public = faults.get("public_key", self.public_key())
        attested = bytes(16) + struct.pack(">H", len(self.credential_id)) + self.credential_id + public
        data = self._data(faults.get("rp_id", asked["rp"]["id"]), faults.get("flags", PRESENT) | ATTESTED) + attested
        client_data = self._client_data(faults.get("type", "webauthn.create"), asked["challenge"], origin, faults)
        statement: dict[str, Any] = faults.get("statement", {})
        if faults.get("fmt") == "packed" and not statement:
            algorithm = {"ES256": -7, "EdDSA": -8, "RS256": -257}[self.algorithm]
            statement = {"alg": algorithm, "sig": self.sign(data + hashlib.sha256(client_data).digest())}
        attestation = cbor2.dumps({"fmt": faults.get("fmt", "none"), "attStmt": statement, "authData": data})
        response = {"attestationObject": text(attestation), "transports": ["usb", "telepathy"]}
        return self._credential(client_data, response)

    def get(self, options: str, origin: str, **faults: Any) -> str:
        """Return what `navigator.credentials.get` gives, as JSON."""
        asked = json.loads(options)
        self.count += self.counts
        verified = VERIFIED if faults.get("verified", self.verifies) else 0
        flags = faults.get("flags", PRESENT | verified)
        data = self._data(faults.get("rp_id", asked["rpId"]), flags, faults.get("count", self.count))
        challenge = faults.get("challenge", asked["challenge"])
        client_data = self._client_data(faults.get("type", "webauthn.get"), challenge, origin, faults)
        signature = faults.get("signature") or self.sign(data + hashlib.sha256(client_data).digest())
        response: dict[str, Any] = {
            "authenticatorData": text(faults.get("data", data)),
            "signature": text(signature),
            "userHandle": faults.get("handle", self.handle),
        }
        return self._credential(faults.get("client_data", client_data), response, faults.get("id"))

    def _data(self, rp_id: str, flags: int, count: int | None = None) -> bytes:
        return hashlib.sha256(rp_id.encode()).digest() + struct.pack(
            ">BI", flags, self.count if count is None else count
        )

    def _client_data(self, kind: str, challenge: str, origin: str, faults: dict[str, Any]) -> bytes:
        found = {
            "type": kind,
            "challenge": challenge,
            "origin": origin,
            "crossOrigin": faults.get("crossOrigin", False),
        }
        return json.dumps(found).encode()

    def _credential(self, client_data: bytes, response: dict[str, Any], id: bytes | None = None) -> str:
        name = text(id or self.credential_id)
        response = {"clientDataJSON": text(client_data), **response}
        return json.dumps({"id": name, "rawId": name, "type": "public-key", "response": response,
                           "clientExtensionResults": {}, "authenticatorAttachment": "cross-platform"})  # fmt: skip
