"""A policy as files for Git: one YAML per role, one line per rule, always in the same order.

`policy.yaml` holds what is of no role: reason, conditions, departments, teams, the names of the tests. `roles/` has a
file per role, `subjects/` one per person or app with rules of its own, `tests/` the tables as they were written.
Exporting what was imported gives the same bytes; importing what was exported gives the same policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TypeAlias

import yaml

Value: TypeAlias = object  # of JSON
Document: TypeAlias = dict[str, Value]

MAIN = "policy.yaml"
GENERAL = ("comment", "model", "conditions", "departments", "teams", "quotas")
CONTENT = (*GENERAL, "rules", "role_links", "row_filters", "tests")
PARTS = ("includes", "members", "rules", "row_filters")
FILE_NAME = re.compile(r"[\w][\w.-]{0,80}")
ORDER = (
    "subject", "member", "role", "department", "resource", "action", "field", "values", "purpose", "effect",
    "conditions", "start_time", "end_time",
)  # fmt: skip


class FilesWrong(ValueError):
    """The files are not a policy; the text names the file and says what to do."""


def to_files(document: Mapping[str, Value], default_model: str) -> dict[str, str]:
    """Return a policy as the gateway gives it as texts by path; a model that is the default is left out."""
    general = {name: document[name] for name in GENERAL if document.get(name)}
    if general.get("model") == default_model:
        del general["model"]
    holders: dict[str, dict[str, list[Document]]] = {}
    for rule in _dicts(document.get("rules")):
        _part(holders, rule.pop("subject"), "rules").append(rule)
    for row_filter in _dicts(document.get("row_filters")):
        _part(holders, row_filter.pop("subject"), "row_filters").append(row_filter)
    for link in _dicts(document.get("role_links")):
        owner, part = ("member", "includes") if str(link["member"]).startswith("role:") else ("role", "members")
        _part(holders, link.pop(owner), part).append(link)
    files = {_path_of(name): _holder_text(name, parts) for name, parts in holders.items()}
    names = _test_files(_dicts(document.get("tests")), files)
    text = yaml.safe_dump(general, allow_unicode=True, sort_keys=False, width=10**6) if general else ""
    listed = "".join(f"- {_line(test)}\n" for test in names)
    files[MAIN] = text + (f"tests:\n{listed}" if listed else "")
    return dict(sorted(files.items()))


def from_files(files: Mapping[str, str]) -> Document:
    """Return the policy of these files, as the gateway takes it.

    Raises:
        FilesWrong: a file is missing, is not of the form, or does not belong there.
    """
    if MAIN not in files:
        raise FilesWrong(f"{MAIN} is missing: export a policy first")
    document = _yaml(MAIN, files[MAIN])
    wanted = document.pop("tests", [])
    if not set(document) <= set(GENERAL) or not isinstance(wanted, list):
        raise FilesWrong(f"{MAIN} may hold {', '.join(GENERAL)} and tests")
    found: dict[str, list[Value]] = {"rules": [], "role_links": [], "row_filters": []}
    tests: list[Value] = []
    used = {MAIN}
    for path in sorted(path for path in files if path.startswith(("roles/", "subjects/"))):
        _read_holder(path, files[path], found)
        used.add(path)
    for entry in wanted:
        if not isinstance(entry, dict) or set(entry) != {"name", "file"}:
            raise FilesWrong(f"{MAIN}: write each test as {{name: …, file: …}}")
        path = f"tests/{entry['file']}"
        if path not in files:
            raise FilesWrong(f"{MAIN} names {path}, which is not there")
        tests.append({"name": entry["name"], "table": files[path]})
        used.add(path)
    if set(files) - used:
        raise FilesWrong(
            f"{sorted(set(files) - used)[0]} does not belong to the policy: name it in {MAIN}, or remove it"
        )
    return {
        **document,
        **{name: values for name, values in found.items() if values},
        **({"tests": tests} if tests else {}),
    }


def _dicts(found: object) -> list[Document]:
    return [dict(item) for item in found] if isinstance(found, list) else []


def _part(holders: dict[str, dict[str, list[Document]]], name: Value, part: str) -> list[Document]:
    return holders.setdefault(str(name), {}).setdefault(part, [])


def _path_of(name: str) -> str:
    kind, _, rest = name.partition(":")
    return f"roles/{rest}.yaml" if kind == "role" else f"subjects/{kind}-{rest}.yaml"


def _holder_text(name: str, parts: Mapping[str, Iterable[Document]]) -> str:
    kind = "role" if name.startswith("role:") else "subject"
    text = f"{kind}: {name}\n"
    for part in PARTS:
        lines = sorted(_line(item) for item in parts.get(part, ()))
        text += "".join([f"{part}:\n", *(f"- {line}\n" for line in lines)]) if lines else ""
    return text


def _line(item: Mapping[str, Value]) -> str:
    """Return one item on one line, its words in the order in which one reads them."""
    known = {name: item[name] for name in ORDER if name in item}
    whole = {**known, **{name: item[name] for name in sorted(item) if name not in known}}
    return yaml.safe_dump(whole, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6).strip()


def _test_files(tests: Iterable[Document], files: dict[str, str]) -> list[Document]:
    """Put the tables into files and return their names, in order."""
    listed: list[Document] = []
    for position, test in enumerate(tests, 1):
        name = str(test["name"])
        file = f"{name}.yaml" if FILE_NAME.fullmatch(name) else f"{position:03}.yaml"
        if any(path.casefold() == f"tests/{file}".casefold() for path in files):
            file = f"{position:03}-{file}"
        files[f"tests/{file}"] = str(test["table"])
        listed.append({"name": name, "file": file})
    return listed


def _read_holder(path: str, text: str, found: Mapping[str, list[Value]]) -> None:
    holder = _yaml(path, text)
    names = [holder.pop(kind) for kind in ("role", "subject") if kind in holder]
    if len(names) != 1 or not isinstance(names[0], str) or not set(holder) <= set(PARTS):
        raise FilesWrong(f"{path}: write role or subject, and {', '.join(PARTS)}")
    if path != _path_of(names[0]):
        raise FilesWrong(f"{path} is about {names[0]}: it must be {_path_of(names[0])}")
    own = {"includes": ("role_links", "member"), "members": ("role_links", "role")}
    for part, items in holder.items():
        place, owner = own.get(part, (part, "subject"))
        if not isinstance(items, list) or not all(isinstance(item, dict) and owner not in item for item in items):
            raise FilesWrong(f"{path}: write {part} as a list of {{…}}, without {owner}")
        found[place].extend({owner: names[0], **item} for item in items if isinstance(item, dict))


def _yaml(path: str, text: str) -> Document:
    try:
        found = yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise FilesWrong(f"{path} is no YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    if not isinstance(found, dict):
        raise FilesWrong(f"{path} must hold names with values")
    return found


def is_ours(path: str) -> bool:
    """Tell whether an export writes, and may remove, a file of this path within its folder."""
    parts = PurePosixPath(path).parts
    return path == MAIN or (len(parts) == 2 and parts[0] in ("roles", "subjects", "tests") and path.endswith(".yaml"))
