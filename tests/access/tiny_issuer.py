"""A company issuer that exists only in a test: discovery, key set, and tokens right and wrong."""

from __future__ import annotations

import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ALGORITHMS = jwt.algorithms.get_default_algorithms()


def a_key(algorithm: str = "EdDSA") -> object:
    """Return a private key for the algorithm."""
    if algorithm in ("RS256", "PS256"):
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def jwk(key: object, algorithm: str, kid: str) -> dict[str, object]:
    """Return the public half of a key as a JWK."""
    return {**json.loads(ALGORITHMS[algorithm].to_jwk(key.public_key())), "kid": kid, "use": "sig"}


@dataclass
class TinyIssuer:
    """Serves `pages` by path below its URL, counting what is asked."""

    url: str = ""
    key: object = field(default_factory=a_key)
    algorithm: str = "EdDSA"
    kid: str = "k1"
    pages: dict[str, object] = field(default_factory=dict)
    encoding: str = ""
    asked: list[str] = field(default_factory=list)

    def publish(self) -> None:
        """Show the present key."""
        self.pages["/.well-known/openid-configuration"] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.pages["/keys"] = {"keys": [jwk(self.key, self.algorithm, self.kid)]}

    def turn(self, kid: str, algorithm: str = "EdDSA") -> None:
        """Sign with a new key from now on, and show it alone."""
        self.key, self.kid, self.algorithm = a_key(algorithm), kid, algorithm
        self.publish()

    def token(self, now: float, key: object = None, algorithm: str = "", headers: dict | None = None,
              **changes: object) -> str:  # fmt: skip
        """Return an ID token of alice, with changes; None leaves a claim out."""
        right = {"iss": self.url, "sub": "08a8", "aud": "kehu", "iat": int(now), "exp": int(now) + 3600,
                 "preferred_username": "alice", "groups": ["sales-team"], "jti": uuid.uuid4().hex}  # fmt: skip
        claims = {name: value for name, value in {**right, **changes}.items() if value is not None}
        kid = {"kid": self.kid, **(headers or {})}
        return jwt.encode(claims, key or self.key, algorithm or self.algorithm, headers=kid)


@contextmanager
def running_issuer() -> Iterator[TinyIssuer]:
    """Serve an issuer on this machine until the block ends."""
    issuer = TinyIssuer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            issuer.asked.append(self.path)
            found = issuer.pages.get(self.path)
            if isinstance(found, str):  # a redirect
                self.send_response(302)
                self.send_header("Location", found)
                self.end_headers()
                return
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(200 if found is not None else 404)
            self.send_header("Content-Length", str(len(body)))
            if issuer.encoding:
                self.send_header("Content-Encoding", issuer.encoding)
            self.end_headers()
            with suppress(ConnectionError):  # who asked may have heard enough
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    issuer.publish()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
