"""Who calls, what the policy says of it, and how a token and a policy reach this process.

values: what a decision is made of · conditions: the typed tests a rule may name · roles: who has which role now ·
reach: which rows · rules: Casbin's model compiled to an index · plain: pycasbin itself · verdicts: their answers ·
shares: records lent one by one · snapshot: the policy of this moment · holder: which one decides, and its poller ·
tokens: bearer tokens verified · stepping: second factors shown minutes ago · wire: the same as protobuf messages.
"""

from services.chassis.access.conditions import Facts, NamedCondition
from services.chassis.access.holder import SnapshotHolder, SnapshotPoller
from services.chassis.access.plain import PlainRules
from services.chassis.access.reach import Organization
from services.chassis.access.rules import CompiledRules, build_rules
from services.chassis.access.snapshot import PolicySnapshot
from services.chassis.access.stepping import StepUpRequired, UnattendedDenied, assurance, check_step_up
from services.chassis.access.tokens import TokenVerifier
from services.chassis.access.values import (
    ALL_SHOWN,
    MODEL,
    NO_PURPOSE,
    NOTHING_SHOWN,
    Caller,
    Clause,
    Condition,
    Decision,
    Either,
    Except,
    FieldGrant,
    Obligations,
    Revocations,
    RowFilter,
    in_reach,
    values_in_reach,
)
from services.chassis.access.verdicts import Verdict

__all__ = [
    "ALL_SHOWN",
    "MODEL",
    "NOTHING_SHOWN",
    "NO_PURPOSE",
    "Caller",
    "CompiledRules",
    "Clause",
    "Condition",
    "Decision",
    "Either",
    "Except",
    "Facts",
    "FieldGrant",
    "NamedCondition",
    "Obligations",
    "Organization",
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
    "in_reach",
    "values_in_reach",
]
