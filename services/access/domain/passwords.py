"""What a password must be (NIST SP 800-63B §5.1.1.2): long and not known to others; nothing is said of its signs."""

from __future__ import annotations

import unicodedata
from typing import Protocol

from services.access.domain.errors import PasswordRefused
from services.chassis.errors import FieldViolation

SHORTEST = 12  # characters
LONGEST = 128
FEWEST_GUESSES = 1e7  # by zxcvbn's estimate; the lock-out allows some hundred a day
LEAST_NAMED = 3  # a shorter user name is in too many words


class Breached(Protocol):
    """The passwords that are known to have been stolen."""

    def contains(self, password: str) -> bool:
        """Tell whether one is among them; Unavailable when that cannot be looked up."""

    def guesses(self, password: str, login: str) -> float:
        """Return about how many guesses whoever knows what people choose would need."""


def normalized(password: str) -> str:
    """Return the one form of a password that is hashed: input methods write the same signs differently (NFKC)."""
    return unicodedata.normalize("NFKC", password)


def checked_password(password: str, login: str, breached: Breached, field: str = "password") -> str:
    """Return the normalized password when it may be set.

    Raises:
        PasswordRefused: saying which rule it breaks, never the password.
    """
    found = normalized(password)
    if len(found) < SHORTEST:
        raise _refused(field, f"use {SHORTEST} characters at least; a sentence is easy to remember")
    if len(found) > LONGEST:
        raise _refused(field, f"use {LONGEST} characters at most")
    if len(login) >= LEAST_NAMED and login.casefold() in found.casefold():
        raise _refused(field, "leave the user name out of it")
    if any(breached.contains(word) for word in _cores(found)):
        raise _refused(field, "choose another: this one is in a list of stolen passwords")
    if breached.guesses(found, login) < FEWEST_GUESSES:
        raise _refused(field, "choose another: words, rows of keys, dates and repetitions like these are guessed first")
    return found


def _cores(password: str) -> set[str]:
    """Return the password, and what is left of it without the signs that people put around a word."""
    plain = password.casefold()
    bare = plain.strip("0123456789!?.,;:*#@$%&-_+= ")
    return {password, plain, bare} if len(bare) > 3 else {password, plain}


def _refused(field: str, what: str) -> PasswordRefused:
    return PasswordRefused("The password cannot be used.", violations=[FieldViolation(field, what)])
