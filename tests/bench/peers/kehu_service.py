"""Our side's service: the real consent servicer over its in-memory store, behind the whole guard, mTLS, audit on."""

from __future__ import annotations

import sys
from pathlib import Path

from kehu.consent.v1 import consent_pb2_grpc

from services.chassis.access import SnapshotHolder, TokenVerifier
from services.chassis.audit import AuditSpool
from services.chassis.server import Guard, Serving, plans_by_path, service_names
from services.chassis.server.connections import Listener
from services.chassis.server.garbage import spare_collections
from services.chassis.server.serving import build_servers, server_credentials
from services.chassis.server.trail import SpoolTrail
from services.consent.api import ConsentServicer
from services.consent.domain.records import ConsentRecord, ConsentState, Evidence, ProfileConsents
from services.consent.store import MemoryConsentStore
from tests.bench.peers.scene import ASKED, config_of, consent_record, snapshot_of


def domain_record() -> ConsentRecord:
    """Return the scene's record as the domain holds it."""
    shown = consent_record("p1")
    evidence = Evidence(
        notice_id=shown.notice_id,
        notice_version=shown.notice_version,
        language=shown.language,
        wording_hash=shown.wording_hash,
        shown_time=ASKED,
        collected_via="WEB",
        masked_address=shown.masked_address,
    )
    return ConsentRecord(
        record_id=shown.name.rpartition("/")[2],
        purpose_id=shown.purpose_id,
        channel=shown.channel,
        state=ConsentState.GRANTED,
        answer_time=ASKED,
        create_time=ASKED,
        evidence=evidence,
    )


def main(folder: Path, address: str) -> None:
    spare_collections()
    config = config_of(folder, {"consent": address})
    store = MemoryConsentStore()
    store.save_consents([(ProfileConsents("p1", (domain_record(),)), [])])
    add = consent_pb2_grpc.add_ConsentServiceServicer_to_server
    serving = Serving("consent", [(add, ConsentServicer(store))])
    holder = SnapshotHolder()
    holder.swap(snapshot_of(folder))
    tokens = TokenVerifier(holder, config.token_issuer, config.token_audience)
    trail = SpoolTrail("consent", AuditSpool(folder / "audit" / "consent"))
    guard = Guard("consent", plans_by_path(service_names(serving)), holder, tokens, trail)
    server, multiplexer = build_servers(serving, guard, config.grpc_threads)
    server.add_secure_port(address, server_credentials(config.tls("consent")))
    server.start()
    files = config.tls("consent")
    Listener(multiplexer, files).start("127.0.0.1", 0)
    server.wait_for_termination()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
