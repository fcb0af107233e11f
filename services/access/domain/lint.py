"""What is probably a mistake in a policy though it may come into force: useless, dead and conflicting rules.

Faults (see checks) keep a policy from being submitted; these findings are for the author and the approver.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from services.access.domain.checks import Person, faults
from services.access.domain.policies import Content, Row, can_administer, compiled
from services.access.domain.vocabulary import EMERGENCY_ROLE, Inventory
from services.chassis.access.stepping import UNATTENDED
from services.chassis.access.verdicts import Rules

Severity = Literal["error", "warning", "notice"]
KEY = 5  # subject, department, resource, action, purpose
ORDER = ("error", "warning", "notice")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at; `code` is UPPER_SNAKE, `other` the rule it is about beside `place`, as its place."""

    severity: Severity
    code: str
    place: str
    description: str
    other: str = ""


def lint(
    content: Content, inventory: Inventory, links: Sequence[Row], persons: Sequence[Person], everybody: Sequence[Person]
) -> list[Finding]:
    """Return what is wrong or odd with a policy, the gravest first.

    Args:
        content: the policy.
        inventory: what the protos offer to decide about.
        links: the role links of the principals.
        persons: the people who may sign in, with their departments.
        everybody: people and apps, with their departments.
    """
    wrong = faults(content, inventory, links, persons)
    if wrong:  # what does not compile cannot be asked; the rest is said once it does
        return [Finding("error", "FAULT", fault.field, fault.description) for fault in wrong]
    rules = compiled(content, links)
    whenever = compiled(replace(content, links=_untimed(content.links)), _untimed(links))
    found = [
        *_covered(content, rules),
        *_dead(content, whenever, everybody),
        *_administrators(rules, persons),
        *_closed(content, inventory),
    ]
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def _closed(content: Content, inventory: Inventory) -> Iterator[Finding]:
    """Find actions that no rule allows anybody: wanted so, or new since the policy was written."""
    allowed = {rule[2:4] for rule in content.rules if rule[5] == "allow"}
    for resource, actions in sorted(inventory.actions.items()):
        names = sorted(a for a in actions if not allowed.intersection(product((resource, "*"), (a, "*"))))
        if names and not resource.startswith(UNATTENDED):
            description = f"nobody may {', '.join(names)}; policies/shipped says who may in Kehu's own policy"
            yield Finding("notice", "CLOSED", resource, description)


def _untimed(links: Iterable[Row]) -> tuple[Row, ...]:
    """Return links as if they always held: who holds a role for a time is somebody it is for."""
    return tuple(dict.fromkeys(link[:3] for link in links))


def _covered(content: Content, rules: Rules) -> Iterator[Finding]:
    """Find rules that change nothing, for a broader one says the same or a denial takes them back."""
    places: dict[Row, list[int]] = defaultdict(list)
    for position, rule in enumerate(content.rules):
        places[rule[:KEY]].append(position)
    for position, rule in enumerate(content.rules):
        finding = None
        for other in sorted({n for key in _broader(rule, rules) for n in places.get(key, ())} - {position}):
            finding = _judged(content.rules, position, other)
            if finding:
                yield finding
                break


def _broader(rule: Row, rules: Rules) -> Iterator[Row]:
    """Yield the keys of rules that match whatever this one matches: wildcards, and roles that its subject has."""
    subject, department, resource, action, purpose = rule[:KEY]
    subjects = {subject} if department == "*" else {subject, *rules.names(subject, department)}
    for name, place, what, why in product(sorted(subjects), {department, "*"}, {action, "*"}, {purpose, "*"}):
        yield name, place, resource, what, why


def _judged(rules: Sequence[Row], position: int, other: int) -> Finding | None:
    rule, cover = rules[position], rules[other]
    place, where = f"rules[{position}]", f"rules[{other}]"
    conditional = len(cover) > KEY + 1 and cover[KEY + 1 :] != rule[KEY + 1 :]
    if conditional:  # it holds at times only: it takes nothing away at others
        return None
    if rule[KEY] == cover[KEY]:
        return Finding("warning", "SHADOWED", place, f"remove it: {where} says the same and more", where)
    if rule[KEY] == "deny":
        return None  # an exception from what is allowed: that is what denials are for
    code = "CONFLICT" if rule[:KEY] == cover[:KEY] else "DENIED_ANYWAY"
    return Finding("warning", code, place, f"remove one of the two: {where} denies this, and a deny wins", where)


def _dead(content: Content, rules: Rules, everybody: Sequence[Person]) -> Iterator[Finding]:
    """Find rules, filters and links that nobody can ever meet.

    A denial or a filter for a name that no rule allows anything may be a slip of the pen that lets somebody in;
    the rules of a role that is known but held by nobody are said once. A role for emergencies is held by nobody.
    """
    held = {(name, where) for subject, where in everybody for name in rules.names(subject, where)}
    alive = held | {(name, "*") for name, _ in held}
    known = {rule[:2] for rule in content.rules if rule[KEY] == "allow"}
    dead: dict[Row, list[int]] = defaultdict(list)
    for position, rule in enumerate(content.rules):
        if rule[:2] in alive or rule[0].startswith(EMERGENCY_ROLE):
            continue
        if rule[KEY] == "deny" and rule[:2] not in known:
            yield _nobody("warning", f"rules[{position}]", rule[0], rule[1])
        else:
            dead[rule[:2]].append(position)
    for (subject, where), found in dead.items():
        yield _nobody("notice", f"rules[{found[0]}]", subject, where, f" ({len(found)} rules of this kind)")
    for position, row_filter in enumerate(content.row_filters):
        key = (row_filter.subject, row_filter.department)
        if key not in alive and key not in known:
            yield _nobody("warning", f"row_filters[{position}]", *key)
    homes = dict(everybody)
    for position, link in enumerate(content.links):
        yield from _dead_link(position, link, homes)


def _nobody(severity: Severity, place: str, subject: str, where: str, more: str = "") -> Finding:
    if subject.startswith("svc:"):
        return Finding("warning", "SERVICE", place, "remove it: services are let in by their methods, never by rules")
    there = "in any department" if where == "*" else f"in {where}"
    what = "holds this role" if subject.startswith("role:") else f"is {subject}"
    return Finding(severity, "DEAD", place, f"check the name: nobody {there} {what}, so it decides nothing{more}")


def _dead_link(position: int, link: Row, homes: dict[str, str]) -> Iterator[Finding]:
    member, role, where = link[:3]
    if member.startswith("role:"):
        return
    place = f"role_links[{position}]"
    if member not in homes:
        yield Finding("notice", "DEAD", place, f"check the name: nobody who may sign in is {member}")
    elif homes[member] != where:
        text = f"{member} signs in for {homes[member]}, so its {role} in {where} decides nothing"
        yield Finding("warning", "DEAD", place, text)


def _administrators(rules: Rules, persons: Iterable[Person]) -> Iterator[Finding]:
    able = [subject for subject, where in persons if can_administer(rules, subject, where)]
    if len(able) == 1:
        text = "let a second person administer policies: one alone cannot have a change approved by another"
        yield Finding("notice", "ONE_ADMINISTRATOR", "rules", text)
