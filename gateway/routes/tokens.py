"""Answer the OAuth 2.0 endpoints in OAuth's own shapes: form bodies, HTTP Basic, errors of RFC 6749 §5.2."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_plus

import orjson
from google.protobuf.message import Message

from gateway.problems import Problem, refusal
from gateway.reasons import Reason
from gateway.routes.derived import DerivedRoute
from gateway.wire import JSON_TYPE, Exchange, Reply

PREFIX = "/oauth2/"
CREDENTIALS_REFUSED = "CREDENTIALS_REFUSED"
SUBJECT_TOKEN_REFUSED = "SUBJECT_TOKEN_REFUSED"
OF_PEOPLE = (  # grants
    "password", "urn:kehu:params:oauth:grant-type:passkey", "urn:kehu:params:oauth:grant-type:step-up",
    "urn:ietf:params:oauth:grant-type:token-exchange",
)  # fmt: skip
OAUTH_ERRORS = {  # with 400
    "GRANT_TYPE_UNSUPPORTED": "unsupported_grant_type",
    CREDENTIALS_REFUSED: "invalid_grant",
    SUBJECT_TOKEN_REFUSED: "invalid_grant",
}
BASIC = (b"www-authenticate", b'Basic realm="kehu"')


class TokenRoute(DerivedRoute):
    """A method below /oauth2/, for clients that only know OAuth."""

    async def answer(self, exchange: Exchange, segments: list[str]) -> Reply:
        """Do as any route, and turn a refusal into an OAuth error; 429 and 503 stay what they are."""
        try:
            return await super().answer(exchange, segments)
        except Problem as problem:
            if problem.status not in (400, 401, 403, 415):
                raise
            return oauth_error(problem)

    async def read(self, exchange: Exchange, segments: list[str]) -> Message:
        """Read the form, with the client's credentials from HTTP Basic when they are there.

        Raises:
            Problem: 400, something is in the URL, which is logged on its way (RFC 6749 §2.3.1); see also DerivedRoute.
        """
        if exchange.query:
            raise refusal(400, Reason.INVALID_FIELD, "this route takes everything in the body, nothing in the URL")
        message = await super().read(exchange, segments)
        scheme, _, credentials = exchange.text(b"authorization").partition(" ")
        if scheme.lower() == "basic":
            client_id, secret = basic_credentials(credentials)
            if message.client_id or message.client_secret:
                raise refusal(400, Reason.BAD_HEADER, "give the client's credentials once")  # RFC 6749 §2.3
            message.client_id = client_id
            message.client_secret = secret
        return message

    async def call(self, exchange: Exchange, message: Message) -> bytes:
        """Call, and tell a person's refused credentials (400, invalid_grant) from an app's (401, invalid_client)."""
        try:
            return await super().call(exchange, message)
        except Problem as problem:
            of_person = problem.reason == CREDENTIALS_REFUSED and message.grant_type in OF_PEOPLE
            if of_person or problem.reason == SUBJECT_TOKEN_REFUSED:
                problem.status = 400
            raise


def basic_credentials(encoded: str) -> tuple[str, str]:
    """Return client id and secret of an HTTP Basic header, form-decoded as RFC 6749 §2.3.1 says.

    Raises:
        Problem: it is not such a header.
    """
    try:
        text = base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise refusal(401, Reason.BAD_HEADER, "the Basic credentials are malformed") from None
    client_id, colon, secret = text.partition(":")
    if not colon:
        raise refusal(401, Reason.BAD_HEADER, "the Basic credentials are malformed")
    return unquote_plus(client_id), unquote_plus(secret)


def oauth_error(problem: Problem) -> Reply:
    """Return the error document of RFC 6749 §5.2, with our reason beside it."""
    by_status = {401: "invalid_client", 403: "unauthorized_client"}
    code = by_status.get(problem.status) or OAUTH_ERRORS.get(problem.reason, "invalid_request")
    document: dict[str, object] = {"error": code, "error_description": problem.detail, "reason": problem.reason}
    if problem.faults:
        document["errors"] = [{"pointer": fault.pointer, "detail": fault.detail} for fault in problem.faults]
    status = 401 if problem.status == 401 else 400
    headers = (JSON_TYPE, (b"pragma", b"no-cache"), *((BASIC,) if status == 401 else ()))
    return Reply(status, orjson.dumps(document), headers)
