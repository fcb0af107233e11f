"""The reasons a value or a row is refused, and what to do about each; texts carry no personal data."""

REASONS: dict[str, str] = {
    "RECORD_ID_MISSING": "The row has no record id; fill the column mapped to source_record_id.",
    "TIME_UNREADABLE": "The time of change cannot be read; write it as YYYY-MM-DD HH:MM:SS.",
    "TIME_IN_THE_FUTURE": "The time of change lies more than a day ahead; leave it empty where it is not known.",
    "IDENTIFIER_MISSING": "The row has neither a usable phone, e-mail nor resident ID, nor a full name with a "
    "birth date or an address; add one of them.",
    "NAME_UNREADABLE": "The name holds no letters or characters; correct or clear it.",
    "NAME_SEVERAL": "The cell names several people; keep the one whom the record is of.",
    "NAME_BLOCKED": "The name is a placeholder; put in the person's name or clear it.",
    "PHONE_BLOCKED": "The phone is a placeholder that many people share; put in the person's own number.",
    "PHONE_UNREADABLE": "The phone is not a number that can be dialled; write it with all its digits.",
    "PHONE_AREA_MISSING": "The landline has no area code; write it as 0571-88886666.",
    "PHONE_DIGITS_LOST": "A spreadsheet turned the phone into a rounded number; format its column as text and "
    "export it again.",
    "PHONE_TRUNCATED": "The cell holds more phones than are kept; keep the ten that matter.",
    "EMAIL_BLOCKED": "The e-mail is a placeholder; put in the person's own address.",
    "EMAIL_UNREADABLE": "The e-mail is not of the form name@domain; correct or clear it.",
    "DATE_UNREADABLE": "The date cannot be read; write it as YYYY-MM-DD.",
    "DATE_IMPOSSIBLE": "There is no such day in the calendar; correct the date.",
    "DATE_AMBIGUOUS": "Day and month cannot be told apart; set the source's date order or write YYYY-MM-DD.",
    "DATE_LUNAR": "The date is of the lunar calendar; give the solar date.",
    "BIRTH_YEARS_ONLY": "Only the years of birth can be told, not the day; write the date as YYYY-MM-DD.",
    "DATE_PLACEHOLDER": "The date is a system's default; put in the real date or clear it.",
    "DATE_OUT_OF_RANGE": "A birth date lies between 1900 and the time of the record; correct it.",
    "RESIDENT_ID_BLOCKED": "The resident ID is a placeholder; put in the person's own or clear it.",
    "RESIDENT_ID_UNREADABLE": "A resident ID has 18 characters, or 15 digits in its old form, and no other document is "
    "of this form; correct it.",
    "RESIDENT_ID_CHECK_DIGIT": "The resident ID's last character does not fit the others; check it for a typo.",
    "RESIDENT_ID_BIRTH": "The resident ID holds an impossible birth date; check it for a typo.",
    "RESIDENT_ID_REGION": "The resident ID begins with an unknown region; check it for a typo.",
    "DOCUMENT_BANK_CARD": "The number is a bank card, which does not identify a person; clear it.",
    "DOCUMENT_CHECK_DIGIT": "The document's last character does not fit the others; check it for a typo.",
    "RESIDENT_ID_BIRTH_CONFLICT": "The resident ID and the birth date disagree; correct one of them.",
    "RESIDENT_ID_GENDER_CONFLICT": "The resident ID and the gender disagree; correct one of them.",
    "GENDER_UNREADABLE": "The gender is neither male nor female in a known form; write 男 or 女 or clear it.",
    "ADDRESS_UNKNOWN": "No province, city or county was found in the address; begin it with one.",
    "ADDRESS_AMBIGUOUS": "The county's name exists in several cities; write the city before it.",
    "ADDRESS_CONFLICT": "The address names divisions that do not belong together; correct it.",
    "FORMAT_MISMATCH": "The value is not of the format that the data dictionary asks of its field; correct it.",
    "TEXT_TOO_LONG": "The text is longer than the field may be; shorten it.",
}


def describe(reason: str) -> str:
    """Return what to do about a reason, in one sentence."""
    return REASONS[reason]
