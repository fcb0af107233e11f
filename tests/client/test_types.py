"""What a type checker knows of the client, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USES = """
from pathlib import Path
from kehu.client import AppSecret, Kehu
kehu = Kehu("https://kehu.example", AppSecret("a", "b"), purpose="service")
reveal_type(kehu.profiles.get_profile(name="profiles/1").display_name)
for profile in kehu.profiles.list_profiles(page_size=10):
    reveal_type(profile)
reveal_type(kehu.profiles.import_records(name="sources/till", file=Path("x")).wait().summary)
kehu.profiles.get_profile(name="profiles/1", nam="x")
kehu.profiles.list_profiles(page_size="10")
kehu.profiles.get_profile()
"""


@pytest.mark.slow
def test_a_type_checker_knows_replies_items_and_what_is_wrong(tmp_path):
    (tmp_path / "uses.py").write_text(USES)
    flags = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache")]
    out = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, str(tmp_path / "uses.py")],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    ).stdout  # fmt: skip
    told = [line.partition(".py:")[2].partition(": ")[2].partition("  [")[0] for line in out.splitlines()]

    assert [line for line in told if "Revealed" in line or line.startswith("error")] == [
        'note: Revealed type is "str"',
        'note: Revealed type is "kehu.profiles.v1.resources_pb2.Profile"',
        'note: Revealed type is "kehu.profiles.v1.resources_pb2.IntakeSummary"',
        'error: Unexpected keyword argument "nam" for "get_profile" of "Profiles"; did you mean "name"?',
        'error: Argument "page_size" to "list_profiles" of "Profiles" has incompatible type "str"; '
        'expected "int | None"',
        'error: Missing named argument "name" for "get_profile" of "Profiles"',
    ]


def test_it_pulls_in_no_server_and_each_service_only_when_it_is_used():
    code = "import sys, kehu.client; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    code = "import sys, kehu.client; print(*[name for name in sys.modules if name.startswith('kehu.')])"
    ours = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"pymongo", "grpc", "fastapi", "services", "gateway", "infra", "numpy"} & set(loaded)
    assert not [name for name in ours if not name.startswith("kehu.client")]
