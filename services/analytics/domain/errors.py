"""Why analytics refuses: one class per reason of error_reason.proto."""

from services.chassis.errors import Denied, Exhausted, Invalid, NotFound


class InvalidAudienceRule(Invalid):
    """An audience rule cannot be evaluated."""

    reason = "INVALID_AUDIENCE_RULE"


class InvalidInteraction(Invalid):
    """An interaction is malformed."""

    reason = "INVALID_INTERACTION"


class UnreadableInteractionFile(Invalid):
    """A file of interactions cannot be read."""

    reason = "UNREADABLE_INTERACTION_FILE"


class MetricNotFound(NotFound):
    """No metric of this id is registered."""

    reason = "METRIC_NOT_FOUND"


class FilterDenied(Denied):
    """A rule or a dimension asks for a field of which the caller sees less."""

    reason = "FILTER_DENIED"


class InvalidMetricQuery(Invalid):
    """A metric has no such dimension or period."""

    reason = "INVALID_METRIC_QUERY"


class ScoresNotFound(NotFound):
    """The profile has no scores."""

    reason = "SCORES_NOT_FOUND"


class StalePageToken(Invalid):
    """A page token belongs to another query, or its data version is gone."""

    reason = "STALE_PAGE_TOKEN"


class FileTooLarge(Exhausted):
    """An uploaded file passes the limit."""

    reason = "FILE_TOO_LARGE"
