"""How people come to a password and keep it: invitations, changes, recovery codes."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pyotp
from google.protobuf import empty_pb2
from kehu.access.v1 import people_pb2 as pb

from services.access.domain import invitations
from services.access.domain.errors import CredentialsRefused, InvitationRefused, PasswordRefused, PersonOfIssuer
from services.access.domain.passwords import checked_password
from services.access.domain.principals import Principal, confirm_password
from services.access.domain.recovery import codes_of, plain
from services.access.methods.sessions import SessionMethods
from services.access.trying import Tried, tried
from services.chassis.errors import FieldViolation
from services.chassis.server import current_call


class PeopleMethods(SessionMethods):
    """The methods of AccessService for people, about themselves."""

    def OpenInvitation(self, request: pb.OpenInvitationRequest, context: grpc.ServicerContext) -> pb.Invitation:
        """Show what the authenticator needs."""
        person = self._invited(request.token)
        uri = pyotp.TOTP(person.totp_secret).provisioning_uri(name=person.login, issuer_name="Kehu")
        return pb.Invitation(
            login=person.login, totp_secret=person.totp_secret, totp_uri=uri, expire_time=person.invitation_end
        )

    def AcceptInvitation(self, request: pb.AcceptInvitationRequest, context: grpc.ServicerContext) -> pb.RecoveryCodes:
        """Set the password; of two that accept at once the second is refused by the store."""
        c, person = self._context, self._invited(request.token)
        password = checked_password(request.password, person.login, c.breached)
        codes, hashes = self._new_codes()
        changed = invitations.accepted(person, c.passwords.hash(password), request.totp, hashes, c.now())
        c.principals.save(changed)
        self._note_invitation(person, refused=False)
        return pb.RecoveryCodes(codes=codes)

    def ChangePassword(self, request: pb.ChangePasswordRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Set another password; whoever knew the old one has no session left."""
        c, person = self._context, self._own_principal()

        def attempt(known: Principal | None) -> Tried:
            if known is None:
                return None, False
            state, is_right = confirm_password(known, request.current_password, c.now(), c.passwords)
            if state is None or not is_right:
                return state, False
            password = checked_password(request.new_password, known.login, c.breached, "new_password")
            return replace(state, secret_hash=c.passwords.hash(password)), True

        try:
            tried(c.principals, person.id, attempt)
        except CredentialsRefused:
            violation = FieldViolation("current_password", "it is not the current one")
            raise PasswordRefused("The password was not changed.", violations=[violation]) from None
        own = current_call().caller.token_id.partition(".")[0]
        for session in c.sessions.of(person.id, c.now()):
            if session.id != own:
                self._revoke(person, session.id)
        return empty_pb2.Empty()

    def CreateRecoveryCodes(
        self, request: pb.CreateRecoveryCodesRequest, context: grpc.ServicerContext
    ) -> pb.RecoveryCodes:
        """Make ten codes in place of those there were."""
        person = self._own_principal()
        if person.issuer:  # or the company's own second factor would be gone round
            raise PersonOfIssuer("Your company asks for your second factor.", metadata={"issuer_id": person.issuer})
        codes, hashes = self._new_codes()
        self._context.principals.save(replace(person, recovery_hashes=hashes))
        return pb.RecoveryCodes(codes=codes)

    def _new_codes(self) -> tuple[list[str], tuple[str, ...]]:
        codes = codes_of(self._context.secrets.letter)
        return codes, tuple(self._context.passwords.hash(plain(code)) for code in codes)

    def _invited(self, token: str) -> Principal:
        """Return the person an invitation is of.

        Raises:
            InvitationRefused: it is no living one; written down whether it names somebody or not, and as fast.
        """
        c = self._context
        principal_id, secret = invitations.whose(token)
        person = c.principals.get(principal_id)
        try:
            return invitations.opened(person, secret, c.now())
        except InvitationRefused:
            self._note_invitation(person, refused=True)
            raise

    def _note_invitation(self, person: Principal | None, refused: bool) -> None:
        subject, department = (person.subject, person.department) if person else ("unknown", "")
        self._context.note("accept", subject, department, current_call().request_id, refused, "invitations")
