"""What a directory can learn of our SCIM before it begins: RFC 7643 §5 to §7, and nothing that is not so."""

from __future__ import annotations

from collections.abc import Sequence

from services.access.domain.scim import ENTERPRISE, GROUP, USER, Json, invalid, list_resource
from services.access.domain.vocabulary import DEPARTMENTS

CONFIG = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"
SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Schema"
RESOURCE_TYPE = "urn:ietf:params:scim:schemas:core:2.0:ResourceType"
PAGE = 200  # resources on a page, see list_resource
BULK_OPERATIONS, BULK_BYTES = 100, 1024 * 1024  # the gateway's, which cuts a bulk into its operations
NOT_THERE: Json = {"supported": False}
NAMES = {USER: "User", ENTERPRISE: "EnterpriseUser", GROUP: "Group"}


def _attribute(name: str, description: str, kind: str = "string", **more: object) -> Json:
    """Return an attribute's definition (RFC 7643 §7); what is not said is what it says by default."""
    usual = {
        "multiValued": False, "required": False, "caseExact": True, "mutability": "readWrite", "returned": "default",
        "uniqueness": "none",
    }  # fmt: skip
    return {"name": name, "type": kind, "description": description, **usual, **more}


def _attributes(roles: Sequence[str]) -> dict[str, list[Json]]:
    """Return what is kept, by schema."""
    role = _attribute("value", "Name of a role of the policy.", canonicalValues=list(roles))
    member = [
        _attribute("value", "Id of a user.", mutability="immutable"),
        _attribute("$ref", "Where the user is.", "reference", referenceTypes=["User"], mutability="readOnly"),
    ]
    return {
        USER: [
            _attribute(
                "userName", "The login; of an e-mail address the part before the @, in lower case.",
                required=True, caseExact=False, mutability="immutable", uniqueness="server",
            ),
            _attribute("active", "Whether the person may sign in; false ends every session at once.", "boolean"),
            _attribute("roles", "What the person may do.", "complex", multiValued=True, subAttributes=[role]),
        ],
        ENTERPRISE: [
            _attribute("department", "Where the person works.", canonicalValues=list(DEPARTMENTS)),
        ],
        GROUP: [
            _attribute("displayName", "Name of the role.", mutability="readOnly", canonicalValues=list(roles)),
            _attribute(
                "members", "The issuer's people who have it.", "complex", multiValued=True, subAttributes=member,
            ),
        ],
    }  # fmt: skip


def config(base: str) -> Json:
    """Return what can be done (RFC 7643 §5)."""
    return {
        "schemas": [CONFIG],
        "patch": {"supported": True},
        "bulk": {"supported": True, "maxOperations": BULK_OPERATIONS, "maxPayloadSize": BULK_BYTES},
        "filter": {"supported": True, "maxResults": PAGE},
        "changePassword": NOT_THERE,
        "sort": NOT_THERE,
        "etag": NOT_THERE,
        "authenticationSchemes": [
            {
                "type": "oauthbearertoken", "name": "OAuth 2.0 client credentials", "primary": True,
                "description": "A bearer token of /oauth2/token for the app that is the issuer's scim_client.",
                "specUri": "https://www.rfc-editor.org/info/rfc6750",
            }
        ],
        "meta": {"resourceType": "ServiceProviderConfig", "location": f"{base}/ServiceProviderConfig"},
    }  # fmt: skip


def schemas(base: str, roles: Sequence[str]) -> list[Json]:
    """Return the definitions of what is kept (RFC 7643 §7), by the roles of the policy."""
    return [
        {
            "schemas": [SCHEMA], "id": urn, "name": NAMES[urn], "description": f"The {NAMES[urn]} that Kehu keeps.",
            "attributes": attributes,
            "meta": {"resourceType": "Schema", "location": f"{base}/Schemas/{urn}"},
        }
        for urn, attributes in _attributes(roles).items()
    ]  # fmt: skip


def resource_types(base: str) -> list[Json]:
    """Return the kinds of resources (RFC 7643 §6)."""
    user, group = (
        {
            "schemas": [RESOURCE_TYPE], "id": name, "name": name, "endpoint": f"/{name}s", "schema": urn,
            "description": description,
            "meta": {"resourceType": "ResourceType", "location": f"{base}/ResourceTypes/{name}"},
        }
        for name, urn, description in (
            ("User", USER, "People of the caller's issuer."),
            ("Group", GROUP, "Roles of the policy; their members can be changed, they themselves not."),
        )
    )  # fmt: skip
    return [{**user, "schemaExtensions": [{"schema": ENTERPRISE, "required": False}]}, group]


def listed(found: Sequence[Json], asked: str) -> Json:
    """Return all of a discovery's resources; pages are not looked at (RFC 7644 §4).

    Raises:
        ScimInvalid: there is a filter.
    """
    if asked.strip():
        raise invalid("invalidFilter", "there is no filter here: take all")
    return list_resource(found, 1, PAGE)
