"""A steward's desk: the profiles service in this process, with the calls that a steward makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from kehu.profiles.v1 import dictionary_pb2, profiles_pb2, profiles_pb2_grpc, resources_pb2

from services.chassis.jobs import Worker
from services.profiles.definitions.effects import EffectCounter
from services.profiles.definitions.rederiving import Rederiver
from services.profiles.overriding import Overrider
from tests.harness import Harness
from tests.profiles.killing import OnMongo
from tests.profiles.people import Service, batch, source_request

SECOND = "user:second@data-office"


@dataclass
class Desk:
    """What a test of stewardship works with."""

    service: Service
    harness: Harness

    def call(self, method: str, request: Message, **caller: str) -> Message:
        """Call as a steward of the data office, or as somebody else."""
        return getattr(self.harness.stub(profiles_pb2_grpc.ProfilesServiceStub, **caller), method)(request, timeout=20)

    def upsert(self, source_id: str, record_id: str, fields: dict[str, str], time: str = "") -> str:
        """Take one record in and return the name of its profile."""
        request = batch(source_id, (record_id, fields))
        if time:
            request.records[0].update_time.FromJsonString(time)
        return self.call("BatchUpsertRecords", request).results[0].profile

    def profile(self, name: str) -> resources_pb2.Profile:
        """Return a profile."""
        return self.call("GetProfile", profiles_pb2.GetProfileRequest(name=name))

    def lineage(self, name: str) -> dict[str, resources_pb2.FieldLineage]:
        """Return the lineage of a profile by field, of phones and e-mails the believed one."""
        found = self.call("GetProfileLineage", profiles_pb2.GetProfileLineageRequest(name=name)).fields
        return {item.field: item for item in reversed(found)}

    def history(self, name: str) -> list[resources_pb2.ProfileRevision]:
        """Return the changes of a profile, newest first."""
        return list(self.call("GetProfileHistory", profiles_pb2.GetProfileHistoryRequest(name=name)).revisions)

    def refused(self, method: str, request: Message, **caller: str) -> str:
        """Return the reason why a call is refused."""
        return reason_of(lambda: self.call(method, request, **caller))

    def propose(
        self, field: str, definition: resources_pb2.FieldDefinition | None, **more: object
    ) -> dictionary_pb2.FieldChange:
        """Propose a change of the dictionary as the steward."""
        request = dictionary_pb2.CreateFieldChangeRequest(field=f"fields/{field}", reason="the owner asked", **more)
        if definition is not None:
            request.field_definition.CopyFrom(definition)
            request.field_definition.SetInParent()
        return self.call("CreateFieldChange", request)

    def counted(self, change: dictionary_pb2.FieldChange) -> dictionary_pb2.FieldChange:
        """Count a change's effect and return it as the steward then reads it."""
        self.call("PreviewFieldChange", dictionary_pb2.PreviewFieldChangeRequest(name=change.name))
        while self.work():
            pass
        return self.call("GetFieldChange", dictionary_pb2.GetFieldChangeRequest(name=change.name))

    def approve(self, change: dictionary_pb2.FieldChange, caller: str = SECOND) -> dictionary_pb2.FieldChange:
        """Apply a change as another steward."""
        return self.call(
            "ApproveFieldChange", dictionary_pb2.ApproveFieldChangeRequest(name=change.name), caller=caller
        )

    def change(self, field: str, definition: resources_pb2.FieldDefinition | None) -> dictionary_pb2.FieldChange:
        """Change the dictionary the whole way: proposed, counted, approved."""
        return self.approve(self.counted(self.propose(field, definition)))

    def work(self) -> bool:
        """Run one due job of golden records; tell whether there was one."""
        store, vault, dictionary = self.service.store, self.service.vault, self.service.tools.dictionary
        rederiver = Rederiver(store, vault, dictionary, 2, others_know_after=0)
        handlers = {**rederiver.handlers(), **Overrider(store, vault, dictionary).handlers(),
                    **EffectCounter(store, vault, 2).handlers()}  # fmt: skip
        return Worker("profiles", handlers, self.service.operations).run_one()


def reason_of(action: Callable[[], object]) -> str:
    """Return the reason of the error that an action meets, or its code when the reason is the chassis's own."""
    with pytest.raises(grpc.RpcError) as caught:
        action()
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        detail.Unpack(info)
    return info.reason or caught.value.code().name


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Serve profiles with two sources: the till is trusted more than the shop."""
    service = Service(tmp_path / "keys")
    with service.serving() as harness:
        found = Desk(service, harness)
        found.call("CreateSource", source_request("till", trust_rank=10))
        found.call("CreateSource", source_request("shop", trust_rank=20))
        yield found


@pytest.fixture
def database(mongo_uri: str, tmp_path: Path) -> Iterator[OnMongo]:
    found = OnMongo(mongo_uri, tmp_path / "keys")
    yield found
    found.close()
