"""Tokens: issue, revoke, keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

import grpc
from kehu.access.v1 import access_pb2 as pb

from services.access.domain.credentials import Proof
from services.access.domain.errors import CredentialsRefused, GrantTypeUnsupported, SubjectTokenRefused
from services.access.domain.issuers import EXCHANGE
from services.access.domain.principals import (
    Principal,
    Shown,
    confirm_person,
    sign_in_by_passkey,
    sign_in_person,
)
from services.access.domain.sessions import OVER, opened, prolonged
from services.access.domain.tokens import LIFETIME_SECONDS, Grant, revoke_token
from services.access.domain.webauthn import Use, handle_in
from services.access.methods.authenticators import shown_by_answer
from services.access.methods.context import Context
from services.access.methods.credentials import grant_of, prove_app
from services.access.methods.issuers import IssuerMethods
from services.access.publication import key_message
from services.access.trying import Tried, tried
from services.chassis.access import Caller
from services.chassis.errors import Unauthenticated
from services.chassis.server import current_call

ISSUED = "urn:ietf:params:oauth:token-type:access_token"  # RFC 8693 §2.2.1
STEP_UP = "urn:kehu:params:oauth:grant-type:step-up"  # absolute, as RFC 6749 §4.5 asks
PASSKEY = "urn:kehu:params:oauth:grant-type:passkey"
BY_PASSKEY = ("pop", "mfa")  # amr (RFC 8176): a key, and what the authenticator itself asked of the person


class TokenMethods(IssuerMethods):
    """The token methods of AccessService."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def CreateToken(self, request: pb.CreateTokenRequest, context: grpc.ServicerContext) -> pb.CreateTokenResponse:
        """Sign an app or a person in.

        The time of issue is taken before the principal is read: whoever shuts it out meanwhile revokes this
        token too.
        """
        now = self._context.now()
        grant, prefix = None, ""
        if request.grant_type == "client_credentials":
            proof = self._app(request)
            signed_in, grant, prefix = proof.app, grant_of(proof), f"{proof.credential_id}."
        elif request.grant_type == EXCHANGE:
            signed_in, grant, now = self._visitor(request, now)
            prefix = self._session(signed_in, grant.methods, now)
        elif request.grant_type == "password":
            principal_id = f"user-{request.username}"
            shown = self._shown(request, "sign-in", principal_id)
            signed_in = self._person(principal_id, partial(self._try_password, request.password, shown))
            grant = Grant(("pwd", shown.method), auth_time=now)
            prefix = self._session(signed_in, grant.methods, now)
        elif request.grant_type == PASSKEY:
            signed_in, grant = self._by_passkey(request), Grant(BY_PASSKEY, auth_time=now)
            prefix = self._session(signed_in, grant.methods, now)
        elif request.grant_type == STEP_UP:
            caller = self._subject(request.subject_token)
            begun = self._context.sessions.get(caller.token_id.partition(".")[0])
            session = prolonged(begun, "pop" if request.webauthn else "otp", now)
            shown = self._shown(request, "step-up", session.principal_id)
            signed_in = self._person(session.principal_id, partial(self._try_factor, shown))
            if not self._context.sessions.prolong(session):
                raise SubjectTokenRefused(OVER)
            grant, prefix = Grant(session.methods, auth_time=now), f"{session.id}."
        else:
            raise GrantTypeUnsupported(
                f"Use grant_type client_credentials, password, {PASSKEY}, {STEP_UP} or {EXCHANGE}."
            )
        token = self._context.issuer.issue(signed_in, prefix + self._context.secrets.token_id(), now, grant)
        issued = ISSUED if request.grant_type == EXCHANGE else ""
        seconds = grant.seconds(now) if grant else LIFETIME_SECONDS
        return pb.CreateTokenResponse(
            access_token=token, token_type="Bearer", expires_in=seconds, issued_token_type=issued
        )

    def RevokeToken(self, request: pb.RevokeTokenRequest, context: grpc.ServicerContext) -> pb.RevokeTokenResponse:
        """Revoke one token; what is no living token of ours needs no revocation (RFC 7009 §2.2)."""
        try:
            caller = self._context.own_tokens.verify(request.token, None)
        except Unauthenticated:
            return pb.RevokeTokenResponse()
        self._context.revocations.add(revoke_token(caller.token_id, self._context.now()))
        self._context.directory.refresh(at_once=True)
        self._context.note("revoke", caller.subject, caller.department, current_call().request_id)
        return pb.RevokeTokenResponse()

    def GetKeySet(self, request: pb.GetKeySetRequest, context: grpc.ServicerContext) -> pb.KeySet:
        """Return the public keys."""
        return pb.KeySet(keys=[key_message(key) for key in self._context.issuer.keys])

    def _app(self, request: pb.CreateTokenRequest) -> Proof:
        try:
            proof = prove_app(self._context, request)
        except CredentialsRefused:
            self._note(self._context.principals.get(f"app-{request.client_id}"), refused=True)
            raise
        self._note(proof.app, refused=False)
        return proof

    def _session(self, person: Principal, methods: tuple[str, ...], now: datetime) -> str:
        """Return what the ids of a new session's tokens begin with.

        Raises:
            CredentialsRefused: the password was changed meanwhile; who changed it may not have seen the session.
        """
        c, session = self._context, opened(self._context.secrets.session_id(), person.id, methods, now)
        c.sessions.add(session)
        known = c.principals.get(person.id)
        if known is None or known.secret_hash != person.secret_hash:
            c.sessions.remove(person.id, session.id)
            raise CredentialsRefused
        return f"{session.id}."

    def _visitor(self, request: pb.CreateTokenRequest, now: datetime) -> tuple[Principal, Grant, datetime]:
        try:
            person, grant, now = self.exchange(request, now)
        except CredentialsRefused:
            self._note(None, refused=True)
            raise
        self._note(person, refused=False)
        return person, grant, now

    def _subject(self, token: str) -> Caller:
        """Return the person a living token of ours is of.

        Raises:
            SubjectTokenRefused: it is none, or was revoked.
        """
        try:
            caller = self._context.own_tokens.verify(token, None)
        except Unauthenticated:
            raise SubjectTokenRefused from None
        if caller.kind != "user":
            raise SubjectTokenRefused
        return caller

    def _person(self, principal_id: str, attempt: Callable[[Principal | None], Tried]) -> Principal:
        """Return the person whom an attempt lets in; its new state is stored either way.

        Raises:
            CredentialsRefused: whatever is wrong.
        """
        known: list[Principal | None] = []

        def attempted(found: Principal | None) -> Tried:
            known[:] = [found]
            return attempt(found)

        try:
            signed_in = tried(self._context.principals, principal_id, attempted)
        except CredentialsRefused:
            self._note(known[0], refused=True)
            raise
        self._note(signed_in, refused=False)
        return signed_in

    def _by_passkey(self, request: pb.CreateTokenRequest) -> Principal:
        """Return the person an authenticator verified: the one named, or whom the passkey knows."""
        c = self._context
        principal_id = f"user-{request.username}" if request.username else ""
        shown = self._shown(request, "passkey", principal_id)
        if not principal_id:
            person = c.principals.by_handle(handle_in(request.webauthn))
            principal_id = person.id if person is not None else ""
        return self._person(principal_id, lambda known: sign_in_by_passkey(known, shown, c.now()))

    def _shown(self, request: pb.CreateTokenRequest, use: Use, principal_id: str) -> Shown:
        """Return what the person shows: one thing, and an authenticator's answer before all others."""
        if request.webauthn or use == "passkey":
            return shown_by_answer(self._context, request.webauthn, use, principal_id)
        return Shown(request.totp, request.recovery_code)

    def _try_password(self, password: str, shown: Shown, known: Principal | None) -> Tried:
        c = self._context
        return sign_in_person(known, password, shown, c.now(), c.passwords, c.decoy)

    def _try_factor(self, shown: Shown, known: Principal | None) -> Tried:
        c = self._context
        return confirm_person(known, shown, c.now(), c.passwords, c.decoy)

    def _note(self, principal: Principal | None, refused: bool) -> None:
        subject = principal.subject if principal else "unknown"  # what was typed may be a password
        department = principal.department if principal else ""
        self._context.note("create", subject, department, current_call().request_id, refused)
