"""For whom a custom field hides or appears when its definition changes, by the policy of now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.chassis.access import FieldGrant
from services.chassis.obligations import HIDE, MASK, SHOW
from services.profiles.messages import CLASSES
from services.profiles.values import Field

EVERYBODY = "*"
OPEN_CLASSES = ("public", "internal")


@dataclass(frozen=True, slots=True)
class Seen:
    """Who sees a field how for a purpose, before and after a change; `subject` is what the policy names."""

    subject: str
    department: str
    purpose: str
    before: str
    after: str


def visibility(before: Field | None, after: Field | None, grants: Sequence[FieldGrant]) -> list[Seen]:
    """Return each subject and purpose for whom the field is shown otherwise; a rule that denies wins."""
    groups = {_group(item) for item in (before, after) if item}
    subjects = sorted({(grant.subject, grant.department) for grant in grants if grant.group in groups})
    named = {purpose for item in (before, after) if item for purpose in item.permitted_purposes}
    found = []
    for purpose in sorted({grant.purpose for grant in grants} | named):
        common = _disposition(before, "", "", purpose, ()), _disposition(after, "", "", purpose, ())
        for subject, department in ((EVERYBODY, EVERYBODY), *subjects):
            one = _disposition(before, subject, department, purpose, grants)
            two = _disposition(after, subject, department, purpose, grants)
            if one != two and (subject == EVERYBODY or (one, two) != common):
                found.append(Seen(subject, department, purpose, one, two))
    return found


def _group(item: Field) -> str:
    return f"{CLASSES.get(item.classification, '')}/{item.group}"


def _disposition(item: Field | None, subject: str, department: str, purpose: str, grants: Sequence[FieldGrant]) -> str:
    if item is None or item.is_deleted or item.classification not in CLASSES:
        return HIDE
    if not item.permits(purpose):
        return HIDE
    if CLASSES[item.classification] in OPEN_CLASSES:
        return SHOW
    for right in (SHOW, MASK):
        effects = [
            grant.effect
            for grant in grants
            if grant.group == _group(item)
            and (grant.subject, grant.department) == (subject, department)
            and grant.action in ("*", right)
            and grant.purpose in ("*", purpose)
        ]
        if effects and "deny" not in effects:
            return right
    return HIDE
