"""Keys in files or with a keeper, sealed bytes, a data key per customer, and keyed tokens for exact look-up.

suites: the ciphers · keys: key files · sealing: of a service and of a customer · parts: long content ·
master: who wraps data keys (hsm, transit: two that are no file) · data_keys: unwrapped ones in memory · blind: tokens ·
settings: the choices.
Every ciphertext has a random 96-bit nonce (NIST SP 800-38D) and is bound by its associated data to its cipher, its key,
its purpose and the place it belongs to.
"""

from services.chassis.crypto.blind import BlindIndex
from services.chassis.crypto.data_keys import DataKeys
from services.chassis.crypto.keys import KEY_ID_BYTES, Key, KeyFile, SealBroken, add_key, read_keys, remove_key
from services.chassis.crypto.master import FileKeeper, MasterKeeper, MasterKey, MasterKeyUnavailable
from services.chassis.crypto.parts import PartedFile, sealed_parts
from services.chassis.crypto.sealing import HEADER_BYTES, FieldCipher, Sealer, key_id_of
from services.chassis.crypto.settings import PERSONAL, SENSITIVE, Protection
from services.chassis.crypto.suites import AES_256_GCM, KEY_BYTES, NONCE_BYTES, SM4_GCM, TAG_BYTES

__all__ = [
    "AES_256_GCM", "HEADER_BYTES", "KEY_BYTES", "KEY_ID_BYTES", "NONCE_BYTES", "PERSONAL", "SENSITIVE", "SM4_GCM",
    "TAG_BYTES", "BlindIndex", "DataKeys", "FieldCipher", "FileKeeper", "Key", "KeyFile", "MasterKeeper", "MasterKey",
    "MasterKeyUnavailable", "PartedFile", "Protection", "SealBroken", "Sealer", "add_key", "key_id_of", "read_keys",
    "remove_key", "sealed_parts",
]  # fmt: skip
