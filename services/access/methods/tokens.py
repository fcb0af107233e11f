"""Tokens: issue, revoke, keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

import grpc
from kehu.access.v1 import access_pb2 as pb

from services.access.directory import key_message
from services.access.domain.credentials import Proof
from services.access.domain.errors import CredentialsRefused, GrantTypeUnsupported, SubjectTokenRefused
from services.access.domain.issuers import EXCHANGE
from services.access.domain.principals import Principal, Shown, confirm_person, sign_in_person
from services.access.domain.sessions import OVER, opened, prolonged
from services.access.domain.tokens import LIFETIME_SECONDS, METHODS, Grant, revoke_token
from services.access.methods.context import Context
from services.access.methods.credentials import grant_of, prove_app
from services.access.methods.issuers import IssuerMethods
from services.chassis.access import Caller
from services.chassis.errors import Conflict, Unauthenticated
from services.chassis.server import current_call

ISSUED = "urn:ietf:params:oauth:token-type:access_token"  # RFC 8693 §2.2.1
TRIES = 5  # of storing a sign-in that others of the same person overtake
STEP_UP = "urn:kehu:params:oauth:grant-type:step-up"  # absolute, as RFC 6749 §4.5 asks

Tried = tuple[Principal | None, bool]  # the state to store, and whether they are in


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
            signed_in = self._person(f"user-{request.username}", partial(self._try_password, request))
            prefix = self._session(signed_in, METHODS["user"], now)
        elif request.grant_type == STEP_UP:
            caller = self._subject(request.subject_token)
            session = prolonged(self._context.sessions.get(caller.token_id.partition(".")[0]), "otp", now)
            signed_in = self._person(session.principal_id, partial(self._try_code, request))
            if not self._context.sessions.prolong(session):
                raise SubjectTokenRefused(OVER)
            grant, prefix = Grant(session.methods, auth_time=now), f"{session.id}."
        else:
            raise GrantTypeUnsupported(f"Use grant_type client_credentials, password, {STEP_UP} or {EXCHANGE}.")
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
        """Return what the ids of a new session's tokens begin with."""
        session = opened(self._context.secrets.session_id(), person.id, methods, now)
        self._context.sessions.add(session)
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
        principals = self._context.principals
        for _ in range(TRIES):
            known = principals.get(principal_id)
            state, is_in = attempt(known)
            try:
                stored = principals.save(state) if state is not None and state != known else state
            except Conflict:  # somebody tries at the same time: every wrong try counts, a code counts once
                continue
            self._note(known, refused=not is_in)
            if stored is not None and is_in:
                return stored
            break
        raise CredentialsRefused

    def _try_password(self, request: pb.CreateTokenRequest, known: Principal | None) -> Tried:
        c = self._context
        return sign_in_person(known, request.password, _shown(request), c.now(), c.passwords, c.decoy)

    def _try_code(self, request: pb.CreateTokenRequest, known: Principal | None) -> Tried:
        c = self._context
        return confirm_person(known, _shown(request), c.now(), c.passwords, c.decoy)

    def _note(self, principal: Principal | None, refused: bool) -> None:
        subject = principal.subject if principal else "unknown"  # what was typed may be a password
        department = principal.department if principal else ""
        self._context.note("create", subject, department, current_call().request_id, refused)


def _shown(request: pb.CreateTokenRequest) -> Shown:
    return Shown(request.totp, request.recovery_code)
