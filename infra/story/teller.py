"""Tell the story: run the steps that are not done yet, print what each found, keep what is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from kehu.client import KehuProblem, OperationFailed
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from infra.api import SignIns
from infra.story import customers, engagement, service, spending, stewardship, webhooks
from infra.story.context import Context, StepFailed, read_state, save_state

StepFunction = Callable[[Context], list[str]]
FAILURES = (StepFailed, KehuProblem, OperationFailed, OSError, httpx.TransportError)


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
    Step("review", "pairs reviewed", stewardship.review_pairs, 6),
    Step("undo", "a wrong verdict undone", stewardship.undo_verdict, 3),
    Step("incident", "a quality incident closed", stewardship.close_incident, 6),
    Step("webhook", "an app heard of a ticket", webhooks.hear_of_a_ticket, 3),
    Step("audit", "audit trail verified", service.verify_audit, 2),
)


def run(folder: Path, console: Console) -> None:
    """Run what is not done yet.

    Raises:
        StepFailed: a step was refused, or found something missing; the next run begins with it again.
    """
    state = read_state(folder)
    done, kept = state["done"], state["kept"]
    assert isinstance(done, dict) and isinstance(kept, dict)
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True)
    total = bar.add_task("sample", total=sum(step.weight for step in STEPS))
    before, step = 0.0, STEPS[0]

    def progress(share: float, text: str) -> None:
        shown = f"{step.title} {text}".ljust(52)[:52]
        bar.update(total, completed=before + step.weight * min(share, 1.0), description=shown)

    story = Context(folder, SignIns(folder / "credentials.json"), progress, kept)
    with bar:
        for number, step in enumerate(STEPS, 1):
            progress(0.0, "")
            if step.key not in done:
                began = time.monotonic()
                lines = _lines(number, step, story)
                done[step.key] = {"lines": lines, "seconds": round(time.monotonic() - began, 1)}
                save_state(folder, {"done": done, "kept": kept})
            before += step.weight
            _print(console, number, step, done[step.key])
    save_state(folder, {"done": done, "kept": kept, "finished": True})


def _lines(number: int, step: Step, story: Context) -> list[str]:
    try:
        return step.tell(story)
    except FAILURES as error:
        raise StepFailed(f"step {number}, {step.title}: {error}") from error


def _print(console: Console, number: int, step: Step, told: dict[str, object]) -> None:
    console.print(f"[bold cyan]{number:2}[/] [bold]{step.title}[/] [dim]{told['seconds']} s[/]")
    lines = told["lines"]
    assert isinstance(lines, list)
    for line in lines:
        console.print(f"     {line}", markup=False)
