"""Write the services of kehu.client from the descriptors of the protos: a class per service, a typed method per route.

Run by hatch_build.py after the stubs are made; what it writes is git-ignored like them (ADR 0002).
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from client.methods import MethodText, is_routed
from client.schema import Module, Schema

HEADER = '''"""{about} Written by client/generate.py from the protos; do not edit."""

from __future__ import annotations

{imports}

'''


def service_source(schema: Schema, file: FileDescriptorProto, noun: str) -> str:
    """Return the module of the file's one service."""
    (service,) = file.service
    full_name = f".{file.package}.{service.name}"
    module = Module(schema, file.package)
    texts = [MethodText(module, full_name, method) for method in service.method if is_routed(method)]
    constants = "\n".join(text.spec() for text in texts)
    body = "\n".join(text.source() for text in texts)
    about = schema.comments[full_name] or f"{service.name}."
    plain = (
        "import datetime",
        "from collections.abc import Iterable, Iterator, Mapping, Sequence",
        "from pathlib import Path",
        "from typing import IO, Any",
    )
    ours = (
        "from kehu.client.calls import Binding, Method",
        "from kehu.client.operations import Operation",
        "from kehu.client.pages import Pages",
        "from kehu.client.service import Service",
    )
    stubs = []
    for alias, name in sorted(module.imports.items()):
        package, stem = name.rpartition(".")[::2]
        stubs.append(f"from {package} import {stem}" + (f" as {alias}" if alias != stem else ""))
    imports = "\n".join((*plain, "", *stubs, "", *ours))
    head = HEADER.format(about=about.partition(". ")[0].rstrip(".") + ".", imports=imports)
    return f'{head}{constants}\n\n\nclass {noun.title()}(Service):\n    """{about}"""\n\n{body}'


def index_source(nouns: Sequence[str]) -> str:
    """Return the module that gives a client its services, each imported when it is first used."""
    checking = "\n".join(f"    from kehu.client.services.{noun} import {noun.title()}" for noun in nouns)
    body = "\n".join(
        f"    @cached_property\n"
        f"    def {noun}(self) -> {noun.title()}:\n"
        f'        """The methods of {noun}."""\n'
        f"        from kehu.client.services.{noun} import {noun.title()}\n\n"
        f"        return {noun.title()}(self._connection, self._options)\n"
        for noun in nouns
    )
    imports = (
        "from functools import cached_property\nfrom typing import TYPE_CHECKING\n\n"
        "from kehu.client.connection import Connection, Options\n\n"
        f"if TYPE_CHECKING:\n{checking}"
    )
    head = HEADER.format(about="The services of a client.", imports=imports)
    fields = "    _connection: Connection\n    _options: Options\n"
    return f'{head}class Services:\n    """One attribute per service."""\n\n{fields}\n{body}'


def generate(files: FileDescriptorSet) -> dict[str, str]:
    """Return the sources by path within kehu/client/services, of all services of kehu packages."""
    schema = Schema()
    for file in files.file:
        schema.add(file)
    sources: dict[str, str] = {}
    for file in files.file:
        if file.service and file.package.startswith("kehu."):
            noun = file.package.split(".")[1]
            sources[f"{noun}.py"] = service_source(schema, file, noun)
    nouns = sorted(path.removesuffix(".py") for path in sources)
    return {"__init__.py": index_source(nouns), **sources}
