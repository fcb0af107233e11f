"""Shares as messages of the access service."""

from __future__ import annotations

from sys import intern

from kehu.access.v1 import shares_pb2 as pb

from services.chassis.access.shares import Share, Shares


def shares_of(found: pb.ShareSet) -> Shares:
    """Return the shares of a message."""
    return Shares(map(_share, found.shares), found.shares_version)


def share_message(share: Share) -> pb.LentRecord:
    """Return a share as a message."""
    return pb.LentRecord(
        target=f"{share.resource}/{share.record_id}",
        borrower=share.borrower,
        purpose=share.purpose,
        lender=share.lender,
        lender_department=share.lender_department,
        lender_purpose=share.lender_purpose,
        end=int(share.end),
    )


def _share(message: pb.LentRecord) -> Share:
    resource, _, record_id = message.target.partition("/")
    return Share(
        intern(resource), record_id, intern(message.borrower), intern(message.purpose), intern(message.lender),
        intern(message.lender_department), intern(message.lender_purpose), message.end,
    )  # fmt: skip
