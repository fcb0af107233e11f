"""Profiles over gRPC with contacts given by hand: what marketing needs of it."""

from __future__ import annotations

from kehu.profiles.v1 import profiles_pb2 as pb
from kehu.profiles.v1 import profiles_pb2_grpc

from services.chassis.server import Serving


class ProfilesFake(profiles_pb2_grpc.ProfilesServiceServicer):
    """Knows name and address of each profile in `contacts`."""

    def __init__(self) -> None:
        self.contacts: dict[str, tuple[str, str]] = {}

    def BatchGetContacts(self, request, context):
        """Return the contacts of those that have one, in the order asked."""
        found = [
            pb.Contact(profile_id=one, display_name=self.contacts[one][0], address=self.contacts[one][1])
            for one in request.profile_ids
            if one in self.contacts
        ]
        return pb.BatchGetContactsResponse(contacts=found)


def profiles_serving(fake: ProfilesFake) -> Serving:
    """Return what serves the fake."""
    return Serving("profiles", [(profiles_pb2_grpc.add_ProfilesServiceServicer_to_server, fake)])
