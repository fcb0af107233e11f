"""Policy revisions: immutable content, four states, one version in force; rules follow features.md G2 and G3."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from services.access.domain import errors
from services.access.domain.tables import PolicyTest
from services.access.domain.vocabulary import FIRST_DEPARTMENTS
from services.chassis.access import MODEL, CompiledRules, NamedCondition, PlainRules, RowFilter, build_rules
from services.chassis.access.conditions import RecordAttribute
from services.chassis.access.quotas import Quota
from services.chassis.access.values import NO_PURPOSE
from services.chassis.access.verdicts import Rules
from services.chassis.errors import FieldViolation

State = Literal["draft", "submitted", "published", "shipped"]
Row = tuple[str, ...]

# Who can do all of these can undo any policy; one person at least must stay able to.
ADMINISTRATION = (
    ("policies", "create"),
    ("policies", "submit"),
    ("policies", "approve"),
    ("principals", "update"),
)
# Who can do one of these can become an administrator, or act as one.
MAKING = (
    *(("policies", action) for action in ("approve", "rollback")),
    *(("principals", action) for action in ("create", "update", "rotateSecret", "createCredential")),
    *(("issuers", action) for action in ("create", "update")),
)
NEAR_MISSES = 10
NEAREST = ("purpose", "action", "subject", "department")  # what the caller can mend comes first
RULE_FIELDS = ("subject", "department", "resource", "action", "purpose")


@dataclass(frozen=True, slots=True)
class Content:
    """What a policy says: Casbin's model, its p and g lines, row filters, their words, and the tests it must pass.

    A rule may have a seventh field, the names of its conditions joined by "+"; a link a fourth and a fifth, start and
    end in seconds since 1970, "0" for open.
    """

    rules: tuple[Row, ...]
    links: tuple[Row, ...] = ()
    row_filters: tuple[RowFilter, ...] = ()
    model: str = MODEL
    tests: tuple[PolicyTest, ...] = ()
    conditions: tuple[NamedCondition, ...] = ()
    departments: tuple[tuple[str, str], ...] = FIRST_DEPARTMENTS
    teams: tuple[tuple[str, tuple[str, ...]], ...] = ()
    quotas: tuple[Quota, ...] = ()

    def department_names(self) -> tuple[str, ...]:
        """Return the departments there are."""
        return tuple(name for name, _ in self.departments)


@dataclass(frozen=True, slots=True)
class Heading:
    """A revision without its content, which may be megabytes; the fields are those of `Policy`."""

    id: str
    state: State
    number: int
    base: int
    comment: str
    author: str
    submitter: str
    approver: str
    version: int
    create_time: datetime | None
    update_time: datetime | None
    rule_count: int


@dataclass(frozen=True, slots=True)
class Policy:
    """A revision; `number` is its version in force, 0 before; `version` the stored version of the record."""

    id: str
    state: State
    number: int
    base: int
    comment: str
    content: Content
    author: str
    submitter: str = ""
    approver: str = ""
    version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None

    def heading(self) -> Heading:
        """Return it without its content."""
        return Heading(
            self.id, self.state, self.number, self.base, self.comment, self.author, self.submitter, self.approver,
            self.version, self.create_time, self.update_time, len(self.content.rules),
        )  # fmt: skip


MOST_RULES, MOST_BYTES = 120_000, 12 * 1024 * 1024  # of a revision, which is stored as one document of 16 MiB at most


def extended(policy: Policy, rules: Sequence[Row], actor: str) -> Policy:
    """Return the draft with more rules behind its own.

    Raises:
        PolicyState: it is no draft, or another person's.
        PolicyInvalid: it would have too many rules, or too long ones.
    """
    _require(policy, "draft")
    if policy.author != actor:
        raise errors.PolicyState("Only who drafted a policy adds to it; draft one of your own.")
    all_rules = (*policy.content.rules, *rules)
    size = sum(len(word.encode()) + 3 for rule in all_rules for word in rule)
    if len(all_rules) > MOST_RULES or size > MOST_BYTES:
        text = f"a policy has {MOST_RULES} rules of {MOST_BYTES // 2**20} MiB at most: say it with roles and wildcards"
        raise errors.PolicyInvalid("The policy is too large.", violations=[FieldViolation("rules", text)])
    return replace(policy, content=replace(policy.content, rules=all_rules))


def submitted(policy: Policy, submitter: str, current: int) -> Policy:
    """Return the draft, handed over.

    Raises:
        PolicyState: it is no draft.
        PolicyOutdated: another version came into force since it was drafted.
    """
    _require(policy, "draft")
    _require_current(policy, current)
    return replace(policy, state="submitted", submitter=submitter)


def published(policy: Policy, approver: str, current: int, self_approval: bool) -> Policy:
    """Return the submitted revision in force as the version after `current`.

    Raises:
        PolicyState, PolicyOutdated: see submitted.
        SelfApproval: the approver is its author or submitter, and `self_approval` is off (four eyes, G3).
    """
    _require(policy, "submitted")
    _require_current(policy, current)
    if approver in (policy.author, policy.submitter) and not self_approval:
        raise errors.SelfApproval("Another person than author and submitter must approve a policy.")
    return replace(policy, state="published", number=current + 1, approver=approver)


def rolled_back(policy: Policy, new_id: str, actor: str, current: int, comment: str) -> Policy:
    """Return a new revision with the content of an earlier version, in force after `current`.

    Raises:
        PolicyState: it never was in force, or is now.
    """
    _require(policy, "published")
    if policy.number == current:
        raise errors.PolicyState("This revision is in force; roll back to an earlier one.")
    why = comment or f"back to version {policy.number}"
    return Policy(new_id, "published", current + 1, current, why, policy.content, actor, actor, actor)


def _require(policy: Policy, state: State) -> None:
    if policy.state != state:
        raise errors.PolicyState(
            f"The revision is {policy.state}; this needs it to be {state}.",
            metadata={"policy_id": policy.id, "state": policy.state},
        )


def _require_current(policy: Policy, current: int) -> None:
    if policy.base != current:
        raise errors.PolicyOutdated(
            "Another version came into force since this was drafted; draft it anew from that one.",
            metadata={"base": str(policy.base), "current": str(current)},
        )


def compiled(content: Content, links: Iterable[Row] = ()) -> CompiledRules | PlainRules:
    """Return the rules of a policy with further role links, those of the principals."""
    return build_rules(content.model, content.rules, (*content.links, *links), content.conditions)


def role_names(content: Content) -> list[str]:
    """Return every role that has rules or includes another role, sorted."""
    named = {row[0] for row in (*content.rules, *content.links) if row}
    return sorted(name for name in named if name.startswith("role:"))


def purposes_of(*contents: Content) -> frozenset[str]:
    """Return the purposes that some rule names."""
    return frozenset(rule[4] for content in contents for rule in content.rules) - {"*", NO_PURPOSE}


def whatever_purpose(resources: Iterable[str], *contents: Content) -> frozenset[str]:
    """Return the resources whose rules all hold for any purpose; none when a model of its own may say otherwise."""
    if any(content.model != MODEL for content in contents):
        return frozenset()
    return frozenset(resources) - {rule[2] for content in contents for rule in content.rules if rule[4] != "*"}


def named_subjects(*contents: Content) -> frozenset[str]:
    """Return the people, apps and roles that have a rule or row filter of their own, or are a value of one."""
    found: set[str] = set()
    for content in contents:
        tests = (condition.test for condition in content.conditions)
        found.update(rule[0] for rule in content.rules)
        for values in (test.values for test in tests if isinstance(test, RecordAttribute)):
            found.update(values)
        for row_filter in content.row_filters:
            found.update((row_filter.subject, *row_filter.values))
    return frozenset(found)


def can_administer(rules: Rules, subject: str, department: str) -> bool:
    """Tell whether a subject can still change the policy and the principals."""

    def allowed(resource: str, action: str, purpose: str) -> bool:
        return rules.decide((subject, department, resource, action, purpose)).allowed

    return any(
        all(allowed(resource, action, purpose) for resource, action in ADMINISTRATION)
        for purpose in (NO_PURPOSE, "administration")
    )


def at_most(content: Content, links: Iterable[Row]) -> Rules:
    """Return the rules of a policy when all that holds at times or under conditions allows, and denies nothing."""
    width = len(RULE_FIELDS) + 1
    rows = [rule[:width] for rule in content.rules if len(rule) <= width or rule[-2] == "allow"]
    return build_rules(content.model, rows, sorted({link[:3] for link in (*content.links, *links)}))


def could_make_administrators(content: Content, links: Iterable[Row], subject: str, department: str) -> bool:
    """Tell whether somebody could ever make an administrator."""
    rules = at_most(content, links)
    return any(
        rules.decide((subject, department, resource, action, purpose)).allowed
        for resource, action in MAKING
        for purpose in (NO_PURPOSE, *purposes_of(content))
    )


def near_misses(content: Content, request: Row, names: Sequence[str]) -> list[tuple[Row, str]]:
    """Return allow rules that fail in one field only, with that field, the nearest first, ten at most.

    A role of another department counts as one, the subject: the caller lacks it. `request` is department,
    resource, action and purpose; `names` are those the caller answers to.
    """
    found: list[tuple[Row, str]] = []
    for rule in content.rules:
        misses = [] if rule[0] in names else ["subject"]
        misses += [
            name
            for name, wanted, given in zip(RULE_FIELDS[1:], rule[1:5], request, strict=True)
            if wanted not in ("*", given)
        ]
        near = len(misses) == 1 or misses == ["subject", "department"]
        if rule[5] == "allow" and near and misses != ["resource"]:
            found.append((rule, misses[0]))
    return sorted(found, key=lambda miss: NEAREST.index(miss[1]))[:NEAR_MISSES]
