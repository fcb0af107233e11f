"""People and rows for the tests of profiles: made up, in the forms sources write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kehu.profiles.v1 import profiles_pb2, profiles_pb2_grpc

from services.chassis.jobs import Jobs, MemoryOperations, Worker
from services.chassis.server import Serving
from services.profiles.api import ProfilesServicer
from services.profiles.api.common import Tools
from services.profiles.dictionary import Dictionary
from services.profiles.jobs import Importer
from services.profiles.resolution.resolving import Resolver
from services.profiles.sharing import SharedTaker
from services.profiles.store import MemoryStore, Store
from services.profiles.taking import Taker
from services.profiles.training.models import Models
from services.profiles.vault import Vault
from tests.harness import Harness, running

MAPPING = [
    ("编号", "source_record_id"), ("更新", "updated_time"), ("姓名", "name"), ("手机", "phone"), ("邮箱", "email"),
    ("生日", "birth_date"), ("地址", "address"),
]  # fmt: skip
SURNAMES = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许"
GIVEN = ("建国", "秀英", "子涵", "浩然", "雨桐", "志强", "美玲", "文博", "晓燕", "国庆")


def person(number: int) -> dict[str, str]:
    """Return the fields of one made-up person; different numbers are different people."""
    return {
        "name": SURNAMES[number % 20] + GIVEN[number // 20 % 10],
        "phone": f"139{(number * 7919 + 10_203_040) % 100_000_000:08d}",
        "email": f"p{number}@mail{number % 7}.example.cn",
        "birth_date": f"{1950 + number % 50}-{1 + number % 12:02d}-{1 + number * 5 % 28:02d}",
        "address": f"浙江省杭州市西湖区文三路{number + 1}号",
    }


def csv_of(numbers: range, time: str = "2025-01-02 03:04:05", prefix: str = "") -> bytes:
    """Return a CSV file of these people in GB 18030."""
    lines = [",".join(column for column, _ in MAPPING)]
    for number in numbers:
        fields = {**person(number), "source_record_id": f"{prefix}{number}", "updated_time": time}
        lines.append(",".join(fields[name] for _, name in MAPPING))
    return ("\n".join(lines) + "\n").encode("gb18030")


class Service:
    """Profiles in this process: real servicer, real jobs, any store."""

    def __init__(self, keys_dir: Path, store: Store | None = None) -> None:
        self.store: Store = store or MemoryStore()
        self.vault = Vault(keys_dir)
        self.dictionary = Dictionary(self.store)
        self.models = Models(self.store)
        self.taker = Taker(self.store, self.vault, self.models, self.dictionary, part_profiles=30)
        self.operations = MemoryOperations()
        self.jobs = Jobs("profiles", self.operations)
        shared = SharedTaker(self.taker)
        self.tools = Tools(self.store, self.vault, shared, self.jobs, self.dictionary, models=self.models)
        self.importer = Importer(self.store, self.vault, self.taker, batch_rows=100)
        self.resolver = Resolver(self.store, self.vault, self.taker.merger, self.models)

    def worker(self) -> Worker:
        """Return a worker that has not started."""
        return Worker("profiles", {**self.importer.handlers(), **self.resolver.handlers()}, self.operations)

    @contextmanager
    def serving(self) -> Iterator[Harness]:
        """Serve behind the real guard."""
        add = profiles_pb2_grpc.add_ProfilesServiceServicer_to_server
        with running(Serving("profiles", [(add, ProfilesServicer(self.tools))], self.jobs)) as harness:
            yield harness


def source_request(source_id: str = "till", **settings: object) -> profiles_pb2.CreateSourceRequest:
    """Return the request that registers a source of the test mapping."""
    request = profiles_pb2.CreateSourceRequest(source_id=source_id)
    request.source.owner_department = "sales"
    for name, value in settings.items():
        setattr(request.source, name, value)
    for column, name in MAPPING:
        request.source.mapping.add(column=column, field=name)
    return request


def batch(source_id: str, *records: tuple[str, dict[str, str]]) -> profiles_pb2.BatchUpsertRecordsRequest:
    """Return a batch of (record id, fields)."""
    request = profiles_pb2.BatchUpsertRecordsRequest(parent=f"sources/{source_id}")
    for record_id, fields in records:
        request.records.add(source_record_id=record_id, fields=fields)
    return request


def upload(source_id: str, content: bytes, **header: str) -> Iterator[profiles_pb2.ImportRecordsRequest]:
    """Yield the parts of an upload."""
    yield profiles_pb2.ImportRecordsRequest(
        header=profiles_pb2.ImportRecordsHeader(name=f"sources/{source_id}", file_name="people.csv", **header)
    )
    for start in range(0, len(content), 100_000):
        yield profiles_pb2.ImportRecordsRequest(chunk=content[start : start + 100_000])
