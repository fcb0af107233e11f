"""Keys and erasure."""

from __future__ import annotations

import grpc
from google.longrunning import operations_pb2
from kehu.profiles.v1 import protection_pb2

from services.chassis.jobs import Owner
from services.chassis.server import current_call
from services.profiles.api.common import Tools, profile_in_reach
from services.profiles.protection.erasing import Eraser, start_erasing
from services.profiles.protection.rotating import RETIRE_MASTER, ROTATE_DATA, ROTATE_MASTER


class ProtectionPart:
    """RPCs of keys and erasure."""

    tools: Tools

    def EraseProfile(
        self, request: protection_pb2.EraseProfileRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue the erasure of a person, if nothing forbids it."""
        profile = profile_in_reach(self.tools.store, request.name)
        Eraser(self.tools.store, self.tools.vault).check(profile)
        return start_erasing(self.tools.jobs, profile.profile_id, request.reason, _owner(), request.request_id)

    def ListMasterKeys(
        self, request: protection_pb2.ListMasterKeysRequest, context: grpc.ServicerContext
    ) -> protection_pb2.ListMasterKeysResponse:
        """List what unwraps data keys."""
        master = self.tools.vault.master
        return protection_pb2.ListMasterKeysResponse(keys=master.versions(), newest=master.newest())

    def RotateMasterKey(
        self, request: protection_pb2.RotateMasterKeyRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue the new wrapping of all data keys."""
        return self._start(ROTATE_MASTER, {"create_key": request.create_key}, request.request_id)

    def RetireMasterKey(
        self, request: protection_pb2.RetireMasterKeyRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue the end of a master key."""
        return self._start(RETIRE_MASTER, {"key": request.key}, request.request_id)

    def RotateDataKeys(
        self, request: protection_pb2.RotateDataKeysRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Queue new data keys for all customers."""
        return self._start(ROTATE_DATA, {}, request.request_id)

    def _start(self, kind: str, args: dict[str, object], request_id: str) -> operations_pb2.Operation:
        return self.tools.jobs.start(kind, args, protection_pb2.KeyRotation(), _owner(), request_id)


def _owner() -> Owner:
    caller = current_call().caller
    return Owner(caller.subject, caller.department)
