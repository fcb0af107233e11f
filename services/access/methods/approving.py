"""Watch approvals: whoever invited a person could have taken the invitation, and approve as that person."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import timedelta

from services.access.domain.anomalies import Alert
from services.access.domain.principals import principal_id_of
from services.access.methods.context import Context

WATCHED = timedelta(days=30)  # after an invitation


def watch_approval(context: Context, approver: str, proposers: Collection[str], about: str) -> None:
    """Raise an alert, before an approval is written, when a proposer was shown the approver's invitation of late."""
    person, now = context.principals.get(principal_id_of(approver)), context.now()
    if person is None or person.invite_time is None or person.inviter not in proposers or person.inviter == approver:
        return
    if now - person.invite_time <= WATCHED:
        id = hashlib.sha256(f"invited {approver} {about}".encode()).hexdigest()[:32]
        detail = f"approves {about} of {person.inviter}, who invited them on {person.invite_time.date().isoformat()}"
        context.alerts.add(Alert(id, "invited-approver", 0, approver, person.department, now, 1, detail, ()))
