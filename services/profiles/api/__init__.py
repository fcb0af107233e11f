"""The gRPC servicer of profiles, composed of one part for each kind of resource."""

from services.profiles.api.servicer import ProfilesServicer

__all__ = ["ProfilesServicer"]
