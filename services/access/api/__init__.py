"""The gRPC servicer of access: parse, load, decide, save, reply."""

from services.access.api.servicer import AccessServicer

__all__ = ["AccessServicer"]
