"""Lists of stolen passwords, looked up without a network: one that comes with us, and the company's own file."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from services.chassis.config import ConfigError
from services.chassis.errors import Unavailable

LINE = re.compile(rb"([0-9A-Fa-f]{40})(:[0-9]+)?\r?\n?")  # SHA-1, then how often it was seen
LONGEST_LINE = 80  # bytes


@dataclass(frozen=True, slots=True)
class BreachedPasswords:
    """The 30,000 most used passwords of zxcvbn, and a file of SHA-1 hashes in order, as Have I Been Pwned gives it."""

    file: Path | None = None

    def __post_init__(self) -> None:
        if self.file is None:
            return
        try:
            with self.file.open("rb") as opened:
                first = opened.readline(LONGEST_LINE)
        except OSError as error:
            raise ConfigError(f"KEHU_BREACHED_PASSWORDS cannot be read ({type(error).__name__})") from None
        if not LINE.fullmatch(first):
            raise ConfigError("KEHU_BREACHED_PASSWORDS must be lines of SHA-1:count in the order of the hashes")

    def contains(self, password: str) -> bool:
        """Tell whether a password is in one of the lists.

        Raises:
            Unavailable: the company's file is gone or is not in order where it was read: no password is set then.
        """
        from zxcvbn.frequency_lists import FREQUENCY_LISTS  # 0.1 s: only who sets a password waits for it

        if password.casefold() in _set_of(FREQUENCY_LISTS["passwords"]):
            return True
        digest = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
        return self.file is not None and _is_in(self.file, digest)

    def guesses(self, password: str, login: str) -> float:
        """Return zxcvbn's estimate."""
        from zxcvbn import zxcvbn

        return float(zxcvbn(password, user_inputs=[login], max_length=max(len(password), 72))["guesses"])


_sets: dict[int, frozenset[str]] = {}


def _set_of(words: list[str]) -> frozenset[str]:
    known = _sets.get(id(words))
    if known is None:
        known = _sets[id(words)] = frozenset(words)
    return known


def _is_in(path: Path, digest: bytes) -> bool:
    """Search by halving the file: 40 GB take about 35 reads."""
    try:
        with path.open("rb") as file:
            low, high = 0, os.fstat(file.fileno()).st_size
            while low < high:
                middle = (low + high) // 2
                start = _line_start(file.fileno(), middle)
                line = os.pread(file.fileno(), LONGEST_LINE, start).split(b"\n", 1)[0] + b"\n"
                match = LINE.fullmatch(line)
                if match is None:
                    raise Unavailable("The list of stolen passwords is damaged; tell operations.")
                found = match[1].upper()
                if found == digest:
                    return True
                if found < digest:
                    low = start + len(line)
                else:
                    high = start
            return False
    except OSError:
        raise Unavailable("The list of stolen passwords cannot be read; tell operations.") from None


def _line_start(descriptor: int, position: int) -> int:
    begin = max(0, position - LONGEST_LINE)
    return begin + os.pread(descriptor, position - begin, begin).rfind(b"\n") + 1 if position else 0
