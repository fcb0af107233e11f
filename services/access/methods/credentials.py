"""Credentials of apps: add one beside those in use, see which is used, retire one."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import grpc
from google.protobuf import empty_pb2
from kehu.access.v1 import access_pb2 as access
from kehu.access.v1 import credentials_pb2 as pb

from services.access.company import IssuerSilent
from services.access.domain import credentials as domain
from services.access.domain.errors import CredentialInvalid, CredentialsRefused
from services.access.domain.principals import Credential, Principal
from services.access.domain.tokens import Grant, revoke_credential
from services.access.methods.context import Context
from services.access.methods.principals import PrincipalMethods
from services.chassis.errors import Conflict, FieldViolation
from services.chassis.server import current_call
from services.chassis.times import timestamp

KINDS = {
    pb.CREDENTIAL_KIND_SECRET: "secret",
    pb.CREDENTIAL_KIND_PUBLIC_KEY: "key",
    pb.CREDENTIAL_KIND_CERTIFICATE: "certificate",
    pb.CREDENTIAL_KIND_KEY_SET: "key_set",
}
NUMBERS = {kind: number for number, kind in KINDS.items()}
TRIES = 5


class CredentialMethods(PrincipalMethods):
    """The credential methods of AccessService, beside those of principals."""

    def CreateCredential(self, request: pb.CreateCredentialRequest, context: grpc.ServicerContext) -> pb.Credential:
        """Add one; its secret is told once."""
        c, secret = self._context, ""
        for turn in range(TRIES):
            app = self._find_principal(request.principal_id)
            known = next(
                (x for x in app.credentials if request.request_id and x.request_id == request.request_id), None
            )
            if known is not None:
                return self._message(app, known, None)
            new, secret = self._made(request)
            try:
                c.principals.save(domain.with_credential(app, new, c.now()))
            except Conflict:
                if turn == TRIES - 1:
                    raise
                continue
            break
        reply = self._message(app, new, None)
        reply.client_secret = secret
        return reply

    def ListCredentials(
        self, request: pb.ListCredentialsRequest, context: grpc.ServicerContext
    ) -> pb.ListCredentialsResponse:
        """Return all."""
        app = self._find_principal(request.principal_id)
        uses = self._context.uses.of(app.id)
        return pb.ListCredentialsResponse(credentials=[self._message(app, x, uses) for x in domain.all_of(app)])

    def DeleteCredential(self, request: pb.DeleteCredentialRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """End one, and before and after that the tokens got by it."""
        c = self._context
        for turn in range(TRIES):
            app = self._find_principal(request.principal_id)
            changed = domain.without_credential(app, request.credential_id)
            c.revocations.add(revoke_credential(app.subject, request.credential_id, c.now()))
            try:
                c.principals.save(changed)
            except Conflict:
                if turn == TRIES - 1:
                    raise
                continue
            break
        c.revocations.add(revoke_credential(app.subject, request.credential_id, c.now()))
        c.directory.refresh(at_once=True)
        return empty_pb2.Empty()

    def _made(self, request: pb.CreateCredentialRequest) -> tuple[Credential, str]:
        """Return the credential asked for and, of a secret, the secret."""
        c, given, now = self._context, request.credential, self._context.now()
        kind = KINDS[given.kind]
        needed = domain.VALUES.get(kind)
        for name in domain.VALUES.values():
            if bool(getattr(given, name)) != (needed == name):
                need = "is needed for this kind" if needed == name else "does not belong to this kind"
                violation = FieldViolation(f"credential.{name}", need)
                raise CredentialInvalid("The credential has a bad field.", violations=[violation])
        asked = given.expire_time.ToDatetime(UTC) if given.HasField("expire_time") else None
        ends, secret, id = domain.checked_end(asked, now), "", uuid.uuid4().hex[:12]
        if kind == "secret":
            secret = f"{id}.{c.secrets.client_secret()}"
            value = c.passwords.hash(secret)
        elif kind == "key":
            value = domain.read_jwk(given.public_jwk)
        elif kind == "key_set":
            value = self._key_set(given.jwks_uri)
        else:
            value, natural = domain.read_certificate(given.certificate_pem, now)
            ends = min(ends or natural, natural)
        made = Credential(id, kind, value, given.display_name, now, ends, request.request_id)  # type: ignore[arg-type]
        return made, secret

    def _key_set(self, url: str) -> str:
        """Return the URL of a key set that answers."""
        companies = self._context.companies
        try:
            companies.key_set(domain.read_key_set(url, companies.loopback))
        except IssuerSilent as error:
            violation = FieldViolation("credential.jwks_uri", error.message)
            raise CredentialInvalid("The key set cannot be read.", violations=[violation]) from None
        return url

    def _message(self, app: Principal, found: Credential, uses: dict[str, datetime] | None) -> pb.Credential:
        return pb.Credential(
            name=f"principals/{app.id}/credentials/{found.id}",
            kind=NUMBERS[found.kind],
            display_name=found.display_name,
            public_jwk=found.value if found.kind == "key" else "",
            jwks_uri=found.value if found.kind == "key_set" else "",
            thumbprint=found.value if found.kind == "certificate" else "",
            expire_time=timestamp(found.expire_time),
            create_time=timestamp(found.create_time),
            last_use_time=timestamp((uses or {}).get(found.id)),
        )


def prove_app(context: Context, request: access.CreateTokenRequest) -> domain.Proof:
    """Return the proof of the app that asks for a token, its use written down.

    Raises:
        CredentialsRefused: whatever is wrong.
    """
    if request.client_assertion and request.client_assertion_type != domain.ASSERTION_TYPE:
        raise CredentialsRefused(f"Use client_assertion_type {domain.ASSERTION_TYPE}.")
    client_id = request.client_id or domain.named_client(request.client_assertion)
    shown = domain.Presented(client_id, request.client_secret, request.client_assertion, current_call().thumbprint)
    now = context.now()
    app = context.principals.get(f"app-{client_id}")
    proof = domain.prove(app, shown, context.token_endpoints, now, context.passwords, context.decoy,
                         context.companies.key_of_set)  # fmt: skip
    kept = now + domain.ASSERTION_KEPT
    if proof.assertion_id and not context.once.spend(f"assertion {proof.assertion_id}", now, kept):
        raise CredentialsRefused
    context.uses.note(proof.app.id, proof.credential_id, now)
    return proof


def grant_of(proof: domain.Proof) -> Grant:
    """Return how a token by this proof is issued."""
    return Grant((proof.method,), proof.thumbprint, proof.expire_time)
