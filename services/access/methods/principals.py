"""Principals: create, read, list, change, shut out, let in, give a new secret."""

from __future__ import annotations

from dataclasses import replace

import grpc
from kehu.access.v1 import access_pb2 as pb
from kehu.access.v1 import people_pb2 as people

from services.access.changing import change
from services.access.domain.credentials import without_secrets
from services.access.domain.errors import (
    PersonOfIssuer,
    PrincipalExists,
    PrincipalInvalid,
    PrincipalNotFound,
)
from services.access.domain.invitations import invited
from services.access.domain.policies import role_names
from services.access.domain.principals import Principal, checked
from services.access.methods.context import Context
from services.access.methods.messages import principal_message
from services.chassis.errors import FieldViolation
from services.chassis.paging import decode_token, encode_token, filter_hash, page_size_of
from services.chassis.records import fields_to_change, unchanged_since, updated
from services.chassis.server import current_call, validate

UPDATABLE = ("department", "roles")
KINDS = {pb.PRINCIPAL_KIND_APP: "app", pb.PRINCIPAL_KIND_PERSON: "user"}


class PrincipalMethods:
    """The principal methods of AccessService."""

    _context: Context

    def CreatePrincipal(self, request: pb.CreatePrincipalRequest, context: grpc.ServicerContext) -> pb.Principal:
        """Create one and show its secret once."""
        given, c = request.principal, self._context
        if given.kind not in KINDS:
            violation = FieldViolation("principal.kind", "say whether it is an app or a person")
            raise PrincipalInvalid("The principal has bad fields.", violations=[violation])
        kind = "app" if given.kind == pb.PRINCIPAL_KIND_APP else "user"
        new = Principal(kind, given.login, given.department, tuple(given.roles), "")  # type: ignore[arg-type]
        if request.request_id and c.principals.made_by(request.request_id, new.id):
            return principal_message(self._find_principal(new.id))
        content = c.directory.policy.content
        checked(new, role_names(content), content.department_names())
        new, secret = self._with_secret(new)
        try:
            stored = c.principals.insert(new, request.request_id)
        except PrincipalExists:
            if c.principals.made_by(request.request_id, new.id):
                return principal_message(self._find_principal(new.id))
            raise
        c.directory.refresh(at_once=True)
        return principal_message(stored, secret)

    def GetPrincipal(self, request: pb.GetPrincipalRequest, context: grpc.ServicerContext) -> pb.Principal:
        """Return one."""
        return principal_message(self._find_principal(request.principal_id))

    def ListPrincipals(
        self, request: pb.ListPrincipalsRequest, context: grpc.ServicerContext
    ) -> pb.ListPrincipalsResponse:
        """Return a page by id."""
        size, of_filter = page_size_of(request.page_size), filter_hash("principals", request.department, request.locked)
        after = str(decode_token(request.page_token, of_filter).get("after", ""))
        locked_at = self._context.now() if request.locked else None
        found = self._context.principals.page(after, size + 1, request.department, locked_at)
        more = encode_token({"after": found[size - 1].id}, of_filter) if len(found) > size else ""
        messages = [principal_message(principal) for principal in found[:size]]
        return pb.ListPrincipalsResponse(principals=messages, next_page_token=more)

    def UpdatePrincipal(self, request: pb.UpdatePrincipalRequest, context: grpc.ServicerContext) -> pb.Principal:
        """Change department or roles; tokens with the old ones end."""
        known, given = self._find_principal(request.principal_id), request.principal
        message = updated(principal_message(known), given, fields_to_change(request.update_mask, given, UPDATABLE))
        validate(message)
        with unchanged_since(given.etag, known.version, f"principals/{known.id}"):
            changed = replace(known, department=message.department, roles=tuple(message.roles))
            departments = self._context.directory.policy.content.department_names()
            return principal_message(self._change(checked(changed, self._roles(), departments)))

    def DisablePrincipal(self, request: pb.DisablePrincipalRequest, context: grpc.ServicerContext) -> pb.Principal:
        """Shut one out."""
        known = self._find_principal(request.principal_id)
        return principal_message(self._change(replace(known, enabled=False)))

    def EnablePrincipal(self, request: pb.EnablePrincipalRequest, context: grpc.ServicerContext) -> pb.Principal:
        """Let one in again."""
        known = self._find_principal(request.principal_id)
        return principal_message(self._change(replace(known, enabled=True, failures=0, locked_until=None)))

    def UnlockPrincipal(self, request: people.UnlockPrincipalRequest, context: grpc.ServicerContext) -> pb.Principal:
        """Forget a person's wrong tries."""
        known = self._find_principal(request.principal_id)
        if not known.failures and known.locked_until is None:
            return principal_message(known)
        return principal_message(self._context.principals.save(replace(known, failures=0, locked_until=None)))

    def RotateSecret(self, request: pb.RotateSecretRequest, context: grpc.ServicerContext) -> pb.Principal:
        """Give one a new secret."""
        known = self._find_principal(request.principal_id)
        if known.issuer:
            raise PersonOfIssuer("This person signs in at its company.", metadata={"issuer_id": known.issuer})
        changed, secret = self._with_secret(known)
        return principal_message(self._change(replace(changed, failures=0, locked_until=None)), secret)

    def _find_principal(self, principal_id: str) -> Principal:
        found = self._context.principals.get(principal_id)
        if found is None:
            raise PrincipalNotFound("No principal has this id.", metadata={"principal_id": principal_id})
        return found

    def _roles(self) -> list[str]:
        return role_names(self._context.directory.policy.content)

    def _with_secret(self, principal: Principal) -> tuple[Principal, pb.PrincipalSecret]:
        make, hashed = self._context.secrets, self._context.passwords.hash
        if principal.kind == "app":
            secret = pb.PrincipalSecret(client_secret=make.client_secret())
            return replace(without_secrets(principal), secret_hash=hashed(secret.client_secret)), secret
        token = make.invitation()
        by = current_call().caller.subject
        changed = invited(principal, token, make.totp_secret(), self._context.now(), by)
        secret = pb.PrincipalSecret(
            invitation_token=f"{principal.id}.{token}", invitation_expire_time=changed.invitation_end
        )
        return changed, secret

    def _change(self, changed: Principal) -> Principal:
        """Store a change; tokens end with the rights they carry."""
        return change(self._context, changed)
