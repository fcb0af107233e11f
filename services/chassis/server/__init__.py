"""Serve a service over gRPC: every call checked, every error mapped, every reply masked and audited.

calls: the call being served · plans: what the proto says of a method · guard: the interceptor ·
seen: whose data a reply told · trail: its audit entry ·
status: errors to google.rpc.Status · operations: google.longrunning · serving: the server and its drain ·
process: what `kehu serve` and `kehu work` run (imported from there, for it knows the access service).
"""

from services.chassis.server.calls import Call, current_call, find_call, serving_call
from services.chassis.server.guard import Guard, validate
from services.chassis.server.peers import peer_of
from services.chassis.server.plans import MethodPlan, plans_by_path
from services.chassis.server.seen import NOTHING, Seen, seen_in
from services.chassis.server.serving import RunningServer, Serving, build_server, service_names

__all__ = [
    "NOTHING",
    "Call",
    "Guard",
    "MethodPlan",
    "RunningServer",
    "Seen",
    "Serving",
    "build_server",
    "current_call",
    "find_call",
    "peer_of",
    "plans_by_path",
    "seen_in",
    "service_names",
    "serving_call",
    "validate",
]
