"""Build the protobuf stubs, and kehu.client from them: as hatchling's hook, or by hand with `python hatch_build.py`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent
PROTO_ROOT = ROOT / "proto"
DESCRIPTORS = PROTO_ROOT / "kehu" / "descriptors.binpb"
CLIENT = ROOT / "client"


def validate_descriptors() -> bytes:
    """Return the descriptor set of buf/validate/validate.proto, taken from the pinned protovalidate package."""
    from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
    from protovalidate._gen.buf.validate import validate_pb

    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
        files.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    return files.SerializeToString()


def include_paths() -> list[str]:
    """Return where protoc finds our protos, google/api, google/rpc and the well-known types."""
    import google.api
    import grpc_tools

    common = Path(next(iter(google.api.__path__))).parent.parent
    # The package ships this file under another name than its Python module registers.
    renamed = PROTO_ROOT / ".include" / "google" / "longrunning" / "operations.proto"
    renamed.parent.mkdir(parents=True, exist_ok=True)
    renamed.write_bytes((common / "google" / "longrunning" / "operations_proto.proto").read_bytes())
    folders = (PROTO_ROOT, PROTO_ROOT / ".include", common, Path(grpc_tools.__file__).parent / "_proto")
    return [f"-I{folder}" for folder in folders]


def compile_stubs() -> None:
    """Compile every proto under proto/kehu, with type stubs and a descriptor set that keeps the comments.

    Raises:
        SystemExit: when protoc refuses a file; it has printed the file and line. The other packages are made.
    """
    from grpc_tools import protoc

    known = PROTO_ROOT / "validate.binpb"
    known.write_bytes(validate_descriptors())
    common = ["protoc", f"--descriptor_set_in={known}"]
    out = [f"--python_out={PROTO_ROOT}", f"--pyi_out={PROTO_ROOT}"]
    runs = [[*common, *out, "buf/validate/validate.proto"]]
    packages: dict[Path, list[str]] = {}
    for path in sorted((PROTO_ROOT / "kehu").rglob("*.proto")):
        packages.setdefault(path.parent, []).append(str(path.relative_to(PROTO_ROOT)))
    for sources in packages.values():
        runs.append([*common, *include_paths(), *out, f"--grpc_python_out={PROTO_ROOT}", *sources])
    everything = [source for sources in packages.values() for source in sources]
    with_comments = ["--include_imports", "--include_source_info", f"--descriptor_set_out={DESCRIPTORS}"]
    runs.append([*common, *include_paths(), *with_comments, *everything])
    if any([protoc.main(arguments) != 0 for arguments in runs]):
        sys.exit("some protos do not compile: see the lines above")
    for package in packages:
        (package / "py.typed").touch()  # PEP 561: type checkers read the stubs where they are installed


def write_client() -> None:
    """Write the services of kehu.client from the descriptors."""
    from google.protobuf import descriptor_pb2

    sys.path[:0] = [str(PROTO_ROOT), str(ROOT)]
    from client.generate import generate

    folder = CLIENT / "kehu" / "client" / "services"
    folder.mkdir(exist_ok=True)
    sources = generate(descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()))
    for old in folder.glob("*.py"):
        if old.name not in sources:
            old.unlink()
    for name, source in sources.items():
        (folder / name).write_text(source, "utf-8")


def build() -> None:
    """Make the stubs, and the client of them."""
    compile_stubs()
    write_client()


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, without hatchling
    pass
else:

    class StubsHook(BuildHookInterface):
        """Make the stubs before any wheel or editable install."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, object]) -> None:
            """Make stubs and client in the tree; they are git-ignored artifacts of the build."""
            build()


if __name__ == "__main__":
    build()
