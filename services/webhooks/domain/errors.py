"""What the rules of webhooks refuse; reasons are those of error_reason.proto."""

from __future__ import annotations

from services.chassis.errors import Denied, Exhausted, FieldViolation, Invalid, NotAllowed, NotFound

TARGET_FIELD = "webhook_subscription.target_url"


class SubscriptionNotFound(NotFound):
    """No subscription has this name, or the caller may not know of it."""

    reason = "SUBSCRIPTION_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__("there is no such subscription: list /v1/webhookSubscriptions", metadata={"name": name})


class AppsOnly(Denied):
    """A person asked for what only the app itself does."""

    reason = "APPS_ONLY"

    def __init__(self, message: str = "only an app does this, for its own: call with the app's token") -> None:
        super().__init__(message)


class TargetRefused(Invalid):
    """The target is not an address that we send to."""

    reason = "TARGET_REFUSED"

    def __init__(self, why: str) -> None:
        super().__init__("the target is refused", violations=[FieldViolation(TARGET_FIELD, why)])
        self.why = why


class TargetNotProven(NotAllowed):
    """The target did not echo the challenge."""

    reason = "TARGET_NOT_PROVEN"

    def __init__(self, outcome: str, status: int = 0) -> None:
        super().__init__(
            'the target must answer 200 with {"challenge": the one it got}',
            metadata={"outcome": outcome, "status": str(status)},
        )


class SubscriptionInvalid(Invalid):
    """An event type, a field or a condition is unknown."""

    reason = "SUBSCRIPTION_INVALID"

    def __init__(self, field: str, why: str = "") -> None:
        path = f"webhook_subscription.{field}"
        super().__init__("the subscription has a bad field", violations=[FieldViolation(path, why)])


class FilterFieldHidden(Denied):
    """A condition names a field that the app may not see: which events match would tell its value."""

    reason = "FILTER_FIELD_HIDDEN"

    def __init__(self, field: str) -> None:
        super().__init__(f"a filter may not name '{field}', which the app may not see", metadata={"field": field})


class TooManySubscriptions(Exhausted):
    """The app has as many subscriptions as one may have."""

    reason = "TOO_MANY_SUBSCRIPTIONS"

    def __init__(self, limit: int) -> None:
        super().__init__("the app has too many subscriptions: delete one", metadata={"limit": str(limit)})


class SubscriptionState(NotAllowed):
    """The subscription's state does not allow this."""

    reason = "SUBSCRIPTION_STATE"

    def __init__(self, state: str, message: str = "") -> None:
        super().__init__(message, metadata={"state": state})


class ReplayInvalid(Invalid):
    """A replay names neither ids nor a time."""

    reason = "REPLAY_INVALID"

    def __init__(self, message: str = "name delivery_ids, or start_time and an end_time after it") -> None:
        super().__init__(message)
