"""The gRPC servicer of access: parse, load, decide, save, reply; its methods are in methods/, by topic."""

from __future__ import annotations

from kehu.access.v1 import access_pb2_grpc

from services.access.methods.alerts import AlertMethods
from services.access.methods.authenticators import AuthenticatorMethods
from services.access.methods.credentials import CredentialMethods
from services.access.methods.proof import ProofMethods
from services.access.methods.questions import QuestionMethods
from services.access.methods.quotas import QuotaMethods
from services.access.methods.recertification import RecertificationMethods
from services.access.methods.review import ReviewMethods
from services.access.methods.scim import ScimMethods
from services.access.methods.shadowing import ShadowMethods
from services.access.methods.shares import ShareMethods
from services.access.methods.tokens import TokenMethods
from services.access.methods.trail import TrailMethods
from services.access.methods.watching import WatchMethods


class AccessServicer(
    TokenMethods,
    CredentialMethods,
    ScimMethods,
    QuestionMethods,
    AuthenticatorMethods,
    RecertificationMethods,
    ShareMethods,
    ReviewMethods,
    ShadowMethods,
    QuotaMethods,
    TrailMethods,
    WatchMethods,
    ProofMethods,
    AlertMethods,
    access_pb2_grpc.AccessServiceServicer,
):
    """Serves kehu.access.v1.AccessService."""
