"""Keys change on the real database: the worker killed with SIGKILL in the middle while people come and change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.longrunning import operations_pb2
from kehu.profiles.v1 import protection_pb2

from services.chassis.jobs import Owner
from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.dictionary import Dictionary
from services.profiles.documents import ProfileDocument
from services.profiles.domain.model import default_model
from services.profiles.protection.resealing import key_ids_of
from services.profiles.protection.rotating import RETIRE_MASTER, ROTATE_DATA, ROTATE_MASTER
from services.profiles.taking import Taker
from services.profiles.vault import Vault
from tests.profiles.killing import OnMongo
from tests.profiles.people import person

PEOPLE = 260
OWNER = Owner("user:root@administration", "administration")


def take(database: OnMongo, numbers: Sequence[int], **changed: str) -> None:
    settings = settings_of(database.store.sources.get("till"))
    entries = [Entry(n, {**person(n), **changed}, False, str(n)) for n in numbers]
    Admission(database.store, database.vault, Taker(database.store, database.vault, default_model,
              Dictionary(database.store))).admit(settings, entries)  # fmt: skip


def readable(database: OnMongo) -> dict[str, tuple[str, list[str]]]:
    """Return record → name and all phones ever taken of it, opened by keys as a process that starts now has them."""
    vault, found = Vault(database.keys), {}
    for item in database.store.page_profiles("", 5000, ()):
        ciphers = vault.ciphers(database.store, [item])
        believed = vault.open_golden(item, ciphers).golden
        for record in item.records:
            olds = database.store.archived(record.source_id, record.source_record_id)
            more = vault.ciphers_of(database.store, [old.key_id for old in olds])
            opened = [vault.open_record(old, more) for old in olds] + [vault.open_record(record, ciphers)]
            found[record.key] = (str(believed.value("name")), [each.originals["email"] for each in opened])
    return found


def expected(changes: dict[int, list[str]]) -> dict[str, tuple[str, list[str]]]:
    return {f"till/{n}": (person(n)["name"], emails) for n, emails in changes.items()}


def killed_at(database: OnMongo, operation: operations_pb2.Operation, reached: Callable[[], bool]) -> None:
    database.kill_when(operation, reached)


def ended(database: OnMongo, operation: operations_pb2.Operation) -> protection_pb2.KeyRotation:
    done, response = database.finish(operation, department=OWNER.department), protection_pb2.KeyRotation()
    assert done.response.Unpack(response), done.error
    return response


def test_data_keys_whose_change_is_killed_while_sealing_and_while_destroying_leave_one_key_each(database: OnMongo):
    take(database, range(PEOPLE))
    emails = {n: [person(n)["email"]] for n in range(PEOPLE)}
    before = set(database.store.page_data_keys("", 9999))
    operation = database.jobs.start(ROTATE_DATA, {}, protection_pb2.KeyRotation(), OWNER)

    def sealed() -> int:
        return ProfileDocument._get_collection().count_documents({"key_id": {"$regex": "[.]1$"}})

    def left() -> int:
        return len(before & database.store.page_data_keys("", 9999).keys())

    for number, reached in enumerate((
        lambda: sealed() > 30, lambda: sealed() > 150, lambda: left() < PEOPLE - 30, lambda: left() < PEOPLE - 150,
    )):  # fmt: skip
        killed_at(database, operation, reached)
        changed = [number * 7, PEOPLE // 2 + number * 7, PEOPLE - 1 - number * 7]
        take(database, changed, email=f"later{number}@example.cn")
        take(database, [PEOPLE + number])
        emails |= {n: [*emails[n], f"later{number}@example.cn"] for n in changed}
        emails[PEOPLE + number] = [person(PEOPLE + number)["email"]]
        assert readable(database) == expected(emails), "all opens at any moment"
    ended(database, operation)
    ended(database, database.jobs.start(ROTATE_DATA, {}, protection_pb2.KeyRotation(), OWNER))

    profiles = database.store.page_profiles("", 9999, ())
    assert readable(database) == expected(emails)
    assert all(key_ids_of(item) == {item.key_id} for item in profiles)
    keys = database.store.page_data_keys("", 9999).keys()
    assert keys == {item.key_id for item in profiles}, "one key each, and none that nobody needs"
    assert not before & keys
    assert database.store.former_keys(sorted(keys)) == {}


def test_a_master_key_whose_change_is_killed_leaves_everything_wrapped_by_one(database: OnMongo) -> None:
    take(database, range(PEOPLE))
    emails = {n: [person(n)["email"]] for n in range(PEOPLE)}
    master = database.vault.master
    [old] = master.versions()
    operation = database.jobs.start(ROTATE_MASTER, {"create_key": True}, protection_pb2.KeyRotation(), OWNER)

    def rewrapped() -> int:
        wrapped = database.store.page_data_keys("", 9999).values()
        return sum(master.version_of(value) != old for value in wrapped)

    reached = (lambda: len(master.versions()) > 1, lambda: 0 < rewrapped(), lambda: rewrapped() > 150)
    for number, claim in enumerate(reached):
        killed_at(database, operation, claim)
        take(database, [PEOPLE + number])
        emails[PEOPLE + number] = [person(PEOPLE + number)["email"]]
        assert readable(database) == expected(emails)
    ended(database, operation)

    assert len(master.versions()) == 2, "the repeats made no other key"
    assert {master.version_of(value) for value in database.store.page_data_keys("", 9999).values()} == {master.newest()}
    ended(database, database.jobs.start(RETIRE_MASTER, {"key": old}, protection_pb2.KeyRotation(), OWNER))
    assert Vault(database.keys).master.versions() == [master.newest()]
    assert readable(database) == expected(emails)
