"""The client's own wheel, in an environment that has nothing else, before the real gateway."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
from kehu.profiles.v1.resources_pb2 import Source

from tests.client.filling import filled

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from kehu.client import GivenToken, Kehu
with Kehu(sys.argv[1], GivenToken(lambda: "user:ann@sales"), "service") as kehu:
    print(kehu.profiles.get_source(name="sources/till").display_name)
heavy = {"grpc", "pymongo", "fastapi", "numpy", "services", "gateway", "infra"} & {n.split(".")[0] for n in sys.modules}
print(sorted(heavy))
"""


def run(*argv: object, cwd: Path | None = None) -> str:
    ended = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=600, cwd=cwd)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def uv(*argv: object) -> str:
    return run("sh", "infra/bootstrap.sh", *argv, cwd=ROOT)


@pytest.mark.slow
def test_the_wheel_works_with_its_few_dependencies_alone(tmp_path, recording, recorder):
    uv("build", "--wheel", ROOT / "client", "--out-dir", tmp_path)
    (wheel,) = tmp_path.glob("kehu_client-*.whl")
    uv("venv", "--quiet", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", python, wheel)
    source = filled(Source.DESCRIPTOR)
    recorder.replies.append(source.SerializeToString())

    told = run(python, "-c", PROGRAM, f"http://127.0.0.1:{recording[0]}").splitlines()

    assert told == [source.display_name, "[]"]
    installed = uv("pip", "list", "--python", python, "--format", "freeze").splitlines()
    assert len(installed) <= 12, installed


def test_both_wheels_are_of_one_version():
    whole, client = (tomllib.loads((ROOT / path).read_text()) for path in ("pyproject.toml", "client/pyproject.toml"))

    assert whole["project"]["version"] == client["project"]["version"]
    assert set(client["build-system"]["requires"]) == set(whole["build-system"]["requires"])
    assert set(client["project"]["dependencies"]) <= set(whole["project"]["dependencies"])
