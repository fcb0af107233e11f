"""Quality rules between their message, their stored form and the measurement."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import json_format
from kehu.profiles.v1 import quality_pb2 as pb

from services.chassis.records import etag_of
from services.profiles.domain.incidents import SEVERITIES
from services.profiles.domain.quality import Dimension
from services.profiles.quality.tally import QualityRule
from services.profiles.quality.values import StoredQualityRule
from services.profiles.revised import content_of
from services.profiles.store import Store

RULES_PER_READ = 500
DUE_DAYS = 7
OUTPUT = ("name", "revision", "revisions", "create_time", "update_time", "etag")
DIMENSIONS = {pb.QualityDimension.Value(f"QUALITY_DIMENSION_{item.name}"): str(item) for item in Dimension}
DIMENSION_NUMBERS = {name: number for number, name in DIMENSIONS.items()}
SEVERITY_NAMES = dict(enumerate(("medium", *SEVERITIES)))  # by number; unspecified is medium
SEVERITY_NUMBERS = {name: number for number, name in enumerate(SEVERITIES, start=1)}


def plain_of(message: pb.QualityRule) -> str:
    """Return what of a rule makes a revision, as JSON."""
    return content_of(message, OUTPUT)


def rule_message(stored: StoredQualityRule) -> pb.QualityRule:
    """Return the message of a rule with its revisions."""
    message = json_format.Parse(stored.latest, pb.QualityRule())
    message.name = f"qualityRules/{stored.id}"
    message.revision = stored.revision
    for number, time, subject, plain in stored.revisions:
        was = json_format.Parse(str(plain), pb.QualityRule())
        entry = message.revisions.add(
            revision=int(str(number)), changed_by=str(subject), threshold=was.threshold, disabled=was.disabled
        )
        entry.time.FromJsonString(str(time))
    if stored.create_time and stored.update_time:
        message.create_time.FromDatetime(stored.create_time)
        message.update_time.FromDatetime(stored.update_time)
    message.etag = etag_of(stored.version)
    return message


def rule_of(stored: StoredQualityRule) -> QualityRule:
    """Return the latest revision as a measurement uses it."""
    message = json_format.Parse(stored.latest, pb.QualityRule())
    return QualityRule(
        stored.id, DIMENSIONS[message.dimension], message.field, message.threshold, message.source.rpartition("/")[2],
        message.department, message.min_measured, SEVERITY_NAMES[message.severity], message.due_days or DUE_DAYS,
        not message.disabled,
    )  # fmt: skip


def all_rules(store: Store) -> Iterator[QualityRule]:
    """Yield every rule, those that are disabled among them."""
    after = ""
    while page := store.quality_rules.page({}, after, RULES_PER_READ):
        yield from map(rule_of, page)
        after = page[-1].id
