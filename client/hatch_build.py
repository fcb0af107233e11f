"""Put the stubs that the client speaks with into its own wheel; they are made by the hatch_build.py one folder up."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent.parent
STUBS = ("kehu/*/v1/*_pb2.py", "kehu/*/v1/*_pb2.pyi", "kehu/*/v1/py.typed", "buf/validate/*_pb2.py*")


class ClientHook(BuildHookInterface):
    """Make stubs and client, and add the stubs to the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        """Build, and name the files that are outside this folder."""
        spec = spec_from_file_location("kehu_build", ROOT / "hatch_build.py")
        if spec is None or spec.loader is None or not (ROOT / "proto").is_dir():
            sys.exit("build the client's wheel in Kehu's repository: it is made from the protos")
        whole = module_from_spec(spec)
        spec.loader.exec_module(whole)
        whole.build()
        files = [path for pattern in STUBS for path in sorted((ROOT / "proto").glob(pattern))]
        for path in files:
            build_data["force_include"][str(path)] = str(path.relative_to(ROOT / "proto"))  # type: ignore[index]
