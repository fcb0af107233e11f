"""Write docs/errors.md from the reasons in the protos; `--check` only says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from gateway.openapi.comments import descriptor_set_path, load_comments
from gateway.openapi.errors import error_lines, errors_markdown
from gateway.transcoding.catalog import import_protos

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"


def main(arguments: list[str]) -> int:
    """Write the page; return 1 when `--check` finds it out of date."""
    text = errors_markdown(error_lines(import_protos(), load_comments(descriptor_set_path())))
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print("docs/errors.md is out of date: run `python -m infra.docs_errors`", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
