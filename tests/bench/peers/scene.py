"""What both sides of the gateway bench serve: one profile's consent record; and our side's policy and token."""

from __future__ import annotations

import base64
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.timestamp_pb2 import Timestamp
from kehu.consent.v1 import consent_pb2 as pb

from services.access.defaults import default_content
from services.chassis.access import MODEL, PolicySnapshot
from services.chassis.config import ProcessConfig, load_config

SUBJECT, DEPARTMENT, PURPOSE = "app:bench", "marketing", "marketing"
KEY_ID = "bench"
PATH = "/v1/profiles/p1/consents?page_size=20"
ASKED = datetime(2026, 11, 1, 8, 30, 15, 250_000, tzinfo=UTC)


def stamp(when: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(when)
    return found


def consent_record(profile_id: str) -> pb.ConsentRecord:
    return pb.ConsentRecord(
        name=f"profiles/{profile_id}/consents/0192f0c4-0000-7000-8000-000000000001",
        purpose_id="offers",
        channel="email",
        state=pb.CONSENT_STATE_GRANTED,
        notice_id="member",
        notice_version=1,
        language="zh-CN",
        wording_hash="5e" * 32,
        shown_time=stamp(ASKED),
        answer_time=stamp(ASKED),
        collected_via=pb.COLLECTED_VIA_WEB,
        masked_address="203.0.113.*",
        origin_profile_id=profile_id,
    )


def config_of(folder: Path, addresses: dict[str, str]) -> ProcessConfig:
    return load_config(
        {
            "KEHU_DATA_DIR": str(folder),
            "KEHU_MONGO_URI": "mongodb://none",
            "KEHU_AMQP_URI": "amqp://none",
            "KEHU_ADDRESSES": ",".join(f"{name}={address}" for name, address in addresses.items()),
        }
    )


def signing_key(folder: Path) -> Ed25519PrivateKey:
    """Return the key in the folder, made when missing."""
    path = folder / "token.key"
    if not path.exists():
        raw = serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        path.write_bytes(Ed25519PrivateKey.generate().private_bytes(*raw))
    return Ed25519PrivateKey.from_private_bytes(path.read_bytes())


def snapshot_of(folder: Path) -> PolicySnapshot:
    """Return the default policy with the bench's app in it."""
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    public = signing_key(folder).public_key().public_bytes(*raw)
    keys = {KEY_ID: base64.urlsafe_b64encode(public).rstrip(b"=").decode()}
    content = default_content()
    links = [*content.links, (SUBJECT, "role:marketer", DEPARTMENT)]
    return PolicySnapshot(1, MODEL, content.rules, links, keys=keys)


def token_of(folder: Path, config: ProcessConfig) -> str:
    now = int(time.time())
    claims = {
        "iss": config.token_issuer,
        "aud": config.token_audience,
        "sub": SUBJECT,
        "department": DEPARTMENT,
        "iat": now,
        "nbf": now,
        "exp": now + 900,
        "jti": uuid.uuid4().hex,
    }
    headers = {"typ": "at+jwt", "kid": KEY_ID}
    return jwt.encode(claims, signing_key(folder), algorithm="EdDSA", headers=headers)
