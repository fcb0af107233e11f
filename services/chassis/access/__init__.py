"""Who calls, what the policy says of it, and how a token and a policy reach this process.

values: what a decision is made of · rules: Casbin's model compiled to an index · snapshot: the policy of this
moment, its holder and its poller · tokens: bearer tokens verified · stepping: second factors shown minutes ago ·
wire: the same as protobuf messages.
"""

from services.chassis.access.rules import CompiledRules, PlainRules, Verdict, build_rules
from services.chassis.access.snapshot import PolicySnapshot, SnapshotHolder, SnapshotPoller
from services.chassis.access.stepping import StepUpRequired, UnattendedDenied, assurance, check_step_up
from services.chassis.access.tokens import TokenVerifier
from services.chassis.access.values import (
    ALL_SHOWN,
    MODEL,
    NO_PURPOSE,
    NOTHING_SHOWN,
    Caller,
    Condition,
    Decision,
    FieldGrant,
    Obligations,
    Revocations,
    RowFilter,
)

__all__ = [
    "ALL_SHOWN",
    "MODEL",
    "NOTHING_SHOWN",
    "NO_PURPOSE",
    "Caller",
    "CompiledRules",
    "Condition",
    "Decision",
    "FieldGrant",
    "Obligations",
    "PlainRules",
    "PolicySnapshot",
    "Revocations",
    "RowFilter",
    "SnapshotHolder",
    "SnapshotPoller",
    "StepUpRequired",
    "TokenVerifier",
    "UnattendedDenied",
    "Verdict",
    "assurance",
    "build_rules",
    "check_step_up",
]
