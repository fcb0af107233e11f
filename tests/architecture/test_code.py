"""Rules of the code that matter, each with its reason."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.chassis.config import SERVICES

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "client/kehu/client/services"
FOLDERS = ("services", "gateway", "infra", "client")
CODE = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py")) if p.parent != GENERATED]


def test_the_layers_hold():
    """Services never import each other, domains import no driver, the chassis imports no service."""
    lint = Path(sys.executable).with_name("lint-imports")
    out = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert out.returncode == 0, out.stdout[-3000:]


def test_no_method_of_a_service_is_called_without_a_deadline():
    """gRPC has none of its own: a call to a stopped service would wait for ever."""
    from gateway.transcoding.catalog import import_protos

    services = [service for file in import_protos() for service in file.services_by_name.values()]
    names = {method.name for service in services for method in service.methods}
    calls = [(path, node) for path in CODE for node in ast.walk(ast.parse(path.read_text())) if _calls(node, names)]
    endless = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node in calls
        if "timeout" not in {keyword.arg for keyword in node.keywords} and path.parts[len(ROOT.parts)] != "client"
    ]

    assert len(calls) > 10
    assert endless == []


def _calls(node, names):
    """Tell whether a node calls a method of a service, at once or by `future` and `with_call`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    called = node.func.value if node.func.attr in ("future", "with_call") else node.func
    return isinstance(called, ast.Attribute) and called.attr in names


def test_only_pycasbin_is_installed():
    """PyPI's `casbin` and `pycasbin` write the same package folder; the old one would win by chance."""
    names = {distribution.metadata["Name"].lower() for distribution in importlib.metadata.distributions()}

    assert "pycasbin" in names
    assert "casbin" not in names


def test_find_and_modify_is_never_used():
    """On the embedded server it scans the collection; a conditional update does the same work."""
    pattern = re.compile(r"find_one_and_|find_and_modify|\.modify\(")
    found = [str(path.relative_to(ROOT)) for path in CODE if pattern.search(path.read_text())]

    assert found == []


def test_database_filters_take_no_operators_from_requests():
    """mongoengine passes dicts straight into filters: raw and regex queries are not written here."""
    pattern = re.compile(r"__raw__|__regex|__iregex|\$where")
    found = [str(path.relative_to(ROOT)) for path in CODE if pattern.search(path.read_text())]

    assert found == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_files(service):
    folder = ROOT / "services" / service

    assert {"__init__.py", "main.py"} <= {path.name for path in folder.iterdir()}
    for part in ("domain", "store", "api"):
        assert (folder / f"{part}.py").exists() or (folder / part / "__init__.py").exists(), part
    assert (folder / "__init__.py").read_text().startswith('"""')


def test_files_stay_short():
    """A file that outgrows this is two files."""
    long = {str(p.relative_to(ROOT)): n for p in CODE if (n := len(p.read_text().splitlines())) > 420}

    assert long == {}


def test_functions_stay_short():
    found = []
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 50:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} {lines}")

    assert found == []


def test_every_update_validates_its_outcome():
    """The request of an update is not validated, so that a part of a resource may be sent."""
    forgetful, seen = [], 0
    for path in CODE:
        if path.parts[len(ROOT.parts)] != "services":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and re.fullmatch(r"Update[A-Z]\w*", node.name):
                calls = {ast.unparse(call.func).rpartition(".")[2] for call in ast.walk(node) if type(call) is ast.Call}
                seen += 1
                forgetful += [] if {"updated", "validate"} <= calls else [f"{path.relative_to(ROOT)} {node.name}"]

    assert seen
    assert forgetful == []


def test_nothing_is_left_to_do_without_an_issue():
    pattern = re.compile(r"\b(TODO|FIXME|XXX)\b(?!.*#\d)")
    found = [str(p.relative_to(ROOT)) for p in CODE if pattern.search(p.read_text())]

    assert found == []


def test_topology_covers_every_consumer():
    """Publishers declare all queues before they publish: a fact without a bound queue would be dropped."""
    from services.chassis.consuming.topology import known_subscriptions

    expected = {service for service in SERVICES if (ROOT / "services" / service / "events.py").exists()}

    assert expected == {subscription.consumer for subscription in known_subscriptions()}


def test_the_chassis_is_a_closed_list():
    """docs/adr/0003-chassis-list.md: a new module needs an ADR."""
    listed = re.search(r"The chassis is: ([a-z, ]+)\.", (ROOT / "docs/adr/0003-chassis-list.md").read_text())
    names = {path.stem for path in (ROOT / "services/chassis").iterdir() if not path.name.startswith("__")}

    assert listed is not None
    assert set(listed.group(1).split(", ")) == names


def test_decisions_are_numbered_once_and_without_a_gap():
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs/adr").glob("[0-9]*.md"))

    assert numbers == list(range(1, len(numbers) + 1))


def test_the_architecture_page_names_files_that_are_there():
    page = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"`((?:gateway|services|infra|proto|tests|client)/[\w/.]+)`", page)

    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).exists()] == []
