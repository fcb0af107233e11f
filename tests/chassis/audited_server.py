"""A process that answers profile reads behind the real guard and the real spool, to be killed by test_trail.py."""

from __future__ import annotations

import sys
from pathlib import Path

from kehu.profiles.v1 import profiles_pb2 as pb
from kehu.profiles.v1 import profiles_pb2_grpc, resources_pb2

from services.chassis.audit import AuditSpool
from services.chassis.server import Guard, Serving, build_server, plans_by_path, service_names
from services.chassis.server.trail import SpoolTrail
from tests.harness import TODAY, OpenPolicy, StatedTokens, stated_peer


class OneProfile(profiles_pb2_grpc.ProfilesServiceServicer):
    """Answers every read with the profile asked for."""

    def GetProfile(self, request: pb.GetProfileRequest, context: object) -> resources_pb2.Profile:
        """Return it."""
        return resources_pb2.Profile(name=request.name, display_name="欧阳小明", phones=["+8613812348000"])


def main(folder: Path) -> None:
    """Serve until killed; the port is the first line written."""
    serving = Serving("profiles", [(profiles_pb2_grpc.add_ProfilesServiceServicer_to_server, OneProfile())])
    plans = plans_by_path(service_names(serving))
    trail = SpoolTrail("profiles", AuditSpool(folder))
    guard = Guard("profiles", plans, OpenPolicy(), StatedTokens(), trail, stated_peer, lambda: TODAY)
    server = build_server(serving, guard, threads=8)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
