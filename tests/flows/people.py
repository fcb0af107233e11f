"""Customers for the flows: all different, so that none is matched with another."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from tests.flows.raw import Raw, entries

SURNAMES = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗"
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚桂英文华建国志红玉春海云峰"


@dataclass(frozen=True, slots=True)
class Customer:
    """One row of the till's file."""

    card: str
    name: str
    phone: str
    email: str
    born: str


def customers(count: int, first: int) -> list[Customer]:
    """Return customers number `first` and on."""
    return [_customer(number) for number in range(first, first + count)]


def _customer(number: int) -> Customer:
    size = len(GIVEN)
    given = GIVEN[number % size] + GIVEN[number // size % size]
    name = SURNAMES[number % len(SURNAMES)] + given
    born = f"{1950 + number * 7 % 50}-{1 + number * 5 % 12:02}-{1 + number * 11 % 28:02}"
    return Customer(f"K{number:07}", name, f"138{number:08}", f"k{number}@mail.example", born)


def write_csv(path: Path, people: list[Customer]) -> Path:
    """Write the till's file."""
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["card", "name", "phone", "email", "born"])
        writer.writerows([p.card, p.name, p.phone, p.email, p.born] for p in people)
    return path


def upsert(steward: Raw, people: list[Customer]) -> list[str]:
    """Send customers and return the ids of their profiles, in order."""
    found = []
    for start in range(0, len(people), 250):
        records = [
            {
                "source_record_id": p.card,
                "fields": {"name": p.name, "phone": p.phone, "email": p.email, "birth_date": p.born},
            }
            for p in people[start : start + 250]
        ]
        reply = steward.post("/v1/sources/till/records:batchUpsert", {"records": records})
        found += [str(result["profile"]).removeprefix("profiles/") for result in entries(reply, "results")]
    return found


def profile_of(steward: Raw, customer: Customer) -> list[str]:
    """Return the names of the profiles that hold the customer's card."""
    body = {"source_record": {"source": "sources/till", "source_record_id": customer.card}}
    return [str(profile["name"]) for profile in entries(steward.post("/v1/profiles:lookup", body), "profiles")]
