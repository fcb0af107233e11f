"""Change who may do what: tokens end with the rights they carry, and somebody stays who can administer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from services.access.domain.errors import LastAdministrator
from services.access.domain.policies import Content, Row, at_most, can_administer, compiled
from services.access.domain.principals import Principal
from services.access.domain.tokens import revoke_subject
from services.access.methods.context import Context
from services.chassis.access.verdicts import Rules

ALWAYS, AT_TIMES, NEVER = 2, 1, 0


def change(context: Context, changed: Principal) -> Principal:
    """Store a change; tokens end before it is stored, so that no moment lets an old one pass.

    Two administrators who are taken out at the same moment each leave the other: it is asked again after the change is
    stored, and the change taken back when nobody is left.

    Raises:
        LastAdministrator: nobody would be left who can administer policies and principals.
        Conflict: somebody changed the principal meanwhile.
    """
    c, known = context, context.principals.get(changed.id)
    before, able = _administrators(c)
    matters = changed.subject in able  # who administers nothing takes nobody away
    if matters and _administrators(c, changed)[0] < before:
        raise LastAdministrator
    c.revocations.add(revoke_subject(changed.subject, c.now()))
    stored = c.principals.save(changed)
    c.sessions.remove(changed.id)
    c.revocations.add(revoke_subject(changed.subject, c.now()))  # those issued between the two
    c.directory.refresh(at_once=True)
    if matters and known is not None and _administrators(c)[0] < before:
        c.principals.save(replace(known, version=stored.version))
        c.directory.refresh(at_once=True)
        raise LastAdministrator
    return stored


@contextmanager
def ending(context: Context, issuer_id: str, undo: Callable[[], object]) -> Iterator[None]:
    """Take an issuer out of use in the block; `undo` gives it back when somebody else was taken out meanwhile.

    Raises:
        LastAdministrator: only its people could administer policies and principals.
    """
    before, _ = _administrators(context)
    if _administrators(context, ended=issuer_id)[0] < before:
        raise LastAdministrator
    yield
    context.directory.refresh(at_once=True)
    if _administrators(context)[0] < before:
        undo()
        raise LastAdministrator


def leaves_nobody(context: Context, changed: Principal) -> bool:
    """Tell whether a change would be refused with LastAdministrator."""
    before, able = _administrators(context)
    return changed.subject in able and _administrators(context, changed)[0] < before


def living(content: Content, now: float) -> Content:
    """Return a policy without the role links that are over; `now` in epoch seconds."""
    return replace(content, links=tuple(link for link in content.links if not _is_over(link, now)))


def _administrators(context: Context, changed: Principal | None = None, ended: str = "") -> tuple[int, frozenset[str]]:
    """Return who can administer always, and when there is nobody, who can at times or under conditions."""
    directory = context.directory
    subject = changed.subject if changed is not None else ""
    links = [*directory.links(without=subject), *(changed.links() if changed is not None else ())]
    people = directory.persons(changed, ended)
    content = directory.policy.content
    with directory.compiling:
        rules: Rules = compiled(content, links)
    able = frozenset(person[0] for person in people if can_administer(rules, *person))
    if able:
        return ALWAYS, able
    with directory.compiling:
        rules = at_most(living(content, context.now().timestamp()), links)
    able = frozenset(person[0] for person in people if can_administer(rules, *person))
    return (AT_TIMES, able) if able else (NEVER, able)


def _is_over(link: Row, now: float) -> bool:
    return len(link) > 4 and 0 < float(link[4]) <= now
