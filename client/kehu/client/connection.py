"""Send HTTP requests with a fresh token, and again where that may help and does no harm."""

from __future__ import annotations

import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote_plus, urlsplit

import httpx
from kehu.client.errors import NO_ANSWER, STEP_UP_REQUIRED, KehuProblem, Refusal, problem_of, refusal_of
from kehu.client.retrying import NOT_DONE, PERHAPS_DONE, RetryBudget, pauses
from kehu.client.signing import SignIn, Token, TokenEndpoint

RENEW_BEFORE_SECONDS = 30.0
LONGEST_TRY = 60.0  # the gateway lets no call take longer, uploads and lines apart
UPLOAD_SECONDS = 3600.0
SLACK_SECONDS = 5.0  # that the answer may come after the gateway's deadline
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKENS = "/oauth2/token"


@dataclass(frozen=True, slots=True)
class Options:
    """What calls are sent with; see Kehu.using."""

    purpose: str = ""
    timeout_seconds: float = 10.0
    deadline_seconds: float = 20.0
    repeats_writes: bool = False

    def headers(self) -> dict[str, str]:
        """Return the purpose as a header."""
        return {"X-Purpose": self.purpose} if self.purpose else {}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request that can be made again for each try; `label` names it without what the caller sends.

    `parts` gives the body's arguments for httpx.Request: content, or data and files.
    """

    verb: str
    label: str
    path: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    parts: Callable[[], dict[str, object]] = field(repr=False)
    is_harmless: bool = False  # when it is sent twice
    is_public: bool = False
    longest_seconds: float = LONGEST_TRY


class Connection:
    """The connections to a gateway and the token they carry; safe to use from several threads."""

    def __init__(
        self,
        base_url: str,
        sign_in: SignIn | None,
        *,
        authority: Path | None = None,
        allow_plaintext: bool = False,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = checked(base_url, allow_plaintext)
        self._sign_in = sign_in
        self._transport = transport or _transport(self.base_url, authority, sign_in)
        self._budget = RetryBudget()
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0
        self._endpoint = TokenEndpoint(self.base_url + TOKENS, self._ask)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def send(self, outgoing: Outgoing, options: Options) -> httpx.Response:
        """Send, and again while a repeat may help, does no harm, the deadline allows it and the budget lasts.

        Raises:
            KehuProblem: it was refused, or nobody answered.
        """
        is_harmless = outgoing.is_harmless or options.repeats_writes
        request_id = uuid.uuid4().hex
        deadline = time.monotonic() + options.deadline_seconds
        self._budget.called()
        is_perhaps_done = False
        for pause in pauses():
            refused = self._signed(outgoing, options, request_id, deadline)
            if isinstance(refused, httpx.Response):
                return refused
            if outgoing.verb == "DELETE" and refused.status == 404 and is_perhaps_done:
                return httpx.Response(204)  # gone since the try whose answer was lost
            is_perhaps_done |= refused.was_sent and refused.status in PERHAPS_DONE - NOT_DONE
            repeated = PERHAPS_DONE if is_harmless or not refused.was_sent else NOT_DONE
            wait = max(pause, refused.wait_seconds)
            if refused.status not in repeated or time.monotonic() + wait > deadline or not self._budget.take():
                raise problem_of(refused)
            time.sleep(wait)
        raise AssertionError("pauses never end")

    def headers(self, options: Options) -> dict[str, str]:
        """Return token and purpose as headers, for other tools that call the gateway; good for a while."""
        return {"Authorization": f"Bearer {self._fresh_token()}", **options.headers()}

    def _signed(
        self, outgoing: Outgoing, options: Options, request_id: str, deadline: float
    ) -> httpx.Response | Refusal:
        """Send once; and once more with another token, when this one was refused or a second factor is asked for."""
        if outgoing.is_public:
            return self._once(outgoing, options, request_id, deadline, "")
        try:
            token = self._fresh_token()
            answer = self._once(outgoing, options, request_id, deadline, token)
            if not isinstance(answer, Refusal) or answer.status != 401:
                return answer
            other = self._other_token(token, answer.reason)
        except KehuProblem as problem:  # of the sign-in: the request itself was not sent, or refused
            return replace(problem.refusal, was_sent=False)
        return answer if other is None else self._once(outgoing, options, request_id, deadline, other)

    def _once(
        self, outgoing: Outgoing, options: Options, request_id: str, deadline: float, token: str
    ) -> httpx.Response | Refusal:
        seconds = _try_seconds(outgoing, options, deadline)
        headers = {
            **options.headers(),
            **outgoing.headers,
            "X-Request-Id": request_id,
            "X-Request-Timeout": f"{seconds:.3f}",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        request = httpx.Request(
            outgoing.verb,
            self.base_url + outgoing.path,
            headers=headers,
            extensions={"timeout": httpx.Timeout(seconds + SLACK_SECONDS).as_dict()},
            **outgoing.parts(),  # type: ignore[arg-type]
        )
        try:
            reply = self._exchange(request)
        except httpx.TransportError as error:
            return _no_answer(outgoing.label, error)
        return reply if reply.is_success else refusal_of(reply.status_code, _json(reply), reply.headers)

    def _exchange(self, request: httpx.Request) -> httpx.Response:
        """Send by the transport itself: httpx.Client would log the URL with what the caller asks for."""
        reply = self._transport.handle_request(request)
        try:
            reply.request = request
            reply.read()
        finally:
            reply.close()
        return reply

    def _fresh_token(self) -> str:
        if self._sign_in is None:
            return ""
        with self._lock:
            if time.monotonic() >= self._renew_at:
                self._keep(self._sign_in.begin(self._endpoint))
            return self._token

    def _other_token(self, refused: str, reason: str) -> str | None:
        """Return a token in place of one that was refused; None when there is no other."""
        if self._sign_in is None:
            return None
        with self._lock:
            if self._token == refused:  # otherwise another thread has a new one by now
                is_step_up = reason == STEP_UP_REQUIRED
                confirm, begin = self._sign_in.confirm, self._sign_in.begin
                token = confirm(self._endpoint, refused) if is_step_up else begin(self._endpoint)
                if token is None:
                    return None
                self._keep(token)
            return self._token

    def _keep(self, token: Token) -> None:
        self._token = token.access_token
        self._renew_at = time.monotonic() + token.expires_in - RENEW_BEFORE_SECONDS

    def _ask(self, form: Mapping[str, str], basic: tuple[str, str] | None) -> Token:
        auth = httpx.BasicAuth(*map(quote_plus, basic)) if basic else None  # RFC 6749 §2.3.1
        request = httpx.Request("POST", self.base_url + TOKENS, data=form, extensions=_timeout(LONGEST_TRY))
        if auth is not None:
            request = next(auth.auth_flow(request))
        try:
            reply = self._exchange(request)
        except httpx.TransportError as error:
            raise problem_of(_no_answer(f"POST {TOKENS}", error)) from None
        document = _json(reply)
        if reply.is_error:
            raise problem_of(refusal_of(reply.status_code, document, reply.headers))
        if not isinstance(document, dict) or "access_token" not in document:
            raise problem_of(Refusal(502, "UNKNOWN", f"{TOKENS} gave no token"))
        return Token(str(document["access_token"]), float(document.get("expires_in", 0)))


def checked(base_url: str, allow_plaintext: bool) -> str:
    """Return the URL without a slash at its end.

    Raises:
        ValueError: it is none, or would send credentials and personal data unprotected.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError("give the gateway's address as https://host or https://host:port")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK and not allow_plaintext:
        raise ValueError("http:// would send secrets in clear: use https://, or say allow_plaintext=True")
    return base_url.rstrip("/")


def _transport(base_url: str, authority: Path | None, sign_in: SignIn | None) -> httpx.HTTPTransport:
    if base_url.startswith("http://"):
        return httpx.HTTPTransport(trust_env=False)
    context = ssl.create_default_context(cafile=authority) if authority else httpx.create_ssl_context(trust_env=False)
    if sign_in is not None and sign_in.certificate is not None:
        context.load_cert_chain(*sign_in.certificate)
    return httpx.HTTPTransport(verify=context, trust_env=False)


def _try_seconds(outgoing: Outgoing, options: Options, deadline: float) -> float:
    if outgoing.longest_seconds > LONGEST_TRY:
        return outgoing.longest_seconds
    return max(0.1, min(options.timeout_seconds, deadline - time.monotonic(), LONGEST_TRY))


def _timeout(seconds: float) -> dict[str, object]:
    return {"timeout": httpx.Timeout(seconds).as_dict()}


def _no_answer(label: str, error: httpx.TransportError) -> Refusal:
    told = f": {error}" if isinstance(error, httpx.ConnectError) else ""  # others may repeat a header
    return Refusal(NO_ANSWER, "NO_ANSWER", f"{label}: {type(error).__name__}{told}")


def _json(reply: httpx.Response) -> object:
    try:
        return json.loads(reply.content)
    except ValueError:
        return None
