"""Gather what the delivery gate must know of people: merges, suppressions, recent messages, consent, addresses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.marketing.domain.campaigns import Campaign
from services.marketing.domain.deliveries import delivery_id_of
from services.marketing.domain.planning import Candidate, ConsentAnswer
from services.marketing.ports import Consents, Contact, Contacts
from services.marketing.store import MarketingStore

EVER = datetime.fromtimestamp(0, UTC)
SUPPRESSION_USE_SECONDS = 0.5  # how long what was read here may be acted on; Unsubscribe replies after as long


@dataclass(frozen=True, slots=True)
class Known:
    """Candidates in the order asked, who of them the run wrote to already, and how long this may be acted on."""

    candidates: tuple[Candidate, ...]
    persons_in_run: frozenset[str]
    use_within_seconds: float


@dataclass(frozen=True, slots=True)
class People:
    """Names and addresses of a page, in memory only, with the keyed tokens of the addresses.

    They are kept under who answered for a recipient when asked; who answers by now may be somebody else.
    """

    contacts: Mapping[str, Contact]
    tokens: Mapping[str, str]

    def contact(self, profile_id: str, person_id: str) -> Contact | None:
        """Return where to write to a recipient for whom this person answers by now."""
        return self.contacts.get(person_id) or self.contacts.get(profile_id)

    def token(self, profile_id: str, person_id: str) -> str:
        """Return the token of the address that `contact` names, empty without one."""
        return next(iter(self.tokens_of(person_id, profile_id)), "")

    def tokens_of(self, *profile_ids: str) -> list[str]:
        """Return the tokens of the addresses known under these ids."""
        return [self.tokens[profile_id] for profile_id in profile_ids if profile_id in self.tokens]


class Gate:
    """Asks the store and the other services about people; `token_of` turns an address into its keyed token."""

    def __init__(
        self, store: MarketingStore, consents: Consents, contacts: Contacts, token_of: Callable[[str], str]
    ) -> None:
        self._store = store
        self._consents = consents
        self._contacts = contacts
        self._token_of = token_of

    def people(self, profile_ids: Sequence[str], channel: str) -> People:
        """Return where to write to people, by the ids of those who answer for the ids given."""
        survivors = self._store.identities.living(profile_ids)
        persons = list(dict.fromkeys(survivors.get(profile_id, profile_id) for profile_id in profile_ids))
        found = self._contacts.contacts(persons, channel) if persons else {}
        return People(found, {key: self._token_of(one.address) for key, one in found.items()})

    def look(
        self,
        campaign: Campaign,
        run_id: str,
        profile_ids: Sequence[str],
        people: People,
        now: datetime,
        own_deliveries: frozenset[str] = frozenset(),
    ) -> Known:
        """Return what is known now; messages of `own_deliveries` do not count towards the cap."""
        survivors = self._store.identities.living(profile_ids)
        persons = {profile_id: survivors.get(profile_id, profile_id) for profile_id in profile_ids}
        unique = list(dict.fromkeys(persons.values()))
        family = self._store.identities.family(unique) | {person: person for person in unique}
        counted = self._counted(campaign, family, now, own_deliveries)
        recent = Counter(person for person, _ in counted)
        in_run = self._in_run(run_id, family, own_deliveries) if len(family) > len(unique) else frozenset()
        suppressed = self._suppressed(campaign, family, people)
        answers = self._consents.decide(unique, campaign.purpose_id, campaign.channel)
        candidates = tuple(
            Candidate(
                profile_id=profile_id,
                person_id=person,
                consent=answers.by_person.get(person, ConsentAnswer()),
                has_address=people.contact(profile_id, person) is not None,
                is_suppressed=not suppressed.isdisjoint({person, *people.tokens_of(profile_id, person)}),
                recent_messages=recent[person],
            )
            for profile_id, person in persons.items()
        )
        return Known(candidates, in_run, min(answers.use_within_seconds, SUPPRESSION_USE_SECONDS))

    def _counted(
        self, campaign: Campaign, family: Mapping[str, str], now: datetime, own: frozenset[str]
    ) -> list[tuple[str, str]]:
        """Return (person, delivery id) of what counts towards the campaign's cap."""
        since = now - timedelta(days=campaign.frequency_cap.window_days)
        recent = self._store.recent(list(family), since)
        return [(family[owner], delivery_id) for owner, delivery_id in recent if delivery_id not in own]

    def _in_run(self, run_id: str, family: Mapping[str, str], own: frozenset[str]) -> frozenset[str]:
        """Return the people whom the run wrote to under another of their ids, however long it was paused since."""
        of_run = {delivery_id_of(run_id, member) for member in family} - own
        found = self._store.recent(list(family), EVER)
        return frozenset(family[owner] for owner, delivery_id in found if delivery_id in of_run)

    def _suppressed(self, campaign: Campaign, family: Mapping[str, str], people: People) -> set[str]:
        """Return the suppressed people and address tokens."""
        found = self._store.suppressions_of(list(family), list(people.tokens.values()))
        covering = [one for one in found if one.covers(campaign.channel, campaign.purpose_id)]
        persons = {family[one.profile_id] for one in covering if one.profile_id in family}
        return persons | {one.address_token for one in covering if one.address_token}
