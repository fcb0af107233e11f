"""Find the faults of a policy before it is accepted: all that pycasbin would let through silently.

The list follows what was measured on pycasbin 2.8: a typo in the effect allows, an empty field matches, a short
row breaks every decision, a user named like a role gets the role, a tenth role in role is ignored, and more.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence

import casbin

from services.access.domain.condition_checks import (
    condition_faults,
    organization_faults,
    row_field_faults,
    row_value_faults,
    rule_condition_faults,
    shared_faults,
)
from services.access.domain.policies import Content, Row, can_administer, role_names
from services.access.domain.quotas import quota_faults
from services.access.domain.vocabulary import FIELD_ACTIONS, PROTECTED, PURPOSES, Inventory
from services.chassis.access.conditions import CONDITION_SEPARATOR
from services.chassis.access.plain import PlainRules
from services.chassis.access.roles import ROLE_DEPTH
from services.chassis.access.rules import ALLOW_AND_NO_DENY, LINK_WORDS, RULE_WORDS, build_rules
from services.chassis.access.snapshot import REQUEST_FIELDS
from services.chassis.errors import FieldViolation, Invalid

SUBJECT = re.compile(r"(role:[a-z][a-z0-9-]{0,39}|(user|app|svc):[a-z0-9][a-z0-9._-]{0,62})")
WORD = re.compile(r"[A-Za-z0-9:._/*-]{1,100}")
FAULTS_SHOWN = 100
LARGEST_BYTES = 3_500_000  # a gRPC message of ours holds 4 MiB
PLAIN_RULES = 2000  # that pycasbin is given to try: it needs 20 µs a rule for each answer
NUMBER_BYTES = 3  # of a word's number, at most: a policy has fewer than two million words
POLICY_FIELDS = ["p_sub", "p_dom", "p_obj", "p_act", "p_purpose", "p_eft"]
LINK_FIELDS = 3
COLUMNS = ("subject", "department", "resource", "action", "purpose", "effect")
STRANGER = ("user:nobody", "administration", "policies", "approve", "administration")

Person = tuple[str, str]  # subject, department


def faults(
    content: Content, inventory: Inventory, links: Sequence[Row], persons: Sequence[Person]
) -> list[FieldViolation]:
    """Return every fault of a policy, 100 at most; none means it may come into force.

    `links` are the role links of the principals, `persons` the people who may sign in.
    """
    found = [*_model(content.model), *condition_faults(content.conditions), *organization_faults(content)]
    found += [*_rules(content, inventory), *_links(content)]
    found += [*_row_filters(content, inventory), *quota_faults(content, inventory)]
    if not found:
        found += [*_size(content, links), *_depth(content, links)]
    if not found:
        found += _sandbox(content, links, persons)
    return found[:FAULTS_SHOWN]


def _model(text: str) -> Iterator[FieldViolation]:
    try:
        model = casbin.Enforcer.new_model(text=text)
        request, policy = model["r"]["r"].tokens, model["p"]["p"].tokens
        matcher, effect = model["m"]["m"].value, model["e"]["e"].value
        links = model["g"]["g"].value.count("_")
    except Exception:  # pycasbin raises whatever comes
        yield FieldViolation("model", "write it as a Casbin model with sections r, p, g, e and m")
        return
    if tuple(request) != REQUEST_FIELDS or policy != POLICY_FIELDS or links != 3 or len(model["g"].items()) != 1:
        yield FieldViolation("model", "keep r = sub, dom, obj, act, purpose; p = the same and eft; g = _, _, _")
    if effect != ALLOW_AND_NO_DENY:
        yield FieldViolation("model", "keep the effect: some allow and no deny")
    if not _is_safe(matcher):
        yield FieldViolation("model", "compare fields by ==, != and g() only, with g(r.sub, p.sub, r.dom) &&")


def _is_safe(matcher: str) -> bool:
    """Tell whether a matcher calls nothing but g, looks into nothing, and demands role and resource."""
    text = re.sub(r"!(?!=)", "not ", matcher.replace("&&", " and ").replace("||", " or "))
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        return False
    terms = body.values if isinstance(body, ast.BoolOp) and isinstance(body.op, ast.And) else [body]
    demanded = {ast.unparse(term) for term in terms}
    resource = {"r_obj == p_obj", "p_obj == r_obj"}
    if "g(r_sub, p_sub, r_dom)" not in demanded or not resource & demanded:
        return False
    return all(_is_safe_node(node) for node in ast.walk(body))


def _is_safe_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "g" and not node.keywords
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    plain = (ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Compare, ast.Eq, ast.NotEq, ast.Name, ast.Load)
    return isinstance(node, plain)


def _rules(content: Content, inventory: Inventory) -> Iterator[FieldViolation]:
    if not content.rules:
        yield FieldViolation("rules", "write one rule at least: pycasbin matches anything when there is none")
    seen: set[Row] = set()
    known = {condition.name: condition for condition in content.conditions}
    departments = content.department_names()
    for position, rule in enumerate(content.rules):
        place = f"rules[{position}]"
        wrong = list(_row(place, rule[: len(COLUMNS)], COLUMNS))
        if not wrong:
            wrong = list(_rule(place, rule[: len(COLUMNS)], inventory, departments))
        for names in rule[len(COLUMNS) :]:
            named = names.split(CONDITION_SEPARATOR)
            wrong += rule_condition_faults(place, named, rule[2], rule[5], known, inventory)
        if rule in seen:
            wrong.append(FieldViolation(place, "remove it: the same rule stands above"))
        seen.add(rule)
        yield from wrong


def _row(place: str, row: Row, columns: Sequence[str]) -> Iterator[FieldViolation]:
    if len(row) != len(columns):
        yield FieldViolation(place, f"give it {len(columns)} fields: {', '.join(columns)}")
        return
    for column, value in zip(columns, row, strict=True):
        if not isinstance(value, str) or not WORD.fullmatch(value):
            yield FieldViolation(f"{place}.{column}", "use letters, digits and :._/*- only; it must not be empty")


def _rule(place: str, rule: Row, inventory: Inventory, departments: Sequence[str]) -> Iterator[FieldViolation]:
    subject, department, resource, action, purpose, effect = rule
    if not SUBJECT.fullmatch(subject):
        yield FieldViolation(f"{place}.subject", "start it with role:, user:, app: or svc: and a plain name")
    if department not in (*departments, "*"):
        yield FieldViolation(f"{place}.department", f"use one of {', '.join(departments)} or *")
    if purpose not in (*PURPOSES, "*"):
        yield FieldViolation(f"{place}.purpose", f"use one of {', '.join(PURPOSES)} or *")
    if effect not in ("allow", "deny"):
        yield FieldViolation(f"{place}.effect", "write allow or deny exactly: any other word would allow")
    if resource.startswith("fields/"):
        yield from _field_rule(place, rule, inventory)
    elif resource not in inventory.actions:
        yield FieldViolation(f"{place}.resource", "no RPC has this resource")
    elif action != "*" and action not in inventory.actions[resource]:
        offered = ", ".join(sorted(inventory.actions[resource]))
        yield FieldViolation(f"{place}.action", f"the resource offers {offered}")
    if effect == "allow" and department == "*" and action == "*":
        yield FieldViolation(place, "name the department or the action: * and * together is too much")


def _field_rule(place: str, rule: Row, inventory: Inventory) -> Iterator[FieldViolation]:
    group = rule[2].removeprefix("fields/")
    if group not in inventory.groups:
        yield FieldViolation(f"{place}.resource", "no field has this class and group")
    if rule[3] not in FIELD_ACTIONS:
        yield FieldViolation(f"{place}.action", f"of fields use {', '.join(FIELD_ACTIONS)}")
    if rule[4] == "*" and rule[5] == "allow" and group.partition("/")[0] in PROTECTED:
        yield FieldViolation(f"{place}.purpose", "name the purpose: personal fields are granted for one (PIPL 6)")


def _links(content: Content) -> Iterator[FieldViolation]:
    roles, departments = set(role_names(content)), content.department_names()
    seen: set[Row] = set()
    for position, link in enumerate(content.links):
        place = f"role_links[{position}]"
        wrong = list(_row(place, link[:LINK_FIELDS], ("member", "role", "department")))
        if not wrong:
            wrong = list(_link(place, link[:LINK_FIELDS], roles, departments))
        if len(link) > LINK_FIELDS and not _is_window(link[LINK_FIELDS:]):
            wrong.append(FieldViolation(f"{place}.end_time", "give an end after the start"))
        if link in seen:
            wrong.append(FieldViolation(place, "remove it: the same link stands above"))
        seen.add(link)
        yield from wrong


def _is_window(times: Row) -> bool:
    start, end = (float(text) for text in times)
    return not end or start < end


def _link(place: str, link: Row, roles: set[str], departments: Sequence[str]) -> Iterator[FieldViolation]:
    member, role, department = link
    if not SUBJECT.fullmatch(member):
        yield FieldViolation(f"{place}.member", "start it with role:, user:, app: or svc: and a plain name")
    if role not in roles:
        yield FieldViolation(f"{place}.role", "no rule gives this role a meaning; start it with role:")
    if department not in departments:
        yield FieldViolation(f"{place}.department", f"use one of {', '.join(departments)}: * matches nothing here")


def _row_filters(content: Content, inventory: Inventory) -> Iterator[FieldViolation]:
    departments = content.department_names()
    for position, row_filter in enumerate(content.row_filters):
        place = f"row_filters[{position}]"
        if not SUBJECT.fullmatch(row_filter.subject):
            yield FieldViolation(f"{place}.subject", "start it with role:, user: or app: and a plain name")
        if row_filter.department not in (*departments, "*"):
            yield FieldViolation(f"{place}.department", f"use one of {', '.join(departments)} or *")
        if row_filter.resource not in inventory.actions:
            yield FieldViolation(f"{place}.resource", "no RPC has this resource")
        else:
            yield from row_field_faults(f"{place}.field", row_filter.resource, row_filter.field, inventory)
            yield from shared_faults(f"{place}.values", row_filter.resource, row_filter.field, row_filter.values)
        yield from row_value_faults(place, row_filter.values)


def _size(content: Content, links: Sequence[Row]) -> Iterator[FieldViolation]:
    """Refuse what would not fit into the one message by which every process fetches the policy."""
    words = {value for row in (*content.rules, *content.links, *links) for value in row}
    size = sum(len(word) + 3 for word in words) + NUMBER_BYTES * RULE_WORDS * len(content.rules)
    size += NUMBER_BYTES * LINK_WORDS * (len(content.links) + len(links))
    if size > LARGEST_BYTES:
        yield FieldViolation("rules", f"write fewer rules: {size:,} bytes, {LARGEST_BYTES:,} at most")


def _depth(content: Content, links: Sequence[Row]) -> Iterator[FieldViolation]:
    """Refuse circles and chains of roles longer than pycasbin follows."""
    direct: dict[tuple[str, str], list[str]] = {}
    for member, role, department, *_ in (*content.links, *links):
        direct.setdefault((member, department), []).append(role)
    steps: dict[tuple[str, str], int] = {}
    for member, department in direct:
        if _steps(member, department, direct, steps, ()) > ROLE_DEPTH:
            what = f"shorten the chain of roles above {member}: {ROLE_DEPTH} steps at most, no circle"
            yield FieldViolation("role_links", what)


def _steps(
    name: str,
    department: str,
    direct: dict[tuple[str, str], list[str]],
    known: dict[tuple[str, str], int],
    trail: tuple[str, ...],
) -> int:
    key = (name, department)
    if key not in direct:
        return 0
    if name in trail or len(trail) > ROLE_DEPTH:
        return ROLE_DEPTH + 1
    if key not in known:
        above = (_steps(role, department, direct, known, (*trail, name)) for role in direct[key])
        known[key] = 1 + max(above)
    return known[key]


def _sandbox(content: Content, links: Sequence[Row], persons: Iterable[Person]) -> Iterator[FieldViolation]:
    """Load the policy as every process will, and into pycasbin itself, and ask both something."""
    all_links = (*content.links, *links)
    try:
        rules = build_rules(content.model, content.rules, all_links, content.conditions)
        asked = [rule[: len(COLUMNS)] for rule in content.rules if rule[2] == STRANGER[2]]
        some = [rule[: len(COLUMNS)] for rule in content.rules[:PLAIN_RULES]]
        plain = PlainRules(content.model, [*some, *asked], [])
    except (Invalid, Exception):  # pycasbin raises whatever comes
        yield FieldViolation("rules", "pycasbin cannot load this policy; conditions and times need the standard model")
        return
    verdicts = (plain.decide(STRANGER), rules.decide(STRANGER))
    if any(verdict.allowed for verdict in verdicts):
        yield FieldViolation("model", "a stranger could approve policies")
    if any(verdict.reason == "POLICY_ERROR" for verdict in verdicts):
        yield FieldViolation("model", "pycasbin cannot evaluate the matcher")
    people = list(persons)
    if people and not any(can_administer(rules, subject, department) for subject, department in people):
        yield FieldViolation("rules", "leave one person at least who can administer policies and principals")
