"""The Python client of Kehu: typed methods from the protos, tokens renewed, pages walked, operations waited for."""

from kehu.client.client import Kehu
from kehu.client.errors import (
    NO_ANSWER,
    Conflict,
    Fault,
    InvalidRequest,
    KehuProblem,
    NotFound,
    OperationFailed,
    PermissionDenied,
    QuotaExceeded,
    StepUpRequired,
    Unauthenticated,
    Unavailable,
    VersionMismatch,
)
from kehu.client.operations import Operation
from kehu.client.pages import Pages
from kehu.client.signing import (
    AppCertificate,
    AppKey,
    AppSecret,
    CompanyToken,
    GivenToken,
    Person,
    SignIn,
    Token,
    TokenEndpoint,
)

__all__ = [
    "NO_ANSWER",
    "AppCertificate",
    "AppKey",
    "AppSecret",
    "CompanyToken",
    "Conflict",
    "Fault",
    "GivenToken",
    "InvalidRequest",
    "Kehu",
    "KehuProblem",
    "NotFound",
    "Operation",
    "OperationFailed",
    "Pages",
    "PermissionDenied",
    "Person",
    "QuotaExceeded",
    "SignIn",
    "StepUpRequired",
    "Token",
    "TokenEndpoint",
    "Unauthenticated",
    "Unavailable",
    "VersionMismatch",
]
