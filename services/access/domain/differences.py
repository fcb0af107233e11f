"""What one revision says and another does not, in words, English and Chinese 中文."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Literal, TypeVar

from services.access.domain.policies import Content, Row
from services.chassis.access import RowFilter
from services.chassis.access.conditions import NamedCondition
from services.chassis.access.quotas import Quota

T = TypeVar("T", bound=Hashable)
Change = Literal["removed", "changed", "added"]
ORDER: tuple[Change, ...] = ("removed", "changed", "added")
KEY = 4  # subject, department, resource, action: rules that differ in the rest alone are one rule, changed


@dataclass(frozen=True, slots=True)
class Words:
    """The same said twice."""

    english: str
    chinese: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One part of a policy that is not as it was; `kind` names the part, such as `rule`."""

    change: Change
    kind: str
    before: Words | None
    after: Words | None


def differences(base: Content, other: Content) -> list[Difference]:
    """Return all differences: what was removed, then changed, then added."""
    found = [*_differ("rule", base.rules, other.rules, lambda rule: rule[:KEY], rule_words)]
    found += _differ("role_link", base.links, other.links, lambda link: link[:3], link_words)
    found += _differ("row_filter", base.row_filters, other.row_filters, _filter_key, filter_words)
    found += _differ("test", base.tests, other.tests, lambda test: test.name, lambda test: _named("test", test.name))
    if base.model != other.model:
        found.append(Difference("changed", "model", Words("the model", "模型"), Words("another model", "另一模型")))
    for part in (field.name for field in fields(Content) if field.name not in SPOKEN):
        found += _of_part(part, getattr(base, part), getattr(other, part))
    return sorted(found, key=lambda difference: ORDER.index(difference.change))


SPOKEN = ("rules", "links", "row_filters", "tests", "model")
ACTIONS = {"show": ("sees", "可见"), "mask": ("sees masked", "可见掩码后的"), "search": ("may search by", "可按其检索"),
           "reveal": ("may reveal one by one", "可逐个查看明文")}  # fmt: skip


def _of_part(part: str, base: Iterable[Hashable], other: Iterable[Hashable]) -> Iterator[Difference]:
    """Compare what has a name: conditions, departments, teams."""
    kind = part.removesuffix("s")
    yield from _differ(kind, tuple(base), tuple(other), _name_of, lambda item: _named(kind, _said(item)))


def _name_of(item: Hashable) -> Hashable:
    return item[0] if isinstance(item, tuple) else getattr(item, "name", item)


def _said(item: Hashable) -> str:
    """Return a named thing with what it says."""
    if isinstance(item, NamedCondition):
        values = ", ".join(f"{name} {value}" for name, value in asdict(item.test).items() if name != "kind" and value)
        return f"{item.name}: {'not ' if item.negated else ''}{item.test.kind} ({values})"
    if isinstance(item, Quota):
        what = f"{item.requests} of {item.action} on {item.resource} in {item.period_seconds} s"
        return f"{item.name}: {item.subject} {what}"
    if isinstance(item, tuple) and item[1:] and item[1]:
        return f"{item[0]} ({item[1] if isinstance(item[1], str) else ', '.join(item[1])})"
    return str(_name_of(item))


def _named(kind: str, name: str) -> Words:
    return Words(f"{kind} {name}", f"{kind} {name}")


def _differ(
    kind: str, base: Sequence[T], other: Sequence[T], key_of: Callable[[T], Hashable], words: Callable[[T], Words]
) -> Iterator[Difference]:
    gone, new = _grouped(base, other, key_of), _grouped(other, base, key_of)
    for key in [*gone, *(key for key in new if key not in gone)]:
        removed, added = gone.get(key, []), new.get(key, [])
        pairs = min(len(removed), len(added))
        for one, two in zip(removed[:pairs], added[:pairs], strict=True):
            yield Difference("changed", kind, words(one), words(two))
        for one in removed[pairs:]:
            yield Difference("removed", kind, words(one), None)
        for two in added[pairs:]:
            yield Difference("added", kind, None, words(two))


def _grouped(these: Sequence[T], those: Sequence[T], key_of: Callable[[T], Hashable]) -> Mapping[Hashable, list[T]]:
    """Return what is here and not there, by key."""
    found: dict[Hashable, list[T]] = defaultdict(list)
    for item in (Counter(these) - Counter(those)).elements():
        found[key_of(item)].append(item)
    return found


def _filter_key(found: RowFilter) -> Hashable:
    return (found.subject, found.department, found.resource, found.field)


def rule_words(rule: Row) -> Words:
    """Return what a rule says, such as `role:seller in sales may read segments`."""
    subject, department, resource, action, purpose, effect = rule[:6]
    where, where_zh = ("everywhere", "任何部门") if department == "*" else (f"in {department}", department)
    why = "" if purpose == "*" else f", for {purpose}"
    why_zh = "" if purpose == "*" else f"，目的为 {purpose}"
    when = f", when {' and '.join(rule[6].split('+'))}" if len(rule) > 6 else ""
    when_zh = f"，条件：{'、'.join(rule[6].split('+'))}" if len(rule) > 6 else ""
    who, who_zh = f"{subject} {where}", f"{where_zh} 的 {subject} "
    if resource.startswith("fields/") and action in ACTIONS:
        does, does_zh = ACTIONS[action]
        verb, verb_zh = (does, does_zh) if effect == "allow" else (f"is denied ({action})", f"不得（{action}）")
        group = resource.removeprefix("fields/")
        return Words(f"{who} {verb} {group}{why}{when}", f"{who_zh}{verb_zh} {group}{why_zh}{when_zh}")
    verb, verb_zh = ("may", "可以") if effect == "allow" else ("may not", "不得")
    does, does_zh = ("do everything with", "执行一切操作") if action == "*" else (action, f"执行 {action}")
    return Words(
        f"{who} {verb} {does} {resource}{why}{when}", f"{who_zh}{verb_zh}对 {resource} {does_zh}{why_zh}{when_zh}"
    )


def link_words(link: Row) -> Words:
    """Return who has which role."""
    member, role, department = link[:3]
    from_, to = (_day(second) for second in (*link[3:5], "0", "0")[:2])
    times = f" ({from_} to {to})" if link[3:] else ""
    return Words(f"{member} has {role} in {department}{times}", f"{member} 在 {department} 拥有 {role}{times}")


def _day(second: str) -> str:
    return datetime.fromtimestamp(float(second), UTC).isoformat(timespec="minutes") if float(second) else "…"


def filter_words(found: RowFilter) -> Words:
    """Return which rows are in reach."""
    where = "everywhere" if found.department == "*" else f"in {found.department}"
    values = ", ".join(found.values)
    return Words(
        f"{found.subject} {where} reaches {found.resource} whose {found.field} is one of {values}",
        f"{found.department} 的 {found.subject} 只及于 {found.field} 为 {values} 的 {found.resource}",
    )
