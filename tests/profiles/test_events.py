"""What others read of profiles: every fact as it lies in the outbox parses as the message it names."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from google.protobuf import json_format
from kehu.profiles.v1 import events_pb2

from services.profiles.admission import Admission, Entry, settings_of
from services.profiles.values import Source
from tests.profiles.people import Service, person

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def facts_of_a_merge(tmp_path: Path) -> list[dict[str, object]]:
    """Return the envelopes of two creations and the merge that a third record brings."""
    service = Service(tmp_path / "keys")
    source = service.store.sources.insert(Source("till", "sales"))
    admission = Admission(service.store, service.vault, service.taker)
    base = person(1)
    for record_id, names in (("1", ("name", "phone", "birth_date")), ("2", ("name", "email", "address")), ("3", base)):
        fields = {name: base[name] for name in names}
        admission.admit(settings_of(source), [Entry(1, fields, False, record_id)])
    return [fact.entry(NOW) for fact in service.store.facts]


def test_every_fact_parses_as_the_message_it_names(tmp_path: Path) -> None:
    envelopes = facts_of_a_merge(tmp_path)

    for envelope in envelopes:
        kind = getattr(events_pb2, str(envelope["type"]).rpartition(".")[2])
        message = json_format.ParseDict(envelope["data"], kind())
        assert envelope["subject"] == f"profiles/{message.profile_id}"
        assert envelope["version"] == message.version
    assert {str(item["type"]) for item in envelopes} == {
        "kehu.profiles.v1.ProfileChanged",
        "kehu.profiles.v1.ProfilesMerged",
    }


def test_versions_of_one_profile_grow_by_one_with_each_change(tmp_path: Path) -> None:
    versions: dict[object, list[object]] = {}
    for envelope in facts_of_a_merge(tmp_path):
        if str(envelope["type"]).endswith("ProfileChanged"):
            versions.setdefault(envelope["subject"], []).append(envelope["version"])

    assert sorted(map(tuple, versions.values())) == [(1, 2), (1, 2, 3)]


def test_envelopes_hold_no_identifier_in_the_clear(tmp_path: Path) -> None:
    text = str(facts_of_a_merge(tmp_path))

    assert not any(value in text for value in person(1).values())
