"""The signing keys of access as files: made on the first start, mode 0600, never sent anywhere."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from services.access.domain.tokens import SigningKey
from services.chassis.config import ConfigError
from services.chassis.durable import write_whole


def token_keys(keys_dir: Path) -> tuple[SigningKey, ...]:
    """Return all keys `token-*.pem` by name, the newest last; the first is made when there is none."""
    if not any(keys_dir.glob("token-*.pem")):
        _create(keys_dir / "token-0001.pem")
    return tuple(SigningKey(_load(path)) for path in sorted(keys_dir.glob("token-*.pem")))


def audit_key(keys_dir: Path) -> Ed25519PrivateKey:
    """Return the key that signs audit blocks; whoever has only the database cannot forge a chain."""
    return _own(keys_dir / "audit.pem")


def checkpoint_key(keys_dir: Path) -> Ed25519PrivateKey:
    """Return the key that signs the checkpoints of the audit chain, another than that of its blocks."""
    return _own(keys_dir / "audit-checkpoint.pem")


def _own(path: Path) -> Ed25519PrivateKey:
    """Return a key, made when it is not there.

    Raises:
        ConfigError: it is not there, and the folder is one that only the operator writes, such as a secret's.
    """
    try:
        if not path.exists():
            _create(path)
    except OSError as error:
        how = "put an Ed25519 key there: openssl genpkey -algorithm ed25519"
        raise ConfigError(f"{path} is not there and cannot be made ({type(error).__name__}); {how}") from None
    return _load(path)


def _create(path: Path) -> None:
    """Write a new key whole; of several processes starting at once the first wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with suppress(FileExistsError):
        write_whole(path, pem, exclusive=True)


def _load(path: Path) -> Ed25519PrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path.name} holds no Ed25519 key: restore it from its backup")
    return key
