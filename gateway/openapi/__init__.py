"""OpenAPI 3.1 of every route, written from the descriptors and the protos' own comments."""

from gateway.openapi.document import build_document

__all__ = ["build_document"]
