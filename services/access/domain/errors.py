"""The errors of access; reasons are listed in error_reason.proto."""

from __future__ import annotations

from services.chassis import errors

NOT_IN = "The credentials are wrong, disabled, or were tried too often; check them, wait, try again."
NOBODY_LEFT = "This would leave no person who can administer policies; give another one the right first."


class CredentialsRefused(errors.Unauthenticated):
    """Something about the sign-in is wrong; which part is not said."""

    reason = "CREDENTIALS_REFUSED"

    def __init__(self, message: str = NOT_IN) -> None:
        super().__init__(message)


class SubjectTokenRefused(errors.Unauthenticated):
    """The token that a step-up starts from is not a living one of a person."""

    reason = "SUBJECT_TOKEN_REFUSED"

    def __init__(self, message: str = "The subject_token is no living token of a person; sign in again.") -> None:
        super().__init__(message)


class InvitationRefused(errors.Unauthenticated):
    """The invitation is used, too old, replaced or unknown, or the first code is wrong."""

    reason = "INVITATION_REFUSED"

    def __init__(self, message: str = "The invitation is used, too old or not known; ask for a new one.") -> None:
        super().__init__(message)


class PasswordRefused(errors.Invalid):
    """A password may not be set, or the current one is wrong; the violation says which and why."""

    reason = "PASSWORD_REFUSED"


class SessionNotFound(errors.NotFound):
    """The person has no session of this id, or it is over."""

    reason = "SESSION_NOT_FOUND"


class PersonNeeded(errors.NotAllowed):
    """What the method is about people have and apps have not."""

    reason = "PERSON_NEEDED"


class GrantTypeUnsupported(errors.Invalid):
    """The grant type is not one of ours."""

    reason = "GRANT_TYPE_UNSUPPORTED"


class PrincipalNotFound(errors.NotFound):
    """No principal has this id."""

    reason = "PRINCIPAL_NOT_FOUND"


class PrincipalExists(errors.AlreadyExists):
    """A principal has this id already."""

    reason = "PRINCIPAL_EXISTS"


class PrincipalInvalid(errors.Invalid):
    """A principal's fields contradict each other or the policy."""

    reason = "PRINCIPAL_INVALID"


class LastAdministrator(errors.NotAllowed):
    """Nobody could administer the policy any more."""

    reason = "LAST_ADMINISTRATOR"

    def __init__(self, message: str = NOBODY_LEFT) -> None:
        super().__init__(message)


class PolicyInvalid(errors.Invalid):
    """A policy has faults; each is a violation."""

    reason = "POLICY_INVALID"


class PolicyTestsFailed(errors.Invalid):
    """A policy answers otherwise than its own tables say."""

    reason = "POLICY_TESTS_FAILED"


class PolicyNotFound(errors.NotFound):
    """No policy revision has this id."""

    reason = "POLICY_NOT_FOUND"


class PolicyState(errors.NotAllowed):
    """The revision is not in the state this needs."""

    reason = "POLICY_STATE"


class PolicyOutdated(errors.Conflict):
    """Another revision was published since this one was drafted."""

    reason = "POLICY_OUTDATED"


class SelfApproval(errors.NotAllowed):
    """Author or submitter cannot approve."""

    reason = "SELF_APPROVAL"


class RoleNotFound(errors.NotFound):
    """No role of the current policy has this name."""

    reason = "ROLE_NOT_FOUND"


class AuditBatchChanged(errors.Invalid):
    """A batch id came back with other entries."""

    reason = "AUDIT_BATCH_CHANGED"


class CredentialNotFound(errors.NotFound):
    """The app has no credential of this id."""

    reason = "CREDENTIAL_NOT_FOUND"


class CredentialInvalid(errors.Invalid):
    """A credential is not what its kind needs."""

    reason = "CREDENTIAL_INVALID"


class CredentialLimit(errors.NotAllowed):
    """The app has as many living credentials of the kind as it may."""

    reason = "CREDENTIAL_LIMIT"


class IssuerNotFound(errors.NotFound):
    """No issuer has this id."""

    reason = "ISSUER_NOT_FOUND"


class IssuerExists(errors.AlreadyExists):
    """An issuer has this id or URL already."""

    reason = "ISSUER_EXISTS"


class IssuerInvalid(errors.Invalid):
    """An issuer's fields make no sense, or it cannot be discovered."""

    reason = "ISSUER_INVALID"


class PersonOfIssuer(errors.NotAllowed):
    """A person who signs in at a company issuer gets no password here."""

    reason = "PERSON_OF_ISSUER"


class ScimInvalid(errors.Invalid):
    """A SCIM request cannot be followed."""

    reason = "SCIM_INVALID"


class ScimResourceUnknown(errors.NotFound):
    """No schema and no kind of resource of SCIM has this id."""

    reason = "SCIM_RESOURCE_UNKNOWN"


class ScimClientUnknown(errors.Denied):
    """The caller is no issuer's scim_client."""

    reason = "SCIM_CLIENT_UNKNOWN"


class AccessRequestNotFound(errors.NotFound):
    """No access request of this id is the caller's to see."""

    reason = "ACCESS_REQUEST_NOT_FOUND"


class AccessRequestInvalid(errors.Invalid):
    """An access request asks for what cannot be granted."""

    reason = "ACCESS_REQUEST_INVALID"


class AccessRequestState(errors.NotAllowed):
    """An access request is not in the state this needs."""

    reason = "ACCESS_REQUEST_STATE"


class NotDataOwner(errors.Denied):
    """The caller may do this for another department, not for that of the request."""

    reason = "NOT_DATA_OWNER"


class ReviewOverdue(errors.NotAllowed):
    """Somebody's earlier break-glass was not reviewed in time."""

    reason = "REVIEW_OVERDUE"


class AuthenticatorNotFound(errors.NotFound):
    """The person has no second factor of this id."""

    reason = "AUTHENTICATOR_NOT_FOUND"


class AuthenticatorRefused(errors.Invalid):
    """A new second factor was not shown as it should."""

    reason = "AUTHENTICATOR_REFUSED"


class AuthenticatorLimit(errors.NotAllowed):
    """The person has as many second factors as they may."""

    reason = "AUTHENTICATOR_LIMIT"


class LastAuthenticator(errors.NotAllowed):
    """Without this one the person could not sign in."""

    reason = "LAST_AUTHENTICATOR"


class WebauthnOff(errors.NotAllowed):
    """No domain is configured that authenticators know us by."""

    reason = "WEBAUTHN_OFF"


class RecertificationNotFound(errors.NotFound):
    """No review, or no role in it, of this id is the caller's to see."""

    reason = "RECERTIFICATION_NOT_FOUND"


class RecertificationState(errors.NotAllowed):
    """The review is over, or the role in it is answered for good."""

    reason = "RECERTIFICATION_STATE"


class ShareNotFound(errors.NotFound):
    """No share of this id is the caller's to see."""

    reason = "SHARE_NOT_FOUND"


class ShareInvalid(errors.Invalid):
    """A record cannot be shared like this; violations name the field."""

    reason = "SHARE_INVALID"


class ShareState(errors.NotAllowed):
    """The share is over already."""

    reason = "SHARE_STATE"


class ShareLimit(errors.NotAllowed):
    """The borrower, the lender or the company has as many shares as they may."""

    reason = "SHARE_LIMIT"


class ShareExists(errors.AlreadyExists):
    """The lender lends this record to this borrower for this purpose already."""

    reason = "SHARE_EXISTS"
