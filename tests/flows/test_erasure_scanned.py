"""A person is in every store; once erased they are in no byte of any, and what is left of seals and backups is dead.

The values are such as no other person has. The files are read as they lie on disk, deleted pages, logs and journals
included; what looks sealed is opened with every key that a thief of the whole machine would find.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bson
import pymongo
import pytest
from kehu.client import KehuProblem

from infra.processes import wait_until
from infra.smtp_sink import read_mailbox
from services.chassis.crypto import FieldCipher, MasterKey, SealBroken
from services.chassis.crypto.keys import add_key
from tests.flows.canaries import Canaries, Watch, files, keys_of
from tests.flows.conftest import ROOT
from tests.flows.raw import whole

pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]
PERSON = {
    "name": "欧阳靐龘", "phone": "13987650417", "email": "canary.zq7@kehu-canary.example", "birth_date": "1983-04-17",
    "address": "北京市朝阳区靐龘路417号", "resident_id": "110101198304170417",
}  # fmt: skip
WORDS = {
    "subject": "靐龘投诉四一七", "description": "靐龘家住八号院里屋", "comment": "靐龘说下周再打来",
    "note": "靐龘的同事说的话", "reason": "靐龘本人到店更正过", "override": "13987650418", "refused": "1.398765E+10",
}  # fmt: skip
SEALED = {name: PERSON[name] for name in ("name", "phone", "email", "address", "resident_id")}
CANARIES = Canaries({**SEALED, **WORDS})
IDENTITY = Canaries(SEALED)
PRODUCT = "CANARY-PRODUCT-0417"
DATA = (
    "mongo",
    "rabbitmq",
    "index",
    "lake",
    "logs",
    "audit",
)  # of the stack's folder; the mailbox is the world outside


def now(minutes: int = 0) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def source(till, name: str) -> None:
    columns = {"card": "source_record_id", **{field: field for field in PERSON}}
    mapping = [{"column": column, "field": field} for column, field in columns.items()]
    body = {"display_name": name, "owner_department": "sales", "trust_rank": 1, "mapping": mapping}
    till.post("/v1/sources", body, source_id=name)


def take(till, name: str, card: str, fields: dict[str, str]) -> dict:
    body = {"records": [{"source_record_id": card, "fields": fields}]}
    return till.post(f"/v1/sources/{name}/records:batchUpsert", body)["results"][0]


def plant(stack, till, folder: Path) -> str:
    """Let the person reach every store, by every way in; return the profile's name."""
    for name in ("canary-till", "canary-shop"):
        source(till, name)
    csv = folder / "till.csv"
    csv.write_text(f"card,{','.join(PERSON)}\nC-417,{','.join(PERSON.values())}\n", encoding="utf-8")
    till.upload("/v1/sources/canary-till:preview", csv, format="csv")
    summary = till.wait_operation(till.upload("/v1/sources/canary-till:import", csv, format="csv"))["summary"]
    assert whole(summary["rows_accepted"]) == 1
    profile = take(till, "canary-shop", "S-417", PERSON)["profile"]
    take(till, "canary-shop", "S-417", {**PERSON, "phone": "13987650419"})
    take(till, "canary-shop", "S-417", PERSON)
    take(till, "canary-till", "C-417", {**PERSON, "phone": WORDS["refused"]})
    other = take(till, "canary-shop", "S-900", {"name": "冯一", "phone": "13600009417"})["profile"]
    override = {"field": "phone", "value": WORDS["override"], "reason": WORDS["reason"], "expire_time": now(9000)}
    till.post(f"/v1/{profile}/overrides", override)
    relation = {"type": "relationTypes/spouse", "profile": profile, "other_profile": other}
    till.post("/v1/relationships", {"relationship": relation, "note": WORDS["note"]})
    agent = stack.sign_ins.department("service", "service")
    ticket = {"kind": "TICKET_KIND_COMPLAINT", "profile": profile, "channel": "CHANNEL_PHONE",
              "subject": WORDS["subject"], "description": WORDS["description"]}  # fmt: skip
    opened = agent.post("/v1/tickets", ticket)
    agent.post(f"/v1/{opened['name']}/comments", {"text": WORDS["comment"]})
    bought = {"profile": profile, "message_id": "canary-1", "event_type": "canary_bought", "event_time": now(),
              "product_id": PRODUCT, "amount_cents": "41700"}  # fmt: skip
    stack.analyst.post("/v1/interactions:batchCreate", {"interactions": [bought]})
    assert wait_until(lambda: rows_of(stack) != [], 60, 0.2)  # a write that loses a race leaves its file for an hour
    lines = folder / "lines.csv"
    row = f"C-417,canary-2,canary_bought,{now()},{PRODUCT},41700"
    lines.write_text(f"source_record_id,message_id,event_type,event_time,product_id,amount_cents\n{row}\n")
    stack.analyst.wait_operation(stack.analyst.upload("/v1/interactions:import", lines, source_id="canary-till"))
    campaign(stack, till, profile.removeprefix("profiles/"))
    assert wait_until(lambda: profile in stack.found(PERSON["phone"]), 60, 0.5) or stack.found(WORDS["override"])
    for query in (PERSON["name"], PERSON["phone"], "13987650419"):  # and in what is written about questions
        stack.found(query)
    till.post("/v1/profiles:lookup", {"phone": PERSON["phone"]})
    with suppress(KehuProblem):
        till.post("/v1/profiles:lookup", {"email": PERSON["email"], "phone": PERSON["name"]})
    return profile


def campaign(stack, till, profile_id: str) -> None:
    """Write the person a mail with their name in it."""
    version = {"effective_time": now(-9000), "texts": [{"language": "zh-CN", "body": "我同意接收优惠信息。"}]}
    till.post("/v1/notices", {"display_name": "canary", "versions": [version]}, notice_id="canary-zh")
    purpose = {"display_name": "canary", "legal_basis": "LEGAL_BASIS_CONSENT", "data_categories": ["contact"],
               "channels": ["email"], "retention_days": 365, "notice_id": "canary-zh"}  # fmt: skip
    till.post("/v1/purposes", purpose, purpose_id="canary")
    consent = {"purpose_id": "canary", "channel": "email", "state": "CONSENT_STATE_GRANTED", "notice_version": 1,
               "language": "zh-CN", "shown_time": now(-20), "answer_time": now(-10),
               "collected_via": "COLLECTED_VIA_WEB", "masked_address": PERSON["email"]}  # fmt: skip
    till.post(f"/v1/profiles/{profile_id}/consents", consent)
    event = {"event_type": "canary_bought", "measure": "MEASURE_COUNT", "operator": "OPERATOR_GE", "value": 1}
    made = stack.marketer.post("/v1/segments", {"display_name": "canary", "rule": {"event": event}})
    assert wait_until(lambda: whole(stack.marketer.post(f"/v1/{made['name']}:preview").get("total")) == 1, 90, 1.0)
    body = {
        "display_name": "canary", "segment_id": str(made["name"]).removeprefix("segments/"), "purpose_id": "canary",
        "channel": "email", "template": {"subject": "canary", "text": "{{display_name}} {{unsubscribe_url}}"},
        "frequency_cap": {"max_messages": 50, "window_days": 7}, "quiet_hours": {"start": "00:00", "end": "00:00"},
    }  # fmt: skip
    name = str(stack.marketer.post("/v1/campaigns", body)["name"])
    stack.marketer.wait_operation(stack.marketer.post(f"/v1/{name}:run"))
    assert [mail.recipient for mail in read_mailbox(stack.folder / "mailbox") if mail.subject == "canary"]


def in_clear(stack) -> dict[str, set[str]]:
    return {
        f"{part}/{path}": names
        for part in DATA
        for path, names in CANARIES.in_files(stack.folder / part).items()
    }  # fmt: skip


class Backup:
    """What an operator keeps of profiles' database, index and lake; the ledger's database is not in it."""

    def __init__(self, stack, folder: Path) -> None:
        self.folder = folder
        self._client = pymongo.MongoClient(stack.running.environment["KEHU_MONGO_URI"])
        self.live = self._client["kehu_profiles"]
        (folder / "dump").mkdir(parents=True)
        for name in self.live.list_collection_names():
            content = b"".join(bson.encode(document) for document in self.live[name].find())
            (folder / "dump" / name).write_bytes(content)
        for part in ("index", "lake"):
            shutil.copytree(stack.folder / part, folder / part, ignore_dangling_symlinks=True)

    def read(self, name: str) -> list[dict]:
        return bson.decode_all((self.folder / "dump" / name).read_bytes())

    def restore(self) -> None:
        for path in sorted((self.folder / "dump").iterdir()):
            documents = self.read(path.name)
            self.live[path.name].delete_many({})
            for start in range(0, len(documents), 500):
                self.live[path.name].insert_many(documents[start : start + 500])


def thiefs_keys(backup: Backup, folder: Path, key_ids: list[str]) -> dict[str, bytes]:
    """Return the person's data keys that the backup's wrapped ones still give with the master keys of now."""
    master, found = MasterKey(folder / "keys"), {}
    for document in backup.read("data_keys"):
        if document["_id"] in key_ids:
            with suppress(SealBroken):
                found |= master.unwrap({document["_id"]: document["wrapped"]})
    return found


def is_gone(till, profile: str) -> bool:
    try:
        till.get(f"/v1/{profile}")
    except KehuProblem as problem:
        return problem.reason == "PROFILE_NOT_FOUND"
    return False


def test_after_an_erasure_no_byte_of_the_person_is_left_and_what_is_left_opens_nothing(whole_stack, till, tmp_path):
    stack = whole_stack
    stores = [stack.folder / part for part in ("mongo", "rabbitmq", "mailbox")]  # scanned below; the mailbox is outside
    with Watch(CANARIES, [stack.running.pid], stores) as watch:
        profile = plant(stack, till, tmp_path)
    assert watch.looks > 50
    assert watch.seen == {}, "decrypted values lay in a file, if only for a moment"
    assert in_clear(stack) == {}, "sealed wherever they lie, before any erasure"

    backup = Backup(stack, tmp_path / "backup")
    keys = stack.folder / "keys"
    assert CANARIES.in_files(backup.folder) == {}
    [held] = [item for item in backup.read("profiles") if item["_id"] == profile.removeprefix("profiles/")]
    key_ids = sorted({held["key_id"], *(item["k"] for item in held["records"])})
    opens = IDENTITY.behind_seals(stack.folder / "index", keys_of(keys, "search"))
    assert set(SEALED) in opens.values(), "the scan opens what is sealed, where a key is left for it"
    stolen = thiefs_keys(backup, stack.folder, key_ids)
    assert PERSON["name"] in opened(held, stolen), "the thief's way in is real: it opens what was not erased"

    receipt = till.wait_operation(till.post(f"/v1/{profile}:erase", {"reason": "DSR-417"}))
    assert whole(receipt["records"]) == 2 and whole(receipt["keys"]) >= 1
    assert wait_until(lambda: not left(stack, backup, profile), 60, 0.5), left(stack, backup, profile)
    assert is_gone(till, profile)
    assert till.post("/v1/profiles:lookup", {"phone": PERSON["phone"]}).get("profiles", []) == []
    assert take(till, "canary-shop", "S-417", PERSON).get("profile", "") == ""
    assert in_clear(stack) == {}
    assert list(backup.live["data_keys"].find({"_id": {"$in": key_ids}})) == []

    restore_lake(stack, backup)
    assert rows_of(stack) != []
    kehu(stack, "erasures", "retell", "--since", "2026-01-01")
    assert wait_until(lambda: rows_of(stack) == [], 60, 0.5), "the lake's backup was told again who was erased"

    backup.restore()
    assert backup.live["profiles"].find_one({"_id": held["_id"]})["golden"] == held["golden"]
    stack.kill("profiles")
    stack.wait_whole()
    assert wait_until(lambda: is_gone(till, profile), 60, 0.5)
    assert list(backup.live["data_keys"].find({"_id": {"$in": key_ids}})) == []
    assert wait_until(lambda: not left(stack, backup, profile), 60, 0.5), left(stack, backup, profile)

    change_keys(stack)
    assert thiefs_keys(backup, stack.folder, key_ids) == {}
    for folder in (stack.folder, backup.folder):
        assert CANARIES.behind_seals(folder, keys_of(keys, "events", "search", "uploads", "tickets")) == {}
    assert in_clear(stack) == CANARIES.in_files(backup.folder) == {}


def opened(profile: dict, data_keys: dict[str, bytes]) -> str:
    """Return the golden record of a dumped profile as text."""
    cipher = FieldCipher(profile["key_id"], data_keys[profile["key_id"]])
    return cipher.open("golden", profile["golden"], profile["_id"]).decode()


def left(stack, backup: Backup, profile: str) -> dict[str, object]:
    """Return what the other services still hold: none once all have followed."""
    bare = profile.removeprefix("profiles/")
    found = {
        "tickets": backup.live.client["kehu_tickets"]["tickets"].count_documents({"profile_id": bare}),
        "lake": rows_of(stack),
        "index": [value for value in (PERSON["name"], WORDS["override"]) if stack.found(value)],
    }
    return {name: value for name, value in found.items() if value}


def rows_of(stack) -> list[Path]:
    """Return the files of the lake that the person's purchases are in."""
    lake = files(stack.folder / "lake")
    return [path for path, content in lake if path.suffix == ".parquet" and PRODUCT.encode() in content]


def kehu(stack, *arguments: str) -> None:
    argv = [sys.executable, "-m", "infra.cli", *arguments, "--data", str(stack.folder)]
    subprocess.run(argv, check=True, cwd=ROOT)


def restore_lake(stack, backup: Backup) -> None:
    shutil.rmtree(stack.folder / "lake")
    shutil.copytree(backup.folder / "lake", stack.folder / "lake")
    for name in ("analytics", "work"):
        stack.kill(name)
    stack.wait_whole()


def change_keys(stack) -> None:
    """Do what the runbook does each month: a new master key, new keys of services, the old ones destroyed."""
    root, folder = stack.administrator, stack.folder / "keys"
    [old] = root.get("/v1/masterKeys")["keys"]
    root.wait_operation(root.post("/v1/masterKeys:rotate", {"create_key": True}))
    root.wait_operation(root.post("/v1/masterKeys:retire", {"key": old}))
    former = {name: keys_of(folder, name) for name in ("events", "search", "uploads", "tickets")}
    for name in former:
        add_key(name, folder)
    time.sleep(3)  # every process looks at its key files once a second
    root.wait_operation(root.post("/v1/index:rebuild", {}))
    for name, found in former.items():
        for key in found:
            kehu(stack, "keys", "remove", name, key.key_id.hex())
