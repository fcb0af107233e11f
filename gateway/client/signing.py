"""How a caller gets its tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote_plus

import httpx

from gateway.client.errors import Json, problem_of

SignIn = Callable[[httpx.Client], Json]  # returns access_token and expires_in


class ClientCredentials:
    """An app signs in by its id and secret."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self._basic = httpx.BasicAuth(quote_plus(client_id), quote_plus(client_secret))  # RFC 6749 §2.3.1

    def __call__(self, http: httpx.Client) -> Json:
        """Return a new token."""
        return fetch_token(http, {"grant_type": "client_credentials"}, self._basic)


def fetch_token(http: httpx.Client, form: Mapping[str, str], basic: httpx.BasicAuth | None = None) -> Json:
    """Ask the token endpoint.

    Raises:
        KehuProblem: it refused.
    """
    reply = http.post("/oauth2/token", data=form, auth=basic or httpx.USE_CLIENT_DEFAULT)
    if reply.is_error:
        raise problem_of(reply)
    token: Json = reply.json()
    return token
