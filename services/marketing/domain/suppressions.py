"""Suppressions: who must not be written to, by profile and by keyed token of the address."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Suppression:
    """One person and channel; `purpose_id` "" means messages of every purpose."""

    profile_id: str
    channel: str
    purpose_id: str
    reason: str
    address_token: str = ""
    create_time: datetime | None = None

    @property
    def suppression_id(self) -> str:
        """Return the id that makes it unique: suppressing twice changes nothing, but of each address it is kept."""
        address = f"\0{self.address_token}" if self.address_token else ""
        identity = f"{self.profile_id}\0{self.channel}\0{self.purpose_id}{address}"
        return hashlib.sha256(identity.encode()).hexdigest()[:32]

    def covers(self, channel: str, purpose_id: str) -> bool:
        """Say whether it stops a message of this channel and purpose."""
        return self.channel == channel and self.purpose_id in ("", purpose_id)
