"""Which fields of the protos hold ids of profiles, and which of those need not follow a merge, with the reason.

The rule: a field of text holds profile ids if its name says `profile`, or if its comment says `profiles/{` or that it
is an id of a profile. `test_fields.py` finds what breaks the rule: it looks at every value that goes over a wire.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.openapi.comments import descriptor_set_path, load_comments
from services.chassis.config import SERVICES

NAME = re.compile(r"(^|_)profiles?(_ids?)?$|_profile_ids?$")
COMMENT = re.compile(r"profiles/\{|\bprofile ids?\b|\bids? of (a |the )?profiles?\b", re.IGNORECASE)
TELLING = "the facts of profiles themselves: what the others follow by"
AS_ASKED = "says what was asked for, so that the caller finds the answer to each id"
REPORT = "what a dry run or a measurement saw when it ran; the next run says it anew"
HELD = "asked by profiles with every id that a person under legal hold has or had"

STAYS = {
    "kehu.access.v1.AuditEntry.target": "audit keeps what it saw, in a chain that nothing changes",
    "kehu.access.v1.AuditEntry.profiles": "audit keeps what it saw, in a chain that nothing changes",
    "kehu.access.v1.ListAuditEntriesRequest.profile_id": "asks the trail by one name; `:disclosures` follows",
    "kehu.access.v1.Disclosure.profiles": "names the ids a person was seen under",
    "kehu.access.v1.ListDisclosuresRequest.profile_id": "follows in time (tests/access/test_proof.py)",
    "kehu.access.v1.Share.target": "follows (tests/access/test_shares.py)",
    "kehu.access.v1.LentRecord.target": "follows (tests/access/test_shares.py)",
    "kehu.access.v1.CreateShareRequest.target": "says what is lent under its name of now; the share follows",
    "kehu.profiles.v1.ShareProfileRequest.name": "lends the profile of now (tests/reach/test_borrower.py)",
    "kehu.search.v1.TicketDisplay.profile_id": "sealed in the index, shown as TicketHit.profile, which follows",
    "kehu.profiles.v1.ProfileChanged.profile_id": TELLING,
    "kehu.profiles.v1.ProfileChanged.merged_into": TELLING,
    "kehu.profiles.v1.ProfilesMerged.profile_id": TELLING,
    "kehu.profiles.v1.ProfilesMerged.merged_profile_id": TELLING,
    "kehu.profiles.v1.ProfilesUnmerged.profile_id": TELLING,
    "kehu.profiles.v1.ProfilesUnmerged.unmerged_profile_id": TELLING,
    "kehu.profiles.v1.ProfilesUnmerged.aliases": TELLING,
    "kehu.profiles.v1.PairMoveSample.profiles": REPORT,
    "kehu.analytics.v1.ListInteractionMonthsRequest.kept_profile_ids": HELD,
    "kehu.analytics.v1.DeleteInteractionMonthsRequest.kept_profile_ids": HELD,
    "kehu.profiles.v1.FormerName.profile_id": TELLING,
    "kehu.profiles.v1.FormerName.merged_into": TELLING,
    "kehu.profiles.v1.ProfileErased.profile_id": TELLING,
    "kehu.profiles.v1.ProfileErased.names": TELLING,
    "kehu.profiles.v1.Profile.aliases": "the former names themselves",
    "kehu.profiles.v1.ProfileRevision.other_profile": "history: whom a merge or a split was with",
    "kehu.profiles.v1.TraceExportRequest.profile": "the mark of an export: an id that is no profile's",
    "kehu.profiles.v1.Contact.profile_id": AS_ASKED,
    "kehu.consent.v1.Decision.profile_id": AS_ASKED,
    "kehu.consent.v1.ConsentRecord.origin_profile_id": "evidence: under which id an answer was given",
    "kehu.consent.v1.ConsentRecord.given_for": "evidence: who must be one for a grant to count; counts by who is one",
    "kehu.marketing.v1.DeliveryRecorded.profile_id": "the id the message was planned for; the lake follows its aliases",
    "kehu.marketing.v1.Delivery.profile_id": "the id the message was planned for; lists and caps follow",
    "kehu.marketing.v1.Suppression.profile_id": "the id that was suppressed; lists and the gate follow",
    "kehu.profiles.v1.FieldEffectSample.profile": REPORT,
    "kehu.profiles.v1.ResolutionSample.profiles": REPORT,
    "kehu.profiles.v1.Erasure.profile": "a receipt: who was erased; nobody merges with them any more",
    "kehu.profiles.v1.EraseProfileRequest.name": "ends the person; of all their names "
    "(tests/profiles/test_protection.py)",
    "kehu.profiles.v1.LegalHold.profile": "the name it was set by; it holds by key whoever has the data "
    "(tests/profiles/test_retention.py)",
    "kehu.profiles.v1.ProveRetentionRequest.item": "names a version that was destroyed, under the name of then",
}


def profile_fields() -> list[FieldDescriptor]:
    """Return every field of the project's protos that holds ids of profiles, by the rule."""
    comments = load_comments(descriptor_set_path())
    return [
        field
        for message in _messages()
        for field in message.fields
        if _is_text(field) and (NAME.search(field.name) or COMMENT.search(comments.get(field.full_name, "")))
    ]


def _is_text(field: FieldDescriptor) -> bool:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING
    return field.type == FieldDescriptor.TYPE_STRING


def _messages() -> Iterator[Descriptor]:
    for service in SERVICES:
        package = importlib.import_module(f"kehu.{service}.v1")
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.endswith("_pb2"):
                descriptor = importlib.import_module(f"{package.__name__}.{module.name}").DESCRIPTOR
                for message in descriptor.message_types_by_name.values():
                    yield from _nested(message)


def _nested(message: Descriptor) -> Iterator[Descriptor]:
    if not message.GetOptions().map_entry:
        yield message
        for inner in message.nested_types:
            yield from _nested(inner)
