"""Records taken in together end as those taken in one by one, and what is believed of them does too."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings

from services.profiles.domain.values import StandardRecord
from services.profiles.vault import Vault
from tests.profiles.domain.builders import record
from tests.profiles.test_full_pass import PEOPLE, House


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return Vault(tmp_path_factory.mktemp("keys"))


Believed = dict[frozenset[str], dict[str, str]]


def believed(vault: Vault, records: Sequence[StandardRecord], at_once: int) -> Believed:
    """Return what is believed of each person, by the keys of the records, after taking so many at a time."""
    house = House(vault)
    house.take(records, at_once)
    profiles = house.store.page_profiles("", 10**6, ())
    ciphers = vault.ciphers(house.store, profiles)
    return {frozenset(item.record_keys): vault.open_golden(item, ciphers).values() for item in profiles}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PEOPLE)
def test_records_in_one_batch_end_as_those_taken_in_one_by_one(vault: Vault, people: list[dict]) -> None:
    made = [record(str(at), source_id=f"s{at % 3}{fields['is_unique']}", **fields) for at, fields in enumerate(people)]
    records = [item for item in made if not item.is_rejected]

    assert believed(vault, records, len(records) or 1) == believed(vault, records, 1)
