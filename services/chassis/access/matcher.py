"""Parse a Casbin matcher into the terms the compiler knows: equality, wildcard or equality, and g()."""

from __future__ import annotations

import ast
import re
import threading
from dataclasses import dataclass

PARSING = threading.RLock()  # CPython 3.11's ast.parse fails when threads parse at once (gh-106905)


@dataclass(frozen=True, slots=True)
class Equality:
    """One term: a request field equals a rule field, or the rule's field is the wildcard."""

    request: str
    rule: str
    wildcard: str | None


@dataclass(frozen=True, slots=True)
class RoleTerm:
    """The term g(r.x, p.y) or g(r.x, p.y, r.z)."""

    subject: str
    rule: str
    domain: str | None


@dataclass(frozen=True, slots=True)
class Matcher:
    """A matcher the compiler knows: all of these terms hold."""

    equalities: tuple[Equality, ...]
    role: RoleTerm | None


def parse_matcher(expression: str) -> Matcher | None:
    """Return the terms of a matcher in pycasbin's escaped form (`r_sub`), or None when one is unknown."""
    text = re.sub(r"!(?!=)", "not ", expression.replace("&&", " and ").replace("||", " or "))
    try:
        with PARSING:
            body = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return None
    equalities: list[Equality] = []
    roles: list[RoleTerm] = []
    for term in _conjuncts(body):
        equality, role = _equality(term), _role(term)
        if equality:
            equalities.append(equality)
        elif role:
            roles.append(role)
        else:
            return None
    if len(roles) > 1:
        return None
    return Matcher(tuple(equalities), roles[0] if roles else None)


def _conjuncts(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        return [term for value in node.values for term in _conjuncts(value)]
    return [node]


def _sides(node: ast.expr) -> tuple[ast.expr, ast.expr] | None:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq):
        return node.left, node.comparators[0]
    return None


def _field(node: ast.expr, prefix: str) -> str | None:
    return node.id if isinstance(node, ast.Name) and node.id.startswith(prefix) else None


def _field_pair(node: ast.expr) -> tuple[str, str] | None:
    sides = _sides(node)
    for left, right in (sides, sides[::-1]) if sides else ():
        request, rule = _field(left, "r_"), _field(right, "p_")
        if request and rule:
            return request, rule
    return None


def _wildcard(node: ast.expr) -> tuple[str, str] | None:
    """Return (rule field, literal) of `p.x == "*"`."""
    sides = _sides(node)
    for left, right in (sides, sides[::-1]) if sides else ():
        rule = _field(left, "p_")
        if rule and isinstance(right, ast.Constant) and isinstance(right.value, str):
            return rule, right.value
    return None


def _equality(node: ast.expr) -> Equality | None:
    pair = _field_pair(node)
    if pair:
        return Equality(*pair, None)
    if not (isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and len(node.values) == 2):
        return None
    for first, second in (node.values, node.values[::-1]):
        pair, wildcard = _field_pair(first), _wildcard(second)
        if pair and wildcard and pair[1] == wildcard[0]:
            return Equality(*pair, wildcard[1])
    return None


def _role(node: ast.expr) -> RoleTerm | None:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "g"):
        return None
    if node.keywords or len(node.args) not in (2, 3):
        return None
    subject, rule = _field(node.args[0], "r_"), _field(node.args[1], "p_")
    domain = _field(node.args[2], "r_") if len(node.args) == 3 else None
    if not subject or not rule or (len(node.args) == 3 and not domain):
        return None
    return RoleTerm(subject, rule, domain)
