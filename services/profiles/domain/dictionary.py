"""The data dictionary as data: what each standard field is, who may see it, how it is kept and chosen.

A field that is not in the dictionary, or has no classification, is hidden from every reader.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.profiles.domain.values import Severity


class Classification(StrEnum):
    """How grave the disclosure of a field is; UNCLASSIFIED is hidden from everyone."""

    UNCLASSIFIED = "unclassified"
    PUBLIC = "public"
    INTERNAL = "internal"
    PERSONAL = "personal"
    SENSITIVE = "sensitive"  # PIPL article 28


class Survivorship(StrEnum):
    """How the believed value is chosen among the sources' values; a more complete value always goes first.

    Then MOST_TRUSTED asks trust and time, MOST_RECENT and MOST_COMPLETE time and trust, MOST_CONFIRMED how
    many records agree, then trust and time.
    """

    MOST_TRUSTED = "most_trusted"
    MOST_RECENT = "most_recent"
    MOST_COMPLETE = "most_complete"
    MOST_CONFIRMED = "most_confirmed"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a field's value is chosen; `version` counts the changes of the rule since the built-in one."""

    survivorship: Survivorship = Survivorship.MOST_TRUSTED
    version: int = 0


@dataclass(frozen=True, slots=True)
class FieldDefinition:
    """One standard field.

    `group` names the rights group (name, contact, birth, document, address). `mask` names the form shown to
    readers with a mask right. `retention_days` counts from the last change of the profile, 0 is no limit of
    its own. `purposes` are those it may be used for. `on_invalid`: REJECT sets the row apart, WARNING drops
    the value. `reject_reasons` narrows REJECT to certain reasons; empty means all.
    """

    name: str
    label: str
    value_format: str
    owner_department: str
    classification: Classification = Classification.UNCLASSIFIED
    group: str = ""
    mask: str = "full"
    is_encrypted: bool = True
    is_searchable: bool = False
    is_identifier: bool = False
    retention_days: int = 0
    survivorship: Survivorship = Survivorship.MOST_TRUSTED
    purposes: tuple[str, ...] = ()
    on_invalid: Severity = Severity.WARNING
    reject_reasons: tuple[str, ...] = ()
    update_rule: str = "any source; a steward's override wins"


_ALL = ("marketing", "service", "sales", "analysis", "stewardship")
_CONTACT = ("marketing", "service", "sales", "stewardship")
_FIVE_YEARS = 1826
_PERSONAL, _SENSITIVE, _INTERNAL = Classification.PERSONAL, Classification.SENSITIVE, Classification.INTERNAL
_TRUSTED, _RECENT = Survivorship.MOST_TRUSTED, Survivorship.MOST_RECENT

DEFAULT_FIELDS: tuple[FieldDefinition, ...] = (
    FieldDefinition(
        "name", "姓名", "simplified characters, no title", "data-office", _PERSONAL, "name", "name",
        is_searchable=True, retention_days=_FIVE_YEARS, survivorship=Survivorship.MOST_CONFIRMED, purposes=_CONTACT,
    ),
    FieldDefinition(
        "title", "称谓", "as written: 先生, 女士, Dr", "service", _PERSONAL, "name", "full",
        retention_days=_FIVE_YEARS, survivorship=_RECENT, purposes=_CONTACT,
    ),
    FieldDefinition(
        "gender", "性别", "male | female", "data-office", _PERSONAL, "birth", "full", is_encrypted=False,
        retention_days=_FIVE_YEARS, purposes=_ALL,
    ),
    FieldDefinition(
        "birth_date", "出生日期", "YYYY-MM-DD", "data-office", _PERSONAL, "birth", "birth",
        retention_days=_FIVE_YEARS, survivorship=Survivorship.MOST_CONFIRMED,
        purposes=("marketing", "analysis", "stewardship"),
        on_invalid=Severity.REJECT, reject_reasons=("DATE_IMPOSSIBLE", "DATE_OUT_OF_RANGE"),
    ),
    FieldDefinition(
        "resident_id", "身份证号", "18 characters, GB 11643", "data-office", _SENSITIVE, "document", "document",
        is_searchable=True, is_identifier=True, retention_days=_FIVE_YEARS, purposes=("service", "stewardship"),
    ),
    FieldDefinition(
        "phone", "手机号", "E.164", "service", _PERSONAL, "contact", "phone", is_searchable=True,
        is_identifier=True, retention_days=_FIVE_YEARS, survivorship=_RECENT, purposes=_CONTACT,
        on_invalid=Severity.REJECT, reject_reasons=("PHONE_DIGITS_LOST",),
    ),
    FieldDefinition(
        "email", "电子邮箱", "name@domain in lower case", "marketing", _PERSONAL, "contact", "email",
        is_searchable=True, is_identifier=True, retention_days=_FIVE_YEARS, survivorship=_RECENT, purposes=_CONTACT,
    ),
    FieldDefinition(
        "address", "地址", "province, city, county, then as written", "sales", _PERSONAL, "address", "address",
        retention_days=_FIVE_YEARS, survivorship=Survivorship.MOST_COMPLETE,
        purposes=("service", "sales", "stewardship"),
    ),
    FieldDefinition(
        "province_code", "省级代码", "GB/T 2260, six digits", "sales", _PERSONAL, "address", "address",
        is_encrypted=False, retention_days=_FIVE_YEARS, purposes=_ALL,
    ),
    FieldDefinition(
        "city_code", "地级代码", "GB/T 2260, six digits", "sales", _PERSONAL, "address", "address",
        is_encrypted=False, retention_days=_FIVE_YEARS, purposes=_ALL,
    ),
    FieldDefinition(
        "district_code", "县级代码", "GB/T 2260, six digits", "sales", _PERSONAL, "address", "address",
        is_encrypted=False, retention_days=_FIVE_YEARS, purposes=_ALL,
    ),
    FieldDefinition(
        "owner_department", "归属部门", "department id", "data-office", _INTERNAL, is_encrypted=False,
        survivorship=_RECENT, purposes=_ALL,
    ),
)  # fmt: skip
DEFAULT_BY_NAME: Mapping[str, FieldDefinition] = {item.name: item for item in DEFAULT_FIELDS}
DEFAULT_RULES: Mapping[str, Rule] = {item.name: Rule(item.survivorship) for item in DEFAULT_FIELDS}


def is_visible(definition: FieldDefinition | None) -> bool:
    """Say whether a field may be shown to anyone at all: it is defined and classified."""
    return definition is not None and definition.classification is not Classification.UNCLASSIFIED


def visible_fields(definitions: Iterable[FieldDefinition], purpose: str) -> tuple[str, ...]:
    """Return the names of the classified fields that may be used for a purpose; public ones need none."""
    return tuple(
        item.name
        for item in definitions
        if is_visible(item) and (item.classification is Classification.PUBLIC or purpose in item.purposes)
    )


def right_of(definition: FieldDefinition) -> str:
    """Return the object of the field's right in the policy: fields/personal/contact."""
    return f"fields/{definition.classification}/{definition.group or 'general'}"


def severity_of(definitions: Mapping[str, FieldDefinition], field: str, reason: str) -> Severity:
    """Return how grave a reason is for a field; unknown fields never set a row apart."""
    definition = definitions.get(field)
    if definition is None or definition.on_invalid is Severity.WARNING:
        return Severity.WARNING
    narrowed = definition.reject_reasons
    return Severity.REJECT if not narrowed or reason in narrowed else Severity.WARNING
