"""Quotas as messages, and back."""

from __future__ import annotations

from dataclasses import asdict

from kehu.access.v1 import quotas_pb2 as pb

from services.chassis.access.quotas import Quota


def quota_message(quota: Quota) -> pb.Quota:
    """Return the message of a quota."""
    return pb.Quota(**asdict(quota))


def quota_of(message: pb.Quota) -> Quota:
    """Return the quota of a message."""
    m = message
    return Quota(m.name, m.subject, m.resource, m.action, m.requests, m.period_seconds)
