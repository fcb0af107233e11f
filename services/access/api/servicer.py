"""AccessService, put together from its parts."""

from __future__ import annotations

from kehu.access.v1 import access_pb2_grpc

from services.access.api.policies import PolicyMethods
from services.access.api.principals import PrincipalMethods
from services.access.api.tokens import TokenMethods
from services.access.api.trail import TrailMethods


class AccessServicer(
    TokenMethods, PrincipalMethods, PolicyMethods, TrailMethods, access_pb2_grpc.AccessServiceServicer
):
    """Serves kehu.access.v1.AccessService."""
