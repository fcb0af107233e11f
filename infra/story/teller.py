"""Tell the story: run the steps that are not done yet, print what each found, keep what is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from infra.api import SignIns
from infra.story import customers, engagement, service, spending
from infra.story.context import Context, read_state, save_state

StepFunction = Callable[[Context], list[str]]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its key in the state, its title, what it does, and its share of the whole time."""

    key: str
    title: str
    tell: StepFunction
    weight: float


STEPS = (
    Step("sample", "sample written", customers.write_sample, 10),
    Step("sources", "sources registered", customers.register_sources, 1),
    Step("imports", "files imported", customers.import_files, 40),
    Step("matching", "customers matched", customers.measure_matching, 30),
    Step("transactions", "transactions imported", spending.import_transactions, 30),
    Step("consents", "notices, purposes and consent recorded", engagement.record_consents, 15),
    Step("scores", "RFM computed", spending.compute_scores, 6),
    Step("segment", "segment previewed", engagement.preview_segment, 2),
    Step("campaign", "e-mail campaign run", engagement.run_campaign, 15),
    Step("unsubscribe", "unsubscribed by the link, skipped in the next run", engagement.unsubscribe_and_run_again, 12),
    Step("complaint", "complaint opened", service.open_complaint, 2),
    Step("search", "customer found", service.find_customer, 4),
    Step("audit", "audit trail verified", service.verify_audit, 2),
)


def run(folder: Path, console: Console) -> None:
    """Run what is not done yet.

    Raises:
        ApiError, OperationFailed: a step was refused; the next run begins with it again.
    """
    state = read_state(folder)
    done, kept = state["done"], state["kept"]
    assert isinstance(done, dict) and isinstance(kept, dict)
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True)
    with bar:
        total = bar.add_task("sample", total=sum(step.weight for step in STEPS))
        for number, step in enumerate(STEPS, 1):
            before = sum(earlier.weight for earlier in STEPS[: number - 1])

            def progress(share: float, text: str, step: Step = step, before: float = before) -> None:
                shown = f"{step.title} {text}".ljust(52)[:52]
                bar.update(total, completed=before + step.weight * min(share, 1.0), description=shown)

            progress(0.0, "")
            if step.key not in done:
                began = time.monotonic()
                context = Context(folder, SignIns(folder / "credentials.json"), progress, kept)
                lines = step.tell(context)
                done[step.key] = {"lines": lines, "seconds": round(time.monotonic() - began, 1)}
                save_state(folder, {"done": done, "kept": kept})
            _print(console, number, step, done[step.key])
    save_state(folder, {"done": done, "kept": kept, "finished": True})


def _print(console: Console, number: int, step: Step, told: dict[str, object]) -> None:
    console.print(f"[bold cyan]{number:2}[/] [bold]{step.title}[/] [dim]{told['seconds']} s[/]")
    lines = told["lines"]
    assert isinstance(lines, list)
    for line in lines:
        console.print(f"     {line}", markup=False)
