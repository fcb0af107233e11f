"""Facts of other services that profiles listens to: none yet.

Consent, tickets and the others follow merges by ProfilesMerged; nothing they say changes a golden record.
"""

from __future__ import annotations

CONSUMED: tuple[str, ...] = ()
