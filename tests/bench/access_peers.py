"""The peers' side of bench_access, in an environment of its own: oso (Polar) and Cedar on the same rules.

    python tests/bench/access_peers.py ENGINE FILE SECONDS

FILE is JSON with rules, links and requests; the last line printed is JSON: CPU µs per decision,
and the answers given in that time.
Cedar gets parsed policies and entities, one policy per rule; oso gets one fact per rule.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def with_oso(rules: list[list[str]], links: list[list[str]]) -> Callable[[list[str]], bool]:
    """Return oso's decision."""
    from oso import Oso

    lines = [f"grant({', '.join(json.dumps(value) for value in rule)});" for rule in rules]
    lines += [f"link({', '.join(json.dumps(value) for value in link)});" for link in links]
    lines.append("""
        has(s, s, _);
        has(s, r, d) if link(s, m, d) and has(m, r, d);
        hit(s, d, o, a, p, e) if has(s, r, d) and grant(r, gd, o, ga, gp, e)
            and gd in [d, "*"] and ga in [a, "*"] and gp in [p, "*"];
        permitted(s, d, o, a, p) if hit(s, d, o, a, p, "allow") and not hit(s, d, o, a, p, "deny");
    """)
    oso = Oso()
    oso.load_str("\n".join(lines))
    return lambda request: bool(oso.query_rule_once("permitted", *request))


def with_cedar(rules: list[list[str]], links: list[list[str]]) -> Callable[[list[str]], bool]:
    """Return Cedar's decision; a subject's roles are its parents, of the one department it has roles in."""
    import cedarpy

    text = []
    for role, department, resource, action, purpose, effect in rules:
        word = "permit" if effect == "allow" else "forbid"
        which = "action" if action == "*" else f'action == Action::"{action}"'
        tests = [f'context.{name} == "{value}"' for name, value in (("dom", department), ("purpose", purpose))
                 if value != "*"]  # fmt: skip
        when = f" when {{ {' && '.join(tests)} }}" if tests else ""
        text.append(f'{word}(principal in Role::"{role}", {which}, resource == Thing::"{resource}"){when};')
    policies = cedarpy.PolicySet.from_str("\n".join(text))
    parents: dict[str, list[str]] = {}
    for member, role, _ in links:
        parents.setdefault(member, []).append(role)
    names = {*parents, *(role for roles in parents.values() for role in roles)}
    entities = cedarpy.Entities.from_json_str(json.dumps([
        {"uid": {"type": "Role" if name.startswith("role:") else "User", "id": name}, "attrs": {},
         "parents": [{"type": "Role", "id": role} for role in parents.get(name, ())]}
        for name in sorted(names)
    ]))  # fmt: skip
    homes = {member: department for member, _, department in links}

    def decide(request: list[str]) -> bool:
        subject, department, resource, action, purpose = request
        kind = "User" if homes.get(subject) == department else "Stranger"
        asked = {"principal": f'{kind}::"{subject}"', "action": f'Action::"{action}"',
                 "resource": f'Thing::"{resource}"', "context": {"dom": department, "purpose": purpose}}  # fmt: skip
        return bool(cedarpy.is_authorized(asked, policies, entities).allowed)

    return decide


def main() -> None:
    """Measure one engine."""
    engine, path, budget = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    given = json.loads(path.read_text("utf-8"))
    decide = {"oso": with_oso, "cedar": with_cedar}[engine](given["rules"], given["links"])
    decide(given["requests"][0])
    answers, began, started = [], time.monotonic(), time.process_time()
    for request in given["requests"]:
        answers.append(decide(request))
        if time.monotonic() - began > budget:
            break
    print(json.dumps({"us": (time.process_time() - started) / len(answers) * 1e6, "answers": answers}))


if __name__ == "__main__":
    main()
