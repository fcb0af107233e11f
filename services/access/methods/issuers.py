"""Company issuers: trust one, say what its claims mean, exchange its tokens for ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta

import grpc
from google.protobuf import empty_pb2
from kehu.access.v1 import access_pb2 as access
from kehu.access.v1 import issuers_pb2 as pb

from services.access.changing import ending
from services.access.company import IssuerSilent
from services.access.domain import issuers as domain
from services.access.domain.errors import (
    CredentialsRefused,
    IssuerInvalid,
    IssuerNotFound,
    LastAdministrator,
    PrincipalExists,
)
from services.access.domain.policies import role_names
from services.access.domain.principals import Principal
from services.access.domain.tokens import Grant, revoke_subject
from services.access.methods.principals import PrincipalMethods
from services.chassis.errors import FieldViolation
from services.chassis.paging import decode_token, encode_token, filter_hash, page_size_of
from services.chassis.records import etag_of, fields_to_change, unchanged_since, updated
from services.chassis.server import validate

UPDATABLE = ("audiences", "login_claim", "rules", "provision", "scim_client", "directory_claim", "disabled")
JUST_AFTER = timedelta(milliseconds=1)  # a token of the change that ended the older ones


class IssuerMethods(PrincipalMethods):
    """The issuer methods of AccessService, and the exchange of their tokens."""

    def CreateIssuer(self, request: pb.CreateIssuerRequest, context: grpc.ServicerContext) -> pb.Issuer:
        """Trust one."""
        given, c = request.issuer, self._context
        if not given.issuer_id:
            violation = FieldViolation("issuer.issuer_id", "choose an id")
            raise IssuerInvalid("The issuer has bad fields.", violations=[violation])
        new = domain.checked_issuer(_issuer(given), self._roles(), c.companies.loopback)
        try:
            c.companies.discover(new.url)
        except IssuerSilent as error:
            violation = FieldViolation("issuer.url", error.message)
            raise IssuerInvalid("The issuer cannot be discovered.", violations=[violation]) from None
        return _message(c.issuers.insert(new, request.request_id))

    def GetIssuer(self, request: pb.GetIssuerRequest, context: grpc.ServicerContext) -> pb.Issuer:
        """Return one."""
        return _message(self._find_issuer(request.issuer_id))

    def ListIssuers(self, request: pb.ListIssuersRequest, context: grpc.ServicerContext) -> pb.ListIssuersResponse:
        """Return a page by id."""
        size, of_filter = page_size_of(request.page_size), filter_hash("issuers", "")
        after = str(decode_token(request.page_token, of_filter).get("after", ""))
        found = [issuer for issuer in self._context.issuers.all() if issuer.id > after]
        more = encode_token({"after": found[size - 1].id}, of_filter) if len(found) > size else ""
        return pb.ListIssuersResponse(issuers=[_message(issuer) for issuer in found[:size]], next_page_token=more)

    def UpdateIssuer(self, request: pb.UpdateIssuerRequest, context: grpc.ServicerContext) -> pb.Issuer:
        """Change one; to take it out of use ends its people's tokens."""
        known, given = self._find_issuer(request.issuer_id), request.issuer
        message = updated(_message(known), given, fields_to_change(request.update_mask, given, UPDATABLE))
        validate(message)
        with unchanged_since(given.etag, known.version, f"issuers/{known.id}"):
            changed = replace(_issuer(message), version=known.version, create_time=known.create_time)
            domain.checked_issuer(changed, self._roles(), self._context.companies.loopback)
            return _message(self._disabled(known, changed) if changed.disabled else self._context.issuers.save(changed))

    def DeleteIssuer(self, request: pb.DeleteIssuerRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Trust one no more; its people stay, and cannot sign in."""
        found, issuers = self._find_issuer(request.issuer_id), self._context.issuers
        with self._ending(found.id, lambda: issuers.insert(found)):
            issuers.delete(found.id)
        return empty_pb2.Empty()

    def exchange(self, request: access.CreateTokenRequest, now: datetime) -> tuple[Principal, Grant, datetime]:
        """Return the person a company's token means, how its token is issued, and the time of issue.

        Raises:
            CredentialsRefused: whatever is wrong.
        """
        c = self._context
        if request.subject_token_type not in domain.TOKEN_TYPES:
            raise CredentialsRefused(f"Use subject_token_type {domain.TOKEN_TYPES[0]}.")
        url, key_id = domain.peek(request.subject_token)
        issuer = c.issuers.by_url(url)
        key = c.companies.key(url, key_id) if issuer is not None and not issuer.disabled else None
        if issuer is None or key is None:
            raise CredentialsRefused
        claims = domain.verified_claims(issuer, key, request.subject_token, request.nonce, now)
        found = domain.visitor(issuer, claims, self._roles())
        person = self._person_of(issuer, found)
        signed = request.subject_token.rpartition(".")[0]  # a signature may be written in several ways
        if not c.once.spend(f"exchange {signed}", now, found.expire_time):
            raise CredentialsRefused
        if found.department and (person.department, person.roles) != (found.department, found.roles):
            try:
                person = self._change(replace(person, department=found.department, roles=found.roles))
            except LastAdministrator:
                raise CredentialsRefused from None
            now = c.now() + JUST_AFTER
        return person, Grant(found.methods, auth_time=found.auth_time), now

    def _person_of(self, issuer: domain.Issuer, found: domain.Visitor) -> Principal:
        """Return the person, made or bound to the company's `sub` when this is its first visit."""
        c = self._context
        person = c.principals.get(f"user-{found.login}")
        if person is None and issuer.provision and found.roles:
            with suppress(PrincipalExists):
                c.principals.insert(domain.new_person(issuer, found))
            c.directory.refresh(at_once=True)
            person = c.principals.get(f"user-{found.login}")
        if person is None or not person.enabled or not domain.belongs(person, issuer, found):
            raise CredentialsRefused
        if not person.external_id:
            person = c.principals.save(replace(person, external_id=found.external_id))
        return person

    def _disabled(self, known: domain.Issuer, changed: domain.Issuer) -> domain.Issuer:
        issuers = self._context.issuers
        with self._ending(known.id, lambda: issuers.save(replace(known, version=known.version + 1))):
            return issuers.save(changed)

    @contextmanager
    def _ending(self, issuer_id: str, undo: Callable[[], object]) -> Iterator[None]:
        """Take an issuer out of use in the block; its people's tokens end before it, for we may die, and after it."""
        with ending(self._context, issuer_id, undo):
            self._end_sessions(issuer_id)
            yield
        self._end_sessions(issuer_id)

    def _end_sessions(self, issuer_id: str) -> None:
        c = self._context
        for person in c.everybody():
            if person.issuer == issuer_id:
                c.revocations.add(revoke_subject(person.subject, c.now()))
        c.directory.refresh(at_once=True)

    def _find_issuer(self, issuer_id: str) -> domain.Issuer:
        found = self._context.issuers.get(issuer_id)
        if found is None:
            raise IssuerNotFound("No issuer has this id.", metadata={"issuer_id": issuer_id})
        return found

    def _roles(self) -> list[str]:
        return role_names(self._context.directory.policy.content)


def _issuer(message: pb.Issuer) -> domain.Issuer:
    rules = tuple(domain.ClaimRule(r.claim, r.value, r.department, r.role) for r in message.rules)
    return domain.Issuer(
        message.issuer_id, message.url, tuple(message.audiences), message.login_claim or domain.LOGIN_CLAIM,
        rules, message.provision, message.scim_client, message.disabled,
        message.directory_claim or domain.DIRECTORY_CLAIM,
    )  # fmt: skip


def _message(issuer: domain.Issuer) -> pb.Issuer:
    return pb.Issuer(
        name=f"issuers/{issuer.id}",
        issuer_id=issuer.id,
        url=issuer.url,
        audiences=issuer.audiences,
        login_claim=issuer.login_claim,
        rules=[pb.ClaimRule(claim=r.claim, value=r.value, department=r.department, role=r.role) for r in issuer.rules],
        provision=issuer.provision,
        scim_client=issuer.scim_client,
        directory_claim=issuer.directory_claim,
        disabled=issuer.disabled,
        create_time=issuer.create_time,
        update_time=issuer.update_time,
        etag=etag_of(issuer.version),
    )
