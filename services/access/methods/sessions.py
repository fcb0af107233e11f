"""Sessions of people: list and end those of anybody, or one's own."""

from __future__ import annotations

import grpc
from google.protobuf import empty_pb2
from kehu.access.v1 import people_pb2 as pb

from services.access.domain.errors import PersonNeeded, SessionNotFound
from services.access.domain.principals import Principal, principal_id_of
from services.access.domain.tokens import revoke_session
from services.access.methods.principals import PrincipalMethods
from services.chassis.server import current_call


class SessionMethods(PrincipalMethods):
    """The session methods of AccessService."""

    def ListSessions(self, request: pb.ListSessionsRequest, context: grpc.ServicerContext) -> pb.ListSessionsResponse:
        """Return a person's sessions."""
        return self._sessions(self._find_principal(request.principal_id))

    def EndSession(self, request: pb.EndSessionRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """End a session of a person."""
        return self._end(self._find_principal(request.principal_id), request.session_id)

    def ListOwnSessions(
        self, request: pb.ListOwnSessionsRequest, context: grpc.ServicerContext
    ) -> pb.ListSessionsResponse:
        """Return the caller's sessions."""
        return self._sessions(self._own_principal())

    def EndOwnSession(self, request: pb.EndOwnSessionRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """End a session of the caller's."""
        return self._end(self._own_principal(), request.session_id)

    def _own_principal(self) -> Principal:
        """Return the person who calls: whose id comes from the token alone.

        Raises:
            PersonNeeded: an app calls.
        """
        caller = current_call().caller
        if caller.kind != "user":
            raise PersonNeeded("An app has no account of this kind; sign in as a person.")
        return self._find_principal(principal_id_of(caller.subject))

    def _sessions(self, person: Principal) -> pb.ListSessionsResponse:
        c, own = self._context, current_call().caller.token_id.partition(".")[0]
        reply = pb.ListSessionsResponse()
        for found in c.sessions.of(person.id, c.now()):
            reply.sessions.add(
                name=f"principals/{person.id}/sessions/{found.id}",
                create_time=found.create_time,
                last_token_time=found.last_token_time,
                expire_time=found.expire_time,
                methods=found.methods,
                current=found.id == own,
            )
        return reply

    def _end(self, person: Principal, session_id: str) -> empty_pb2.Empty:
        if not self._revoke(person, session_id):
            raise SessionNotFound("The person has no such session.", metadata={"session_id": session_id})
        return empty_pb2.Empty()

    def _revoke(self, person: Principal, session_id: str) -> bool:
        """End a session and, before and after that, its tokens: no step-up between the two outlives it."""
        c = self._context
        c.revocations.add(revoke_session(person.subject, session_id, c.now()))
        ended = c.sessions.remove(person.id, session_id)
        c.revocations.add(revoke_session(person.subject, session_id, c.now()))
        c.directory.refresh(at_once=True)
        return ended
