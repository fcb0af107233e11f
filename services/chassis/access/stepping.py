"""Step-up: what needs a second factor shown minutes ago (RFC 9470), or of an app a right of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from services.chassis import errors
from services.chassis.access.values import Caller, Decision

ASSURANCE = "aal2"  # two different factors (NIST SP 800-63B §4.2): the acr asked for
FRESH_SECONDS = 300  # issue §1
CLOCK_SECONDS = 5  # by which clocks of ours may differ
CONFIRM = "confirm it is you with a second factor, then send the same request again with the new token"
UNATTENDED = "unattended/"  # before a resource: what an app does there without a person
FACTORS = {
    "pwd": "known", "pin": "known", "otp": "held", "hwk": "held", "swk": "held", "sc": "held", "pop": "held",
    "fpt": "inherent", "face": "inherent", "iris": "inherent", "retina": "inherent", "vbm": "inherent",
}  # fmt: skip  # methods of RFC 8176 by the kind of factor they show


class StepUpRequired(errors.Unauthenticated):
    """The method needs a second factor shown within the last five minutes."""

    reason = "STEP_UP_REQUIRED"

    def __init__(self, message: str = CONFIRM) -> None:
        super().__init__(message, metadata={"acr_values": ASSURANCE, "max_age": str(FRESH_SECONDS)})


class UnattendedDenied(errors.Denied):
    """An app called a method that a person must confirm, without the right to do so unattended."""

    reason = "UNATTENDED_DENIED"


class Decides(Protocol):
    """A policy snapshot."""

    def decide(self, caller: Caller, resource: str, action: str) -> Decision:
        """Answer whether the caller may."""


def assurance(methods: Iterable[str]) -> str:
    """Return `aal2` when the methods (amr, RFC 8176) show two different kinds of factor, else `aal1`."""
    shown = set(methods)
    kinds = {FACTORS[method] for method in shown if method in FACTORS}
    return ASSURANCE if "mfa" in shown or len(kinds) > 1 else "aal1"


def check_step_up(policy: Decides, caller: Caller, resource: str, action: str, now: float) -> None:
    """Let a caller of a step-up method pass, who may call it by the policy already; `now` in epoch seconds.

    One of our services calling as itself passes: the person confirmed where the work began.

    Raises:
        StepUpRequired: a person whose token shows no second factor, or an old one.
        UnattendedDenied: an app without the right of its own.
    """
    if caller.kind == "svc":
        return
    if caller.kind == "app":
        if not policy.decide(caller, UNATTENDED + resource, action).allowed:
            raise UnattendedDenied(
                f"a person must do this, or the policy grants the app '{action}' on '{UNATTENDED}{resource}'",
                metadata={"resource": UNATTENDED + resource, "action": action},
            )
        return
    age = now - caller.auth_time.timestamp() if caller.auth_time else float("inf")
    if assurance(caller.methods) != ASSURANCE or not -CLOCK_SECONDS <= age <= FRESH_SECONDS:
        raise StepUpRequired
