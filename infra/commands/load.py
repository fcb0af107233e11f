"""`kehu load`: the sample, through the API of a running stack."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from infra.api import ApiError, OperationFailed
from infra.stack import StackError
from infra.story import run


def load_sample(data: Path) -> None:
    """Load what is not loaded yet.

    Raises:
        StackError: no stack runs there, or a step was refused.
    """
    if not (data / "credentials.json").exists():
        raise StackError(f"no stack was started in {data}: run `kehu up --data {data}`")
    try:
        run(data, Console(highlight=False, soft_wrap=True))
    except (ApiError, OperationFailed) as error:
        raise StackError(f"the sample stopped: {error}; the next `kehu load` goes on from here") from error
