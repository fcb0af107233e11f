"""Which records are compared at all: those that share a key."""

from services.profiles.domain.comparison import documents_of, implied_phones
from services.profiles.domain.places import places_of
from services.profiles.domain.similarity import sound_keys
from services.profiles.domain.values import StandardRecord

IDENTIFIERS = ("phone", "email", "resident_id")  # fields whose values are keys of their own kind
KEY_CANDIDATES_LIMIT = 50  # profiles fetched for one key; a key with more says nothing of a person


def blocking_keys(record: StandardRecord) -> tuple[str, ...]:
    """Return the record's keys in plain text, each with its kind before a colon; index them blindly.

    Names are keyed by their sorted pinyin letters, so that order, homophones, dialects and Latin forms meet.
    """
    phones = dict.fromkeys((*(phone.number for phone in record.phones), *implied_phones(record.emails)))
    keys = [f"phone:{phone}" for phone in phones]
    keys += [f"email:{email}" for email in record.emails]
    if record.resident_id:
        keys.append(f"resident_id:{record.resident_id}")
    for kind, numbers in documents_of(record.documents).items():
        keys += [f"document:{kind}|{number}" for number in sorted(numbers)]
    address = record.address
    if record.birth_date and address and address.city_code:
        keys.append(f"birth_city:{record.birth_date}|{address.city_code}")
    if record.name and record.name.is_complete:
        for sound in sound_keys(record.name):
            if record.birth_date:
                keys.append(f"name_birth:{sound}|{record.birth_date}")
            if address and address.detail and address.province_code:
                room, _, number, _ = places_of(address)
                keys.append(f"name_address:{sound}|{number or room or address.detail}")
            for phone in phones:
                keys += [f"name_phone:{sound}|{phone[:-4]}", f"name_phone:{sound}|{phone[-4:]}"]
    return tuple(keys)
