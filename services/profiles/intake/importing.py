"""Queue the import of a stored upload: from the API or from a pull."""

from __future__ import annotations

from collections.abc import Mapping

from google.longrunning import operations_pb2
from kehu.profiles.v1 import resources_pb2

from services.chassis.jobs import Jobs, Owner
from services.profiles.store import Store

IMPORT = "import"


def queue_import(
    jobs: Jobs, store: Store, args: Mapping[str, object], owner: Owner, request_id: str
) -> operations_pb2.Operation:
    """Queue it; a repeated request id returns the first import, and the upload that nobody needs is dropped."""
    metadata = resources_pb2.ImportMetadata(source=f"sources/{args['source_id']}")
    metadata.create_time.GetCurrentTime()
    operation = jobs.start(IMPORT, args, metadata, owner, request_id)
    stored = jobs.store.get(operation.name) or {}
    kept = stored.get("args")
    if isinstance(kept, dict) and kept.get("upload_id") != args["upload_id"]:
        store.drop_upload(str(args["upload_id"]), int(str(args["chunks"])))
    return operation
