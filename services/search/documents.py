"""Turn the facts of other services into documents of the index, and sealed payloads back into hits."""

from __future__ import annotations

from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp
from kehu.profiles.v1 import events_pb2 as profiles
from kehu.search.v1 import events_pb2 as displays
from kehu.tickets.v1 import events_pb2 as tickets

from services.chassis.crypto import BlindIndex, Sealer
from services.search.domain.terms import Keyed, ProfileText, TicketText, profile_terms, sealed, ticket_terms
from services.search.store import IndexDocument


def keyed_by(index: BlindIndex) -> Keyed:
    """Return the function that makes tokens; their kinds are search's own, so they meet no other service's."""
    return lambda kind, value: index.token(f"search/{kind}", value)


def milliseconds(moment: Timestamp) -> int:
    """Return a timestamp as milliseconds since 1970, UTC."""
    return int(moment.ToDatetime(UTC).timestamp() * 1000)


class DocumentMaker:
    """Makes documents from facts; holds the keys to open what facts seal and to seal what hits show."""

    def __init__(self, keyed: Keyed, facts: Sealer, payloads: Sealer) -> None:
        """`facts` opens what events carry sealed (purpose events), `payloads` is search's own."""
        self._keyed = keyed
        self._facts = facts
        self._payloads = payloads

    def of_profile(self, state: profiles.ProfileChanged) -> IndexDocument:
        """Return the document of a profile's state; a tombstone when it is erased or merged."""
        name, changed = f"profiles/{state.profile_id}", milliseconds(state.event_time)
        if state.deleted or state.merged_into:
            return IndexDocument(name, state.version, changed, deleted=True)
        identity = profiles.ProfileIdentity.FromString(self._facts.open(state.sealed_identity))
        names = dict.fromkeys(filter(None, [identity.display_name, *identity.source_names]))
        text = ProfileText(
            tuple(names), tuple(identity.phones), tuple(identity.emails), identity.resident_id, identity.address
        )
        keywords = {
            "type": "profiles",
            "province_code": state.province_code,
            "city_code": state.city_code,
            "department": state.owner_department,
            "tier": state.tier,
            "profile_id": state.profile_id,
        }
        payload = self._payloads.seal(_profile_display(state, identity).SerializeToString(), name.encode())
        terms = sealed(profile_terms(text), self._keyed)
        return IndexDocument(name, state.version, changed, False, terms, keywords, payload)

    def of_ticket(self, state: tickets.TicketChanged) -> IndexDocument:
        """Return the document of a ticket's state; a tombstone when it is deleted."""
        name, changed = f"tickets/{state.ticket_id}", milliseconds(state.event_time)
        if state.deleted:
            return IndexDocument(name, state.version, changed, deleted=True)
        words = tickets.TicketText.FromString(self._facts.open(state.sealed_text, state.ticket_id.encode()))
        display = displays.TicketDisplay(
            number=state.number,
            subject=words.subject,
            description=words.description,
            profile_id=state.profile_id,
            kind=state.kind,
            status=state.status,
            status_category=state.status_category,
            priority=state.priority,
            department=state.department,
            update_time=state.event_time,
        )
        keywords = {
            "type": "tickets",
            "department": state.department,
            "kind": state.kind,
            "status": state.status,
            "status_category": state.status_category,
            "priority": state.priority,
            "profile_id": state.profile_id,
        }
        payload = self._payloads.seal(display.SerializeToString(), name.encode())
        terms = sealed(ticket_terms(TicketText(state.number, words.subject, words.description)), self._keyed)
        return IndexDocument(name, state.version, changed, False, terms, keywords, payload)


def _profile_display(state: profiles.ProfileChanged, identity: profiles.ProfileIdentity) -> displays.ProfileDisplay:
    return displays.ProfileDisplay(
        display_name=identity.display_name,
        phones=identity.phones,
        emails=identity.emails,
        resident_id=identity.resident_id,
        address=identity.address,
        source_names=identity.source_names,
        province_code=state.province_code,
        city_code=state.city_code,
        owner_department=state.owner_department,
        tier=state.tier,
        update_time=state.event_time,
    )
