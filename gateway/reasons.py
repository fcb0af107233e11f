"""Why the gateway itself refuses a request, before any service is asked."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """The name is the reason of the problem, the value its line in docs/errors.md."""

    BAD_PATH = "The path is not in its one form: no //, dot segments, ;, trailing slash or needless escapes."
    ROUTE_NOT_FOUND = "No route has this path; /docs lists them all."
    METHOD_NOT_ALLOWED = "The path is known, the HTTP method is not; Allow names those that are."
    BAD_HEADER = "A header is malformed; the detail names it and the form it must have."
    TOKEN_MISSING = "Send Authorization: Bearer with a token from POST /oauth2/token."
    TOKEN_INVALID = "The token is malformed, expired, revoked or not ours; ask for a new one."
    PERMISSION_DENIED = "The policy does not let the caller do this for the purpose named."
    PURPOSE_REQUIRED = "The route answers only for a stated purpose: send X-Purpose."
    POLICY_NOT_LOADED = "The gateway has not loaded a policy yet and therefore allows nothing; retry."
    RATE_LIMITED = "The caller sends more than its rate; wait for the seconds in Retry-After."
    QUOTA_EXCEEDED = "A quota of the caller is used up for now; RateLimit names it, Retry-After says for how long."
    OVERLOADED = "The gateway has as many requests in flight as it takes; retry after Retry-After."
    UNSUPPORTED_MEDIA_TYPE = "The body's type or encoding is not taken here; compressed bodies never are."
    BODY_TOO_LARGE = "The body is longer than the route takes."
    BODY_TIMEOUT = "The body came too slowly."
    BODY_UNEXPECTED = "The route takes no body."
    MALFORMED_JSON = "The body is not one JSON value in UTF-8, or nests too deep."
    MALFORMED_FORM = "The multipart body is broken, lacks its file part, or has one where none is taken."
    INVALID_FIELD = "A field or parameter is unknown, of the wrong type, or given twice; errors[] names it."
    IDEMPOTENCY_KEY_REFUSED = "The method keeps no request ids, so it cannot honour Idempotency-Key."
    IF_MATCH_REFUSED = "The method has no etag to compare If-Match with."
    UNKNOWN_OPERATION = "No service has operations of this name."
    SERVICE_UNAVAILABLE = "The service behind the route does not answer; retry reads, check writes."
    SERVICE_BUSY = "The service behind the route is at its limit; retry after Retry-After."
    DEADLINE_EXCEEDED = "The service did not answer before the deadline; X-Request-Timeout sets it."
    NOT_IMPLEMENTED = "The service is older than the route and does not know the method."
    INTERNAL = "A fault of ours; the request id finds it in the logs."
