"""`kehu policy`: read, check and change the access policy, through the gateway's API, as the administrator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.commands.options import DEFAULT_DATA, Data, fail, new_table, shown, signing_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
    from kehu.access.v1.access_pb2 import PolicyRule
    from kehu.client import Kehu

    from infra.policy_files import Document

app = typer.Typer(no_args_is_help=True)
CONTENT = (
    "comment", "model", "rules", "role_links", "row_filters", "tests", "conditions", "departments", "teams", "quotas",
)  # fmt: skip
PART_BYTES, NAMES_BYTES = 512 * 1024, 100  # of rules in one request: half of a body; of a rule the names of its words
Folder = Annotated[Path, typer.Argument(file_okay=False, help="A folder of its own, such as one of a Git repository.")]
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A policy as `show` writes it.")]


def _read(file: Path) -> Document:
    """Return the content of a policy file, or end with what is wrong."""
    from kehu.access.v1.access_pb2 import Policy

    try:
        document = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        fail(f"{file} is no JSON: {error}")
    if not isinstance(document, dict):
        fail(f"{file} must hold one JSON object, as `kehu policy show` writes it")
    unknown = sorted(set(document) - set(Policy.DESCRIPTOR.fields_by_name))
    if unknown:  # left out without a word, a filter whose name is mistyped would let everybody see everything
        fail(f"{file}: a policy has no {', '.join(unknown)}; it may hold {', '.join(CONTENT)}")
    return {name: document[name] for name in CONTENT if name in document}


def _draft(client: Kehu, file: Path) -> str:
    """Draft a revision from the file and return its id, or end with the faults found in it."""
    return _checked(client, _read(file))


def _checked(client: Kehu, document: Document) -> str:
    """Draft a revision and return its id, or end with the faults found in it."""
    from google.protobuf.json_format import ParseDict, ParseError
    from kehu.access.v1.access_pb2 import Policy

    try:
        policy = ParseDict(document, Policy())
    except ParseError as error:
        fail(f"this is no policy: {error}")
    first, *more = _parts(policy.rules)
    del policy.rules[:]
    policy.rules.extend(first)
    draft = client.access.create_policy(policy=policy)
    policy_id = draft.name.removeprefix("policies/")
    for part in more:
        draft = client.access.extend_policy(policy_id=policy_id, rules=part, etag=draft.etag)
    checked = client.access.validate_policy(policy_id=policy_id)
    if not checked.valid:
        fail("\n".join(f"{fault.field}: {fault.description}" for fault in checked.faults))
    return policy_id


def _parts(rules: Iterable[PolicyRule]) -> list[list[PolicyRule]]:
    """Return the rules in parts that the gateway takes in one body; one part at least."""
    parts: list[list[PolicyRule]] = [[]]
    size = 0
    for rule in rules:
        size += rule.ByteSize() + NAMES_BYTES
        if size > PART_BYTES:
            parts.append([])
            size = rule.ByteSize() + NAMES_BYTES
        parts[-1].append(rule)
    return parts


def _document(client: Kehu, policy_id: str) -> Document:
    """Return a revision as JSON, with all of its rules: a reply has a part of those of a large one."""
    from google.protobuf.json_format import MessageToDict

    policy = client.access.get_policy(policy_id=policy_id)
    found = policy.name.removeprefix("policies/")  # which one is in force may change meanwhile
    while len(policy.rules) < policy.rule_count:
        policy.rules.extend(client.access.get_policy(policy_id=found, first_rule=len(policy.rules)).rules)
    return MessageToDict(policy, preserving_proto_field_name=True)


def _word(enum: EnumTypeWrapper, value: int, prefix: str) -> str:
    """Return the name of an enum's value as people read it."""
    return str(enum.Name(value)).removeprefix(prefix).lower()


@app.command("list")
def list_policies(data: Data = DEFAULT_DATA) -> None:
    """Show the revisions."""
    from kehu.access.v1.access_pb2 import PolicyState
    from rich.console import Console

    table = new_table("policy", "version", "state", "author", "comment")
    with signing_in(data) as sign_ins:
        for policy in sign_ins.administrator().access.list_policies():
            state = _word(PolicyState, policy.state, "POLICY_STATE_")
            table.add_row(*shown(policy.name, str(policy.version or ""), state, policy.author, policy.comment))
    Console().print(table)


@app.command()
def show(policy: Annotated[str, typer.Argument(help="Its id.")] = "current", data: Data = DEFAULT_DATA) -> None:
    """Print a revision as JSON: save it, edit it, apply it."""
    with signing_in(data) as sign_ins:
        document = _document(sign_ins.administrator(), policy)
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


@app.command()
def validate(file: File, data: Data = DEFAULT_DATA) -> None:
    """Check a policy file; nothing changes but for a draft that is kept."""
    with signing_in(data) as sign_ins:
        policy_id = _draft(sign_ins.administrator(), file)
    typer.echo(f"valid; kept as draft {policy_id}")


@app.command()
def apply(file: File, data: Data = DEFAULT_DATA) -> None:
    """Check a policy file, submit it and approve it: in force everywhere within seconds."""
    with signing_in(data) as sign_ins:
        client = sign_ins.administrator()
        policy_id = _draft(client, file)
        client.access.submit_policy(policy_id=policy_id)
        approved = client.access.approve_policy(policy_id=policy_id)
    typer.echo(f"version {approved.version} is in force")


@app.command("export")
def export_policy(
    folder: Folder, policy: Annotated[str, typer.Option(help="Its id.")] = "current", data: Data = DEFAULT_DATA
) -> None:
    """Write a revision as files for Git: one YAML per role, one line per rule, always in the same order."""
    from infra.policy_files import MAIN, to_files
    from services.chassis.access import MODEL

    present = _files_of(folder)
    if folder.is_dir() and any(folder.iterdir()) and MAIN not in present:
        fail(f"{folder} holds other files and no {MAIN}: give a folder of its own")
    with signing_in(data) as sign_ins:
        files = to_files(_document(sign_ins.administrator(), policy), MODEL)
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode())
    for path in set(present) - set(files):
        (folder / path).unlink()
    typer.echo(f"{len(files)} files in {folder}")


@app.command("import")
def import_policy(
    folder: Folder,
    comment: Annotated[str, typer.Option(help="Why, in place of what policy.yaml says.")] = "",
    submit: Annotated[bool, typer.Option("--submit", help="Hand it over for approval at once.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Draft a revision from files, say what it changes, and run its lint and tests; another person approves it."""
    from kehu.access.v1.review_pb2 import LintSeverity

    from infra.policy_files import FilesWrong, from_files

    try:
        document: Document = {**from_files(_files_of(folder)), **({"comment": comment} if comment else {})}
    except FilesWrong as wrong:
        fail(str(wrong))
    with signing_in(data) as sign_ins:
        client = sign_ins.administrator()
        policy_id = _checked(client, document)
        for found in client.access.compare_policies(policy_id=policy_id):
            typer.echo(f"{found.change} {found.kind}: {found.before} → {found.after}")
        for finding in client.access.lint_policy(policy_id=policy_id).findings:
            severity = _word(LintSeverity, finding.severity, "LINT_SEVERITY_")
            typer.echo(f"{severity} {finding.field}: {finding.description}")
        tests = client.access.test_policy(policy_id=policy_id)
        typer.echo(f"{tests.tables} tests, {tests.rows} rows, {tests.failed_rows} failed")
        typer.echo(f"drafted: {policy_id}")
        if not tests.passed:
            bad = (" ".join(str(value) for _, value in one.ListFields()) for one in (*tests.failures, *tests.faults))
            fail("\n".join(bad) or "the policy fails its own tests")
        if submit:
            client.access.submit_policy(policy_id=policy_id)
            typer.echo("submitted; another person approves it")


def _files_of(folder: Path) -> dict[str, str]:
    """Return the texts of a policy's files by path; what is not of the policy is left alone."""
    from infra.policy_files import is_ours

    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.yaml")} if folder.is_dir() else {}
    try:
        return {name: path.read_bytes().decode() for name, path in paths.items() if is_ours(name)}
    except UnicodeDecodeError as error:
        fail(f"the files in {folder} must be UTF-8: {error.reason}")
