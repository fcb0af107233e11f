"""`kehu load`: the sample, through the API of a running stack."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from infra.stack import StackError
from infra.story import StepFailed, run


def load_sample(data: Path) -> None:
    """Load what is not loaded yet.

    Raises:
        StackError: no stack runs there, or a step failed.
    """
    if not (data / "credentials.json").exists():
        raise StackError(f"no stack was started in {data}: run `kehu up --data {data}`")
    try:
        run(data, Console(highlight=False, soft_wrap=True))
    except StepFailed as error:
        raise StackError(f"the sample stopped at {error}; the next `kehu up` or `kehu load` goes on there") from error
