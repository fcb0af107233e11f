"""SCIM 2.0 (RFC 7643, 7644) as pure values: what a directory says of a person, and how it changes what is known."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.access.domain.errors import ScimInvalid
from services.access.domain.issuers import login_of
from services.access.domain.principals import Principal

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
FILTER = re.compile(r'\s*([A-Za-z]{1,40})\s+[eE][qQ]\s+("(?:[^"\\]|\\.){0,255}")\s*')
ONE = re.compile(r'(members|roles)\[\s*value\s+eq\s+"([a-z0-9._:-]{1,80})"\s*\]', re.IGNORECASE)
EXTENSION = ENTERPRISE.lower()  # names of attributes are read in any case
KEPT = ("username", "externalid", "active", "department")  # with one value
OPERATIONS = 100
REMOVED = "removed"  # the directory_id of a person the directory removed; kept for the audit trail

Json = dict[str, Any]  # a resource of the RFC, an open mapping


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a directory says of a person; None and empty mean it says nothing."""

    login: str
    directory_id: str
    active: bool
    department: str
    roles: tuple[str, ...] | None


def invalid(scim_type: str, message: str) -> ScimInvalid:
    """Return the refusal of a request (RFC 7644 §3.12)."""
    return ScimInvalid(message, metadata={"scim_type": scim_type})


def parse_filter(text: str, known: Sequence[str]) -> tuple[str, str]:
    """Return attribute and value of `attribute eq "value"`; two empty texts when there is no filter.

    Raises:
        ScimInvalid: it is another filter.
    """
    if not text.strip():
        return "", ""
    found = FILTER.fullmatch(text)
    names = {name.lower(): name for name in known}
    if found is None or found[1].lower() not in names:
        raise invalid("invalidFilter", f"filter by one of {', '.join(known)} with eq")
    try:
        return names[found[1].lower()], str(json.loads(found[2]))
    except ValueError:
        raise invalid("invalidFilter", "the value is not a JSON string") from None


def wanted(document: Mapping[str, Any]) -> Wanted:
    """Return what a user resource says; attributes that we do not keep are passed over.

    Raises:
        ScimInvalid: userName is missing or cannot be a login, or an attribute has a wrong type.
    """
    user = {name.lower(): value for name, value in document.items()}
    login = login_of(_text(user.get("username"), "userName"))
    if not login:
        raise invalid("invalidValue", "userName: letters, digits, '.', '_', '-' before an @")
    directory_id = _text(user.get("externalid"), "externalId")
    if directory_id == REMOVED:
        raise invalid("invalidValue", f"externalId: '{REMOVED}' is ours, for who was removed")
    department = _object(user.get(EXTENSION), ENTERPRISE).get("department")
    roles = None
    if user.get("roles") is not None:
        roles = tuple(dict.fromkeys(_values(user["roles"], "roles")))
    return Wanted(
        login, directory_id, _flag(user.get("active", True)),
        _text(department, "department"), roles,
    )  # fmt: skip


def _text(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 255:
        raise invalid("invalidValue", f"{name} must be a text of at most 255 characters")
    return value


def _object(value: object, name: str) -> Json:
    """Return an object by names in lower case, empty for none."""
    if value is not None and not isinstance(value, dict):
        raise invalid("invalidValue", f"{name} must be an object")
    return {key.lower(): item for key, item in (value or {}).items()}


def _flag(value: object) -> bool:
    """Return a boolean; some directories write it as text."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise invalid("invalidValue", "active must be true or false")


def _values(found: object, name: str) -> list[str]:
    """Return the values of a multi-valued attribute."""
    entries = found if isinstance(found, list) else [found]
    values = [entry.get("value") if isinstance(entry, dict) else entry for entry in entries]
    if not all(isinstance(value, str) for value in values) or len(values) > 1000:
        raise invalid("invalidValue", f"{name} must be a list of values")
    return [str(value) for value in values]


def operations(message: Mapping[str, Any]) -> list[tuple[str, str, object]]:
    """Return (op, path, value) of a PatchOp message, all in order.

    Raises:
        ScimInvalid: it is none.
    """
    found = next((value for name, value in message.items() if name.lower() == "operations"), None)
    if not isinstance(found, list) or not 0 < len(found) <= OPERATIONS:
        raise invalid("invalidSyntax", f"Operations must be a list of 1 to {OPERATIONS}")
    read = []
    for entry in found:
        op = str(entry.get("op", "")).lower() if isinstance(entry, dict) else ""
        if op not in ("add", "replace", "remove"):
            raise invalid("invalidSyntax", "op must be add, replace or remove")
        path = _text(entry.get("path"), "path")
        if op == "remove" and not path:
            raise invalid("noTarget", "remove needs a path")
        read.append((op, path, entry.get("value")))
    return read


def patched(document: Json, message: Mapping[str, Any]) -> Json:
    """Return a user resource after a PatchOp; all operations or, raising, none.

    Raises:
        ScimInvalid: an operation cannot be followed.
    """
    changed = _object(document, "User")
    changed[EXTENSION] = _object(changed.get(EXTENSION), ENTERPRISE)
    for op, path, value in operations(message):
        for name, item in [(path, value)] if path else _object(value, "value without a path").items():
            _patch(changed, op, name, item)
    return changed


def _patch(changed: Json, op: str, path: str, value: object) -> None:
    """Follow one operation; what we do not keep is kept in the document, where nobody looks."""
    target, name = changed, path.lower().removeprefix(f"{USER.lower()}:")
    if name == EXTENSION:
        changed[EXTENSION] = {} if op == "remove" else changed[EXTENSION] | _object(value, ENTERPRISE)
        return
    if name.startswith(f"{EXTENSION}:"):
        target, name = changed[EXTENSION], name.removeprefix(f"{EXTENSION}:")
    attribute = re.split(r"[.\[]", name, maxsplit=1)[0]
    if attribute == "roles":
        changed["roles"] = _several(_values(changed.get("roles") or [], "roles"), op, "roles", name, value)
    elif attribute in KEPT and name != attribute:
        raise invalid("invalidPath", f"{attribute} has one value: change it whole")
    elif op == "remove" and name in ("username", "active"):
        raise invalid("mutability", f"{name} cannot be removed")
    else:
        target[name] = None if op == "remove" else value


def _several(held: Sequence[str], op: str, attribute: str, path: str, value: object) -> list[str]:
    """Return the values of a multi-valued attribute after an operation on all of them, or on one by its value."""
    one = ONE.fullmatch(path)
    if one is not None and one[1].lower() == attribute and op == "remove":
        return [item for item in held if item != one[2]]
    if path.lower() != attribute:
        raise invalid("invalidPath", f'{attribute}: change it whole, or remove {attribute}[value eq "…"]')
    if value is None and op != "add":
        return []
    given = dict.fromkeys(_values(value, attribute))
    if op == "replace":
        return list(given)
    return [item for item in held if item not in given] + (list(given) if op == "add" else [])


def members(message: Mapping[str, Any], before: Iterable[str]) -> list[str]:
    """Return the ids in a group after a PatchOp; what it says beside its members is passed over, a role keeps its name.

    Raises:
        ScimInvalid: an operation cannot be followed.
    """
    now = list(before)
    for op, path, value in operations(message):
        if not path:
            told = _object(value, "value without a path")
            now = _several(now, op, "members", "members", told["members"]) if "members" in told else now
        elif path.lower() != "displayname":
            now = _several(now, op, "members", path, value)
    return now


def user_resource(person: Principal, base: str) -> Json:
    """Return a person as a user resource."""
    found: Json = {
        "schemas": [USER, ENTERPRISE],
        "id": person.id,
        "userName": person.login,
        "active": person.enabled,
        "roles": [{"value": role} for role in person.roles],
        ENTERPRISE: {"department": person.department},
        "meta": {"resourceType": "User", "location": f"{base}/Users/{person.id}", "version": f'W/"{person.version}"'},
    }
    if person.directory_id:
        found["externalId"] = person.directory_id
    for name, time in (("created", person.create_time), ("lastModified", person.update_time)):
        if time is not None:
            found["meta"][name] = time.isoformat()
    return found


def group_resource(role: str, ids: Sequence[str], base: str) -> Json:
    """Return a role as a group resource."""
    group_id = role.removeprefix("role:")
    return {
        "schemas": [GROUP],
        "id": group_id,
        "displayName": role,
        "members": [{"value": item, "$ref": f"{base}/Users/{item}"} for item in ids],
        "meta": {"resourceType": "Group", "location": f"{base}/Groups/{group_id}"},
    }


def list_resource(found: Sequence[Json], start_index: int, count: int) -> Json:
    """Return a page of resources (RFC 7644 §3.4.2.4): from 1, at most 200."""
    start = max(start_index, 1)
    page = list(found[start - 1 : start - 1 + min(max(count, 0) or 100, 200)])
    sizes = {"totalResults": len(found), "startIndex": start, "itemsPerPage": len(page)}
    return {"schemas": [LIST], **sizes, "Resources": page}
