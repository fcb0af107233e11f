"""StandardRecord to and from JSON-ready dicts, so that it can be sealed and stored."""

from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeAlias, cast

from services.profiles.domain.values import (
    Address,
    Document,
    PersonName,
    Phone,
    Place,
    Problem,
    Severity,
    StandardRecord,
)

JsonValue: TypeAlias = "str | int | bool | None | list[JsonValue] | dict[str, JsonValue]"
_ADDRESS = ("province_code", "city_code", "district_code", "province", "city", "district", "detail")
_address_parts = attrgetter(*_ADDRESS)
_place_parts = attrgetter("town", "street", "number", "building", "unit", "room")


def record_to_plain(record: StandardRecord) -> dict[str, JsonValue]:
    """Return a JSON-ready dict; unknown fields are left out."""
    name, address = record.name, record.address
    plain: dict[str, JsonValue] = {
        "source_id": record.source_id,
        "source_record_id": record.source_record_id,
        "updated_time": record.updated_time.isoformat(),
        "trust_rank": record.trust_rank,
        "owner_department": record.owner_department,
        "is_unique_in_source": record.is_unique_in_source,
        "name": _name_to_plain(name) if name else None,
        "phones": [[phone.number, phone.kind, phone.extension] for phone in record.phones],
        "emails": list(record.emails),
        "gender": record.gender,
        "birth_date": record.birth_date,
        "resident_id": record.resident_id,
        "address": _address_to_plain(address) if address else None,
        "originals": dict(record.originals),
        "birth_years": list(record.birth_years) if record.birth_years else None,
        "documents": [[item.kind, item.number] for item in record.documents],
        "problems": [[item.field, item.reason, item.severity.value] for item in record.problems],
    }
    return {key: value for key, value in plain.items() if value or value == 0}


def _name_to_plain(name: PersonName) -> list[JsonValue]:
    plain: list[JsonValue] = [name.surname, name.given, name.title, name.style]
    return [*plain, True] if name.is_surname_first else plain


def _address_to_plain(address: Address) -> list[JsonValue]:
    plain: list[JsonValue] = list(_address_parts(address))
    place: list[JsonValue] = list(_place_parts(address.place))
    return [*plain, place] if any(place) else plain


def _address_from_plain(plain: list[Any]) -> Address:
    named = dict(zip((*_ADDRESS, "place"), plain, strict=False))
    return Address(**{**named, "place": Place(*named.get("place", ()))})


def record_from_plain(plain: Mapping[str, JsonValue]) -> StandardRecord:
    """Return the record that record_to_plain made the dict from."""
    lists = {key: cast("list[list[str]]", plain.get(key) or []) for key in ("phones", "problems", "documents")}
    name, address = (
        cast("list[Any] | None", plain.get("name")),
        cast("list[Any] | None", plain.get("address")),
    )

    def text(key: str) -> str:
        return cast(str, plain.get(key) or "")

    return StandardRecord(
        text("source_id"),
        text("source_record_id"),
        datetime.fromisoformat(text("updated_time")),
        cast(int, plain.get("trust_rank", 100)),
        text("owner_department"),
        bool(plain.get("is_unique_in_source")),
        PersonName(*name) if name else None,
        tuple(Phone(*phone) for phone in lists["phones"]),
        tuple(cast("list[str]", plain.get("emails") or [])),
        text("gender"),
        text("birth_date"),
        text("resident_id"),
        _address_from_plain(address) if address else None,
        cast("dict[str, str]", plain.get("originals") or {}),
        tuple(Problem(item[0], item[1], Severity(item[2])) for item in lists["problems"]),
        cast("tuple[int, int]", tuple(cast("list[int]", plain["birth_years"]))) if "birth_years" in plain else None,
        tuple(Document(*item) for item in lists["documents"]),
    )
