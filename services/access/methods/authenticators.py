"""Second factors of people: challenges to show one, adding one to one's own, removing a lost one."""

from __future__ import annotations

import base64
import os
import uuid
from dataclasses import replace

import grpc
import pyotp
from google.protobuf import empty_pb2
from kehu.access.v1 import authenticators_pb2 as pb

from services.access.domain import authenticators as domain
from services.access.domain import webauthn
from services.access.domain.errors import PersonOfIssuer, WebauthnOff
from services.access.domain.principals import Authenticator, Principal, Shown
from services.access.domain.webauthn import Use
from services.access.methods.context import Context
from services.access.methods.people import PeopleMethods
from services.chassis.server import current_call

KINDS = {pb.AUTHENTICATOR_KIND_TOTP: "totp", pb.AUTHENTICATOR_KIND_WEBAUTHN: "webauthn"}
NUMBERS = {kind: number for number, kind in KINDS.items()}


class AuthenticatorMethods(PeopleMethods):
    """The methods of AccessService about second factors."""

    def CreateSignInChallenge(
        self, request: pb.CreateSignInChallengeRequest, context: grpc.ServicerContext
    ) -> pb.AuthenticatorChallenge:
        """Ask for a sign-in; nothing is read or told of who exists."""
        c, use = self._context, _use(request.passwordless)
        principal_id = f"user-{request.username}" if request.username else ""
        allowed = []
        if principal_id:
            person = c.principals.get(principal_id)
            allowed = webauthn.allowed_at_sign_in(person, request.username, c.issuer.keys[0].private)
        return self._challenge(use, principal_id, allowed, request.passwordless)

    def CreateStepUpChallenge(
        self, request: pb.CreateStepUpChallengeRequest, context: grpc.ServicerContext
    ) -> pb.AuthenticatorChallenge:
        """Ask the caller's own authenticators."""
        person = self._own_principal()
        return self._challenge("step-up", person.id, webauthn.descriptors(person), False)

    def CreateAuthenticator(
        self, request: pb.CreateAuthenticatorRequest, context: grpc.ServicerContext
    ) -> pb.Authenticator:
        """Begin one."""
        c, given, person = self._context, request.authenticator, self._own_principal()
        if person.issuer:  # or the company's own second factor would be gone round
            raise PersonOfIssuer("Your company asks for your second factor.", metadata={"issuer_id": person.issuer})
        kind, id = KINDS[given.kind], uuid.uuid4().hex[:12]
        if kind == "webauthn":
            self._require_webauthn()
            person = replace(person, user_handle=person.user_handle or _random(16))
        secret = _random(32) if kind == "webauthn" else c.secrets.totp_secret()
        new = domain.new(id, kind, given.display_name, secret, c.now())  # type: ignore[arg-type]
        person = c.principals.save(domain.begun(person, new))
        reply = self._authenticator_message(person, new)
        if kind == "webauthn":
            reply.creation_options = webauthn.creation_options(c.relying_party, person, secret, person.user_handle)
        else:
            uri = pyotp.TOTP(secret).provisioning_uri(name=person.login, issuer_name="Kehu")
            reply.totp_secret, reply.totp_uri = secret, uri
        return reply

    def ActivateAuthenticator(
        self, request: pb.ActivateAuthenticatorRequest, context: grpc.ServicerContext
    ) -> pb.Authenticator:
        """Have it count."""
        c, id = self._context, request.authenticator_id
        person = self._own_principal()
        changed = domain.activated(person, id, request.totp, request.credential, c.relying_party, c.now())
        stored = c.principals.save(changed)
        current_call().note(f"second factor {id} added")
        return self._authenticator_message(stored, next(one for one in stored.authenticators if one.id == id))

    def ListOwnAuthenticators(
        self, request: pb.ListOwnAuthenticatorsRequest, context: grpc.ServicerContext
    ) -> pb.ListAuthenticatorsResponse:
        """Return the caller's."""
        return self._authenticators(self._own_principal())

    def DeleteOwnAuthenticator(
        self, request: pb.DeleteOwnAuthenticatorRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Remove one of the caller's; whoever has it has no session left."""
        person = self._own_principal()
        return self._without(person, request.authenticator_id, current_call().caller.token_id.partition(".")[0])

    def ListAuthenticators(
        self, request: pb.ListAuthenticatorsRequest, context: grpc.ServicerContext
    ) -> pb.ListAuthenticatorsResponse:
        """Return a person's."""
        return self._authenticators(self._find_principal(request.principal_id))

    def DeleteAuthenticator(
        self, request: pb.DeleteAuthenticatorRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Remove one of a person's."""
        return self._without(self._find_principal(request.principal_id), request.authenticator_id, "")

    def _challenge(
        self, use: Use, principal_id: str, allowed: list[webauthn.Json], verified: bool
    ) -> pb.AuthenticatorChallenge:
        self._require_webauthn()
        c, now = self._context, self._context.now()
        challenge = webauthn.new_challenge(c.issuer.keys[-1].private, use, principal_id, now, os.urandom(16))
        options = webauthn.request_options(c.relying_party, challenge, allowed, verified)
        return pb.AuthenticatorChallenge(request_options=options, expire_time=now + webauthn.GOOD_FOR)

    def _require_webauthn(self) -> None:
        if not self._context.relying_party.id:
            raise WebauthnOff("Authenticators know us by a domain, and none is configured.")

    def _without(self, person: Principal, authenticator_id: str, kept_session: str) -> empty_pb2.Empty:
        c = self._context
        c.principals.save(domain.without(person, authenticator_id))
        for session in c.sessions.of(person.id, c.now()):
            if session.id != kept_session:
                self._revoke(person, session.id)
        return empty_pb2.Empty()

    def _authenticators(self, person: Principal) -> pb.ListAuthenticatorsResponse:
        found = [self._authenticator_message(person, one) for one in domain.listed(person)]
        return pb.ListAuthenticatorsResponse(authenticators=found)

    def _authenticator_message(self, person: Principal, one: Authenticator) -> pb.Authenticator:
        return pb.Authenticator(
            name=f"principals/{person.id}/authenticators/{one.id}",
            kind=NUMBERS[one.kind],
            display_name=one.display_name or "TOTP",
            active=one.active,
            create_time=one.create_time,
            last_use_time=one.last_use_time,
            activation_end_time=one.activation_end,
        )


def shown_by_answer(context: Context, answer: str, use: Use, principal_id: str) -> Shown:
    """Return what an authenticator's answer shows; its challenge is used up by it, whatever it is worth."""
    keys = [key.private for key in context.issuer.keys]
    now = context.now()
    try:
        challenge = webauthn.challenge_in(answer, keys, use, principal_id, now)
    except webauthn.Refused:
        challenge = b""
    if challenge and not context.once.spend(webauthn.spending(challenge), now, now + 2 * webauthn.GOOD_FOR):
        challenge = b""
    return Shown(answer=webauthn.answering(context.relying_party, answer, challenge, use == "passkey", now))


def _use(passwordless: bool) -> Use:
    return "passkey" if passwordless else "sign-in"


def _random(count: int) -> str:
    return base64.urlsafe_b64encode(os.urandom(count)).decode().rstrip("=")
