"""Tokens: issue, revoke, keys."""

from __future__ import annotations

import grpc
from kehu.access.v1 import access_pb2 as pb

from services.access.directory import key_message
from services.access.domain.credentials import Proof
from services.access.domain.errors import CredentialsRefused, GrantTypeUnsupported
from services.access.domain.principals import Principal, sign_in_person
from services.access.domain.tokens import LIFETIME_SECONDS, revoke_token
from services.access.methods.context import Context
from services.access.methods.credentials import grant_of, prove_app
from services.chassis.errors import Conflict, Unauthenticated
from services.chassis.server import current_call

TRIES = 5  # of storing a sign-in that others of the same person overtake


class TokenMethods:
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
        elif request.grant_type == "password":
            signed_in = self._person(request)
        else:
            raise GrantTypeUnsupported("Use grant_type client_credentials or password.")
        token = self._context.issuer.issue(signed_in, prefix + self._context.secrets.token_id(), now, grant)
        seconds = grant.seconds(now) if grant else LIFETIME_SECONDS
        return pb.CreateTokenResponse(access_token=token, token_type="Bearer", expires_in=seconds)

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

    def _person(self, request: pb.CreateTokenRequest) -> Principal:
        for _ in range(TRIES):
            known = self._context.principals.get(f"user-{request.username}")
            try:
                signed_in = self._try_person(request, known)
            except Conflict:  # somebody tries at the same time: every wrong try counts, a code counts once
                continue
            self._note(known, refused=signed_in is None)
            if signed_in is not None:
                return signed_in
            break
        raise CredentialsRefused

    def _try_person(self, request: pb.CreateTokenRequest, known: Principal | None) -> Principal | None:
        c = self._context
        state, is_in = sign_in_person(known, request.password, request.totp, c.now(), c.passwords, c.decoy)
        if state is not None and state != known:
            state = c.principals.save(state)
        return state if is_in else None

    def _note(self, principal: Principal | None, refused: bool) -> None:
        subject = principal.subject if principal else "unknown"  # what was typed may be a password
        department = principal.department if principal else ""
        self._context.note("create", subject, department, current_call().request_id, refused)
