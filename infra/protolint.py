"""Run buf's lint and breaking rules offline, on the descriptor set that the build writes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "proto" / "kehu" / "descriptors.binpb"
RELEASED = ROOT / "proto" / "released.binpb"
# buf's image is a descriptor set whose files say, in an extension with this number, that they are imports.
_IS_IMPORT = b"\xd2\xf6\x03\x02\x08\x01"


def image_of(descriptors: bytes, *, with_comments: bool = True) -> bytes:
    """Return buf's image of a descriptor set: files that are not ours are marked as imports."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    image = b""
    for file in files.file:
        if not with_comments:
            file.ClearField("source_code_info")
        body = file.SerializeToString() + (b"" if file.package.startswith("kehu.") else _IS_IMPORT)
        image += b"\x0a" + _varint(len(body)) + body
    return image


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def buf(*arguments: str) -> int:
    """Run buf with our configuration; returns its exit code, 0 when there is nothing to say."""
    executable = Path(sys.executable).with_name("buf")
    return subprocess.run([str(executable), *arguments, "--config", str(ROOT / "buf.yaml")]).returncode


def main(arguments: list[str]) -> int:
    """Lint, then compare with the last release; with `release`, make the present protos the last release."""
    if arguments == ["release"]:
        RELEASED.write_bytes(image_of(BUILT.read_bytes(), with_comments=False))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "kehu.binpb"
        image.write_bytes(image_of(BUILT.read_bytes()))
        failed = buf("lint", str(image))
        if RELEASED.exists():
            failed |= buf("breaking", str(image), "--against", str(RELEASED))
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
