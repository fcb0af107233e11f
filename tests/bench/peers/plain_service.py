"""The peer's service: one unary method on grpc.aio, no token, no policy, no audit, no TLS."""

from __future__ import annotations

import asyncio
import sys

import grpc
from kehu.consent.v1 import consent_pb2 as pb
from kehu.consent.v1 import consent_pb2_grpc

from tests.bench.peers.scene import consent_record


class PlainService(consent_pb2_grpc.ConsentServiceServicer):
    """Answers from a dictionary."""

    def __init__(self):
        self._records = {"p1": consent_record("p1")}

    async def ListConsents(self, request, context):
        return pb.ListConsentsResponse(consents=[self._records[request.profile_id]])


async def main(port):
    server = grpc.aio.server()
    consent_pb2_grpc.add_ConsentServiceServicer_to_server(PlainService(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
