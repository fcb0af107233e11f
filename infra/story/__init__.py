"""The sample load: a grocer's year through the gateway's own API, step by step, each printing what happened.

`run` goes on after an interruption: what a step did is kept in sample-state.json, and a step that was
interrupted is repeated with the same request ids.
"""

from infra.story.context import StepFailed
from infra.story.teller import run

__all__ = ["StepFailed", "run"]
