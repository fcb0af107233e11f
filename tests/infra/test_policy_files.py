"""A policy as files for Git: exact both ways, in a stable order, and drafted from files by the command line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.protobuf.json_format import MessageToDict
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import review_pb2
from kehu.client import Pages
from typer.testing import CliRunner

from infra.commands import policy as command
from infra.policy_files import CONTENT, FilesWrong, from_files, to_files
from services.access.defaults import default_content
from services.access.domain.policies import Policy
from services.access.methods import messages
from services.access.methods.messages import policy_message
from services.chassis.access import MODEL
from tests.access.world import World, running_world

RULE = {"subject": "role:seller", "department": "sales", "resource": "tickets", "action": "read", "purpose": "*",
        "effect": "allow"}  # fmt: skip
RICH = {
    "comment": "销售：*周末* 不上班 #7",
    "model": MODEL + "\n",
    "rules": [RULE, {**RULE, "action": "*", "conditions": ["office", "net"]}, {**RULE, "subject": "user:li"}],
    "role_links": [
        {"member": "role:seller", "role": "role:base", "department": "sales"},
        {"member": "user:li", "role": "role:seller", "department": "sales", "end_time": "2026-12-01T00:00:00Z"},
    ],
    "row_filters": [{"subject": "role:seller", "department": "*", "resource": "tickets", "field": "owner",
                     "values": ["$subject", "yes", "0123"]}],
    "conditions": [{"name": "net", "network": {"ranges": ["10.0.0.0/8"]}}],
    "teams": [{"name": "north", "members": ["user:li"]}],
    "tests": [
        {"name": "销售", "table": "# 注释\nrole: role:seller\ndepartment: sales\n"},
        {"name": "a/b: c", "table": "no newline at the end"},
        {"name": "A", "table": "x: 1\r\n"},
        {"name": "a", "table": "x: 2\n"},
    ],
}  # fmt: skip


def default_document() -> dict[str, object]:
    made = Policy("p", "draft", 0, 1, "why", default_content(), "user:ann")
    return MessageToDict(policy_message(made), preserving_proto_field_name=True)


def content(document: dict[str, object]) -> dict[str, object]:
    """Return what of a policy counts: the order of rules, links and filters does not."""
    found = {name: document[name] for name in CONTENT if document.get(name)}
    if found.get("model") == MODEL:
        del found["model"]
    for name in ("rules", "role_links", "row_filters"):
        found[name] = sorted(map(repr, map(sorted, (item.items() for item in found.get(name, [])))))  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("document", [default_document(), RICH], ids=["the default policy", "everything at once"])
def test_what_is_exported_and_imported_is_the_same_policy_and_the_same_bytes(document: dict[str, object]) -> None:
    files = to_files(document, MODEL)
    shuffled = {**document, "rules": random.Random(3).sample(document["rules"], len(document["rules"]))}  # type: ignore[arg-type]

    assert content(from_files(files)) == content(document)
    assert to_files(from_files(files), MODEL) == files
    assert to_files(shuffled, MODEL) == files, "whatever order the rules came in"


def test_each_role_has_a_file_and_each_rule_a_line() -> None:
    document = default_document()
    files = to_files(document, MODEL)

    roles = {rule["subject"].removeprefix("role:") for rule in document["rules"]}  # type: ignore[attr-defined]
    assert {path for path in files if path.startswith("roles/")} == {f"roles/{role}.yaml" for role in roles}
    line = "- {department: sales, resource: search, action: read, purpose: '*', effect: allow}"
    assert line in files["roles/seller.yaml"].splitlines()
    lines = sum(line.startswith("- {department") for text in files.values() for line in text.splitlines())
    assert lines == len(document["rules"]) + len(document["row_filters"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"policy.yaml": None}, "policy.yaml is missing"),
        ({"policy.yaml": "rules: []\n"}, "may hold comment"),
        ({"policy.yaml": "tests:\n- {name: x, file: gone.yaml}\n"}, "which is not there"),
        ({"policy.yaml": "a: ["}, "no YAML"),
        ({"roles/seller.yaml": "role: role:agent\n"}, "must be roles/agent.yaml"),
        ({"roles/seller.yaml": "role: role:seller\nrights: []\n"}, "write role or subject"),
        ({"roles/seller.yaml": "role: role:seller\nrules: [{subject: role:x}]\n"}, "without subject"),
        ({"tests/extra.yaml": "x"}, "does not belong"),
        ({"roles/seller.yaml": "- a"}, "must hold names"),
    ],
)
def test_files_that_are_no_policy_are_refused_by_name(change: dict[str, str | None], says: str) -> None:
    files = {name: text for name, text in {**to_files(RICH, MODEL), **change}.items() if text is not None}

    with pytest.raises(FilesWrong, match=says):
        from_files(files)


class Access:
    """Speaks to the service itself, by the names that the client has for its methods."""

    def __init__(self, world: World) -> None:
        self._stub = world.stub()

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = "".join(map(str.capitalize, name.split("_")))
        request = getattr(pb, f"{method}Request", None) or getattr(review_pb2, f"{method}Request")

        def call(**fields: object) -> object:
            reply = getattr(self._stub, method)(request(**fields), timeout=20)
            lists = [field.name for field in reply.DESCRIPTOR.fields if field.is_repeated]
            paged = "next_page_token" in reply.DESCRIPTOR.fields_by_name
            return Pages(reply, lambda token: reply, lists[0]) if paged else reply

        return call


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    class SignIns:
        def administrator(self) -> SimpleNamespace:
            return SimpleNamespace(access=Access(running))

    @contextmanager
    def signing_in(data: Path) -> Iterator[SignIns]:
        yield SignIns()

    monkeypatch.setattr(command, "signing_in", signing_in)
    with running_world() as running:
        yield running


def kehu(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(command.app, list(arguments), catch_exceptions=False)
    return found.exit_code, found.output


def test_a_change_in_a_file_is_drafted_said_and_submitted(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    assert kehu("export", str(folder))[0] == 0
    seller = folder / "roles" / "seller.yaml"
    line = "- {department: sales, resource: tickets, action: read, purpose: '*', effect: allow}\n"
    seller.write_text(seller.read_text().replace("rules:\n", f"rules:\n{line}"))

    code, output = kehu("import", str(folder), "--comment", "sellers see tickets", "--submit")

    assert code == 0, output
    assert "added rule:  → role:seller in sales may read tickets" in output
    assert output.count("added") + output.count("removed") + output.count("changed") == 1, "the round trip is exact"
    policy_id = output.partition("drafted: ")[2].split()[0]
    stored = world.stub().GetPolicy(pb.GetPolicyRequest(policy_id=policy_id), timeout=5)
    assert (stored.state, stored.comment) == (pb.POLICY_STATE_SUBMITTED, "sellers see tickets")


def test_an_import_that_fails_its_tests_ends_with_the_rows_and_is_not_submitted(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    kehu("export", str(folder))
    (folder / "tests").mkdir()
    table = (Path(__file__).parents[1] / "access" / "decisions" / "seller.yaml").read_text("utf-8")
    (folder / "tests" / "seller.yaml").write_text(table.replace("search: [read]", "search: []"), "utf-8")
    main = folder / "policy.yaml"
    main.write_text(main.read_text("utf-8") + "tests:\n- {name: seller, file: seller.yaml}\n", "utf-8")

    code, output = kehu("import", str(folder), "--submit")

    assert code == 1
    assert "seller search read denied allowed" in output
    assert "submitted" not in output


def test_an_export_removes_files_of_roles_that_are_gone_and_leaves_others_alone(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    kehu("export", str(folder))
    (folder / "roles" / "gone.yaml").write_text("role: role:gone\n")
    (folder / "README.md").write_text("ours")

    kehu("export", str(folder))

    assert not (folder / "roles" / "gone.yaml").exists()
    assert (folder / "README.md").exists()


def test_a_folder_of_something_else_is_not_written_into(world: World, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    code, output = kehu("export", str(tmp_path))

    assert code == 1
    assert "folder of its own" in output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_policy_larger_than_a_reply_is_exported_and_imported_whole(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "REPLY_BYTES", 4_000)
    monkeypatch.setattr(command, "PART_BYTES", 4_000)
    folder, current = tmp_path / "policy", pb.GetPolicyRequest(policy_id="current")
    count = world.stub().GetPolicy(current, timeout=5).rule_count
    assert len(world.stub().GetPolicy(current, timeout=5).rules) < count / 2, "a reply has a part of it"

    assert kehu("export", str(folder))[0] == 0
    code, output = kehu("import", str(folder))
    assert code == 0, output
    assert not {"added", "removed", "changed"} & set(output.split()), "the round trip is exact"
    assert len(json.loads(kehu("show")[1])["rules"]) == count


def test_a_file_with_a_name_that_no_policy_has_is_refused(world: World, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    shown = json.loads(kehu("show")[1])
    file.write_text(json.dumps({**shown, "row_filter": shown.get("row_filters", []), "row_filters": []}))

    code, output = kehu("apply", str(file))

    assert code == 1
    assert "a policy has no row_filter" in output
