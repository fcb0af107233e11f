"""Find a person's values in bytes: in clear in any usual form, or behind a seal that a key of this machine opens."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
import psutil
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from numpy.lib.stride_tricks import sliding_window_view

from services.chassis.crypto.keys import Key, read_keys
from services.chassis.crypto.suites import AES_256_GCM, CODES, NONCE_BYTES

SEALED_AT_MOST = 4096  # bytes tried behind each header
PRESSED = ".store"  # of tantivy: what documents keep, in blocks of LZ4
COUNTERS = np.arange(2, 26, dtype=np.uint8)  # of the first 384 bytes behind a nonce
OFFSETS_AT_ONCE = 10_000
TICK_SECONDS = 0.02
OPEN_FILE_LIMIT = 64 << 20


def forms(value: str) -> set[bytes]:
    """Return how a text may stand in a file: UTF-8 and 16, JSON and URL escapes, hexadecimal, base64 at any offset."""
    plain = value.encode()
    found = {
        plain,
        value.encode("utf-16-le"),
        value.encode("utf-16-be"),
        plain.hex().encode(),
        plain.hex().upper().encode(),
    }
    found |= {json.dumps(value)[1:-1].encode(), quote(value).encode(), quote(value).lower().encode()}
    for shift in range(3):  # the first and last characters hang on the neighbours: they are left out
        encoded = base64.b64encode(b"\0" * shift + plain)[-(-8 * shift // 6) : -4]
        found |= {encoded, encoded.replace(b"+", b"-").replace(b"/", b"_")}
    return {form for form in found if len(form) >= 6}


class Canaries:
    """The values of a person, each with all its forms."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._plain = {name: value.encode() for name, value in values.items()}
        self._names = {form: name for name, value in values.items() for form in forms(value)}
        self._any = re.compile(b"|".join(re.escape(form) for form in sorted(self._names, key=len, reverse=True)))

    def within(self, content: bytes) -> set[str]:
        """Return the names of the values that the bytes hold in clear."""
        return {self._names[found] for found in set(self._any.findall(content))}

    def in_files(self, folder: Path) -> dict[str, set[str]]:
        """Return file → names of values, for each file below the folder that holds any in clear."""
        found = {str(path.relative_to(folder)): self.within(content) for path, content in files(folder)}
        return {path: names for path, names in found.items() if names}

    def behind_seals(self, folder: Path, keys: Iterable[Key]) -> dict[str, set[str]]:
        """Return what whoever has these keys reads in the files: each place that looks sealed by one is opened.

        Without the tag's check, as one who reads a torn page would: GCM without it is counter mode from block 2.
        """
        secrets = {bytes((CODES[AES_256_GCM],)) + key.key_id: key.secret for key in keys}
        header = re.compile(b"|".join(re.escape(each) for each in secrets) or b"(?!)")
        found: dict[str, set[str]] = {}
        for path, content in files(folder):
            names: set[str] = set()
            for part in (content, *decoded(content)):
                for place in header.finditer(part):
                    body = part[place.end() : place.end() + NONCE_BYTES + SEALED_AT_MOST]
                    names |= self.within(counter_mode(secrets[place.group()], body))
            if path.suffix == PRESSED:
                names |= {name for secret in secrets.values() for name in self._everywhere(content, secret)}
            if names:
                found[str(path.relative_to(folder))] = names
        return found

    def _everywhere(self, content: bytes, secret: bytes) -> set[str]:
        """Return the values behind seals that begin anywhere: where LZ4 put a reference for a header seen before."""
        span = len(COUNTERS) * 16
        padded = np.frombuffer(content + bytes(span), np.uint8)
        nonces, bodies = sliding_window_view(padded, NONCE_BYTES), sliding_window_view(padded[NONCE_BYTES:], span)
        cipher, found = Cipher(AES(secret), ECB()).encryptor(), set()
        for start in range(0, len(content) - NONCE_BYTES, OFFSETS_AT_ONCE):
            some = nonces[start : start + OFFSETS_AT_ONCE][: len(bodies) - start]
            blocks = np.zeros((len(some), len(COUNTERS), 16), np.uint8)
            blocks[:, :, :NONCE_BYTES], blocks[:, :, 15] = some[:, None, :], COUNTERS
            stream = np.frombuffer(cipher.update(blocks.tobytes()), np.uint8).reshape(len(some), span)
            opened = (stream ^ bodies[start : start + len(some)]).tobytes()
            found |= {name for name, plain in self._plain.items() if plain in opened}
        return found


def decoded(content: bytes) -> Iterator[bytes]:
    """Yield what stands in base64, as sealed bytes do in JSON."""
    for run in re.findall(rb"[A-Za-z0-9+/]{64,}", content):
        yield base64.b64decode(run[: len(run) // 4 * 4])


def counter_mode(secret: bytes, body: bytes) -> bytes:
    """Return nonce-and-ciphertext in clear, whatever follows it as noise."""
    nonce, ciphertext = body[:NONCE_BYTES], body[NONCE_BYTES:]
    if len(nonce) < NONCE_BYTES:
        return b""
    return Cipher(AES(secret), CTR(nonce + b"\0\0\0\x02")).decryptor().update(ciphertext)


def files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the regular files below a folder that are there when their turn comes."""
    for path in sorted(folder.rglob("*")):
        try:
            if stat.S_ISREG(path.lstat().st_mode):
                yield path, path.read_bytes()
        except (FileNotFoundError, PermissionError):
            continue


def keys_of(folder: Path, *names: str) -> list[Key]:
    """Return the keys of these key files."""
    return [key for name in names for key in read_keys(name, folder)]


class Watch:
    """Reads, all the time, every file that processes have open, deleted ones too, and tells where a value was seen."""

    def __init__(self, canaries: Canaries, pids: Iterable[int], ignored: Iterable[Path] = ()) -> None:
        self._canaries = canaries
        self._pids = list(pids)
        self._ignored = [str(path) for path in ignored]
        self._known: dict[tuple[int, int], tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self.seen: dict[str, set[str]] = {}
        self.looks = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            for pid in self._family():
                self._look(pid)
            self.looks += 1

    def _family(self) -> Iterator[int]:
        for pid in self._pids:
            try:
                yield pid
                yield from (child.pid for child in psutil.Process(pid).children(recursive=True))
            except psutil.Error:
                continue

    def _look(self, pid: int) -> None:
        try:
            handles = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            return
        for handle in handles:
            path = f"/proc/{pid}/fd/{handle}"
            try:
                told, name = os.stat(path), os.readlink(path)
                state = (told.st_mtime_ns, told.st_size)
                is_new = stat.S_ISREG(told.st_mode) and self._known.get((told.st_dev, told.st_ino)) != state
                if (
                    not is_new
                    or not told.st_size
                    or told.st_size > OPEN_FILE_LIMIT
                    or name.startswith(tuple(self._ignored))
                ):
                    continue
                self._known[told.st_dev, told.st_ino] = state
                names = self._canaries.within(Path(path).read_bytes())
            except OSError:
                continue
            if names:
                self.seen.setdefault(name, set()).update(names)
