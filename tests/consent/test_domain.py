"""The rules of consent, by tables a lawyer can read and by properties."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.consent.domain import records as rec
from services.consent.domain.decision import Reason, Terms, decide, known_at
from services.consent.domain.errors import (
    EvidenceInvalid,
    GuardianRequired,
    NoticeInvalid,
    PurposeInvalid,
    PurposeRetired,
    TooManyRecords,
)
from services.consent.domain.merging import merge_consents
from services.consent.domain.records import ConsentState, ProfileConsents, accepted, append, standing
from services.consent.domain.registry import (
    Notice,
    change_purpose,
    checked_purpose,
    publish,
    wording_hash,
)
from tests.consent.registry import OFFERS, PURPOSES, day, member_notice, record

HERE = Path(__file__).parent
NOTICE = member_notice()
NOW = day("2026-05-01")


def rows(file: str) -> list:
    return yaml.safe_load((HERE / file).read_text(encoding="utf-8"))


def terms(**changes) -> Terms:
    return replace(Terms(OFFERS, NOTICE, "email", NOW), **changes)


@pytest.mark.parametrize("row", rows("decisions.yaml"), ids=lambda row: row["name"])
def test_decision_table(row):
    """Each row of decisions.yaml comes out as written."""
    purpose_id = row.get("purpose", "offers")
    found = decide(
        [record(**item) for item in row["records"]],
        Terms(
            PURPOSES.get(purpose_id),
            NOTICE,
            row.get("channel", "email"),
            day(row.get("at", "2026-05-01")),
            row.get("accept_legal_basis", False),
        ),
    )

    assert Reason(row["expect"]) == found.reason
    assert (row["expect"] in ("GRANTED", "LEGAL_BASIS")) == found.allowed
    if "by" in row:
        assert tuple(row["by"]) == found.record_ids


STATES = st.sampled_from(list(ConsentState))
RECORDS = st.lists(
    st.builds(
        lambda state, channel, days, n: record(
            f"r{n}", state.value, channel=channel, answered=(NOW - timedelta(days=days)).date()
        ),
        STATES,
        st.sampled_from(["", "email", "sms"]),
        st.integers(0, 50),
        st.integers(0, 10**6),
    ),
    max_size=8,
)


@given(RECORDS)
def test_no_order_of_arrival_changes_a_decision(found):
    """Records may arrive in any order."""
    assert decide(found, terms()) == decide(list(reversed(found)), terms())


@given(RECORDS, st.sampled_from([ConsentState.DENIED, ConsentState.REVOKED, ConsentState.EXPIRED]))
def test_a_refusal_answered_last_always_refuses(found, state):
    """Whatever came before, the newest refusal refuses."""
    last = record("last", state.value, answered=NOW.date())

    assert not decide([*found, last], terms()).allowed


@given(RECORDS)
def test_nothing_is_allowed_without_a_grant_to_point_at(found):
    """An allowance names a grant for this purpose and channel."""
    decision = decide(found, terms())

    if decision.allowed:
        named = [r for r in found if r.record_id in decision.record_ids]
        assert any(r.state is ConsentState.GRANTED and r.channel in ("", "email") for r in named)


@pytest.mark.parametrize("row", rows("merges.yaml"), ids="-".join)
@pytest.mark.parametrize(("first", "second"), [("2026-04-01", "2026-04-02"), ("2026-04-02", "2026-04-01"),
                                               ("2026-04-01", "2026-04-01")])  # fmt: skip
def test_merge_table(row, first, second):
    """The strictest wins whichever survives and whichever answered later; the evidence of both is kept."""
    left, right, expected = row
    for a, b in ((left, right), (right, left)):
        survivor = ProfileConsents("p1", () if a == "NONE" else (record("a", a, answered=first),))
        other = ProfileConsents("p2", () if b == "NONE" else (record("b", b, answered=second),))

        merged, _ = merge_consents(survivor, other, NOW)

        found = standing(merged.records, "offers", "email")
        assert expected == ("NONE" if found is None else found.state.value)
        kept = {r.record_id for r in merged.records}
        assert kept >= {r.record_id for r in (*survivor.records, *other.records)}


def test_a_grant_past_its_end_counts_as_expired_in_a_merge():
    """Unomi drops the expired answer and so lets the other's grant stand; here it refuses."""
    survivor = ProfileConsents("p1", (record("a", "GRANTED", ends="2026-04-20"),))
    other = ProfileConsents("p2", (record("b", "GRANTED", answered="2026-04-02"),))

    merged, _ = merge_consents(survivor, other, NOW)

    assert decide(merged.records, terms()).reason == Reason.EXPIRED


def test_a_refusal_on_every_channel_beats_a_newer_grant_on_one_of_the_other_profile():
    """Channels are compared by what each side's answers mean for them."""
    survivor = ProfileConsents("p1", (record("a", "REVOKED", channel=""),))
    other = ProfileConsents("p2", (record("b", "GRANTED", answered="2026-04-02"),))

    merged, _ = merge_consents(survivor, other, NOW)

    assert not decide(merged.records, terms()).allowed


def test_the_person_can_grant_again_after_a_merge():
    """A merge settles two old answers; it does not outlive a new one."""
    survivor = ProfileConsents("p1", (record("a", "REVOKED"),))
    merged, _ = merge_consents(survivor, ProfileConsents("p2", (record("b", "GRANTED"),)), NOW)

    again = [*merged.records, record("c", "GRANTED", answered="2026-04-03")]

    assert decide(again, terms()).allowed


@given(RECORDS, RECORDS)
@settings(max_examples=300)
def test_a_merge_never_allows_what_one_side_refused_and_repeating_it_changes_nothing(ours, theirs):
    """Merged consent is allowed only where no side refused; a second delivery adds nothing."""
    ours = [replace(r, record_id=f"a-{i}") for i, r in enumerate(ours)]
    theirs = [replace(r, record_id=f"b-{i}") for i, r in enumerate(theirs)]
    survivor, other = ProfileConsents("p1", tuple(ours)), ProfileConsents("p2", tuple(theirs))

    once, facts = merge_consents(survivor, other, NOW)
    twice, repeated = merge_consents(once, other, NOW)

    for channel in ("email", "sms"):
        sides = [decide(side, terms(channel=channel)) for side in (ours, theirs)]
        if decide(once.records, terms(channel=channel)).allowed:
            assert all(side.allowed or side.reason is Reason.NO_RECORD for side in sides)
    assert once == twice
    assert repeated == []
    assert bool(theirs) == bool(facts)


def draft(**changes) -> rec.ConsentRecord:
    fields = {"notice": 1, "answered": "2026-04-01"} | {k: v for k, v in changes.items() if k != "evidence"}
    made = record("new", fields.pop("state", "GRANTED"), **fields)
    return replace(made, evidence=replace(made.evidence, notice_id="", **changes.get("evidence", {})))


def test_a_grant_is_kept_with_the_hash_of_the_wording_shown():
    """The evidence says which wording it was (C3)."""
    kept = accepted(draft(), OFFERS, NOTICE, NOW)

    assert NOTICE.versions[0].text_in("zh-CN").wording_hash == kept.evidence.wording_hash
    assert decide([kept], terms()).allowed


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"notice": 0}, "consent.notice_version"),
        ({"notice": 9}, "consent.notice_version"),
        ({"evidence": {"language": "fr"}}, "consent.language"),
        ({"evidence": {"wording_hash": "0" * 64}}, "consent.wording_hash"),
        ({"evidence": {"shown_time": None}}, "consent.shown_time"),
        ({"evidence": {"shown_time": day("2026-04-02")}}, "consent.shown_time"),
        ({"evidence": {"shown_time": day("2025-12-31")}}, "consent.shown_time"),
        ({"ends": "2026-04-01"}, "consent.expire_time"),
        ({"channel": "post"}, "consent.channel"),
        ({"answered": "2026-05-02", "notice": 1}, "consent.answer_time"),
    ],
)
def test_a_grant_without_sound_evidence_is_refused(changes, field):
    """Each gap names its field."""
    with pytest.raises(EvidenceInvalid) as refused:
        accepted(draft(**changes), OFFERS, NOTICE, NOW)

    assert [field] == [violation.field for violation in refused.value.violations]


def test_a_refusal_needs_no_evidence_and_no_live_purpose():
    """Saying no is never harder than saying yes (PIPL art. 15)."""
    bare = replace(draft(state="REVOKED", notice=0), evidence=rec.Evidence(collected_via="CALL"))

    assert accepted(bare, PURPOSES["old"], None, NOW).state == ConsentState.REVOKED


def test_a_retired_purpose_takes_no_grant():
    """Nothing new is collected for it."""
    with pytest.raises(PurposeRetired):
        accepted(draft(purpose="old"), PURPOSES["old"], NOTICE, NOW)


def test_a_child_cannot_grant_alone():
    """PIPL art. 31."""
    with pytest.raises(GuardianRequired):
        accepted(draft(child=True), OFFERS, NOTICE, NOW)


def test_an_answer_a_little_ahead_counts_as_now():
    """A fast clock must not make an answer outlive a later withdrawal."""
    ahead = replace(draft(), answer_time=NOW + timedelta(minutes=4))

    assert accepted(ahead, OFFERS, NOTICE, NOW).answer_time == NOW


def test_a_grant_from_a_fast_clock_that_showed_the_notice_a_moment_before_is_taken():
    """Both times are ahead by as much as the answer may be."""
    ahead = replace(draft(), answer_time=NOW + timedelta(minutes=4))
    shown = replace(ahead.evidence, shown_time=ahead.answer_time - timedelta(seconds=9))

    kept = accepted(replace(ahead, evidence=shown), OFFERS, NOTICE, NOW)

    assert (NOW, NOW) == (kept.answer_time, kept.evidence.shown_time)


def test_a_refusal_is_taken_for_a_channel_that_the_purpose_gave_up_and_a_grant_is_not():
    """Whoever granted it before would else be written to again when the channel comes back."""
    without = replace(OFFERS, channels=("sms",))
    refusal = replace(draft(state="REVOKED"), channel="email")

    assert accepted(refusal, without, NOTICE, NOW).channel == "email"
    with pytest.raises(EvidenceInvalid):
        accepted(replace(draft(), channel="email"), without, NOTICE, NOW)


def test_a_grant_ends_when_its_purpose_says():
    """consent_valid_days counts from the answer."""
    purpose = replace(OFFERS, consent_valid_days=30)

    assert day("2026-05-01") == accepted(draft(), purpose, NOTICE, NOW).expire_time
    assert day("2026-04-09") == accepted(draft(ends="2026-04-09"), purpose, NOTICE, NOW).expire_time


def test_a_grant_on_another_legal_basis_needs_no_notice():
    """A contract's purpose may record answers without a notice of its own."""
    kept = accepted(draft(purpose="delivery", notice=0), PURPOSES["delivery"], None, NOW)

    assert kept.evidence.wording_hash == ""


@pytest.mark.parametrize(
    ("given_address", "kept"),
    [
        ("203.0.113.77", "203.0.113.*"),
        ("2001:db8:12:34::9", "2001:0db8:0012:*"),
        ("zhang.wei@example.cn", "z***@example.cn"),
        ("13812348000", "138****8000"),
        ("203.0.113.*", "203.0.113.*"),
        ("z***@example.cn", "z***@example.cn"),
        ("138****8000", "138****8000"),
        ("北京市朝阳区", "***"),
        ("  ", ""),
    ],
)
def test_addresses_are_masked_before_they_are_kept(given_address, kept):
    """Masking is idempotent and fails closed."""
    assert kept == rec.mask_network_address(given_address)
    assert kept == rec.mask_network_address(kept)


def test_a_full_profile_takes_refusals_but_no_grant():
    """A bound never stands between a person and their no."""
    full = ProfileConsents("p1", tuple(record(f"r{i}", "GRANTED") for i in range(rec.RECORDS_LIMIT)))

    with pytest.raises(TooManyRecords):
        append(full, record("one-more", "GRANTED"))
    refused, _, fact = append(full, record("no", "REVOKED", answered="2026-04-05"))
    again, answer, repeated = append(refused, record("no-2", "REVOKED", answered="2026-04-06"))

    assert decide(refused.records, terms()).reason == Reason.REVOKED
    assert (refused, "no", None) == (again, answer.record_id, repeated)
    assert fact is not None


def test_the_fact_carries_what_stands_and_the_next_version():
    """A late grant below a withdrawal is published as the withdrawal that stands."""
    consents = ProfileConsents("p1", (record("r", "REVOKED", answered="2026-04-02"),), version=3)

    _, kept, fact = append(consents, record("g", "GRANTED"))

    assert (kept.record_id, fact.record_id, fact.version, fact.state) == ("g", "r", 4, 3)


def test_looking_back_shows_what_was_known_then():
    """A later record does not change what was decided before it."""
    found = [record("g", "GRANTED"), record("r", "REVOKED", answered="2026-04-20")]

    assert [r.record_id for r in known_at(found, day("2026-04-10"))] == ["g"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"notice_id": ""}, "purpose.notice_id"),
        ({"display_name": " "}, "purpose.display_name"),
        ({"description": "x" * 2001}, "purpose.description"),
        ({"channels": ()}, "purpose.channels"),
        ({"channels": ("fax",)}, "purpose.channels"),
        ({"data_categories": ()}, "purpose.data_categories"),
        ({"retention_days": 0}, "purpose.retention_days"),
        ({"consent_valid_days": -1}, "purpose.consent_valid_days"),
    ],
)
def test_a_purpose_that_contradicts_itself_is_refused(changes, field):
    """Each fault names its field."""
    with pytest.raises(PurposeInvalid) as refused:
        checked_purpose(replace(OFFERS, **changes))

    assert [field] == [violation.field for violation in refused.value.violations]


def test_an_update_changes_only_the_fields_named():
    """The mask decides, not the values."""
    values = replace(OFFERS, display_name="新名", retention_days=9)

    assert replace(OFFERS, retention_days=9) == change_purpose(OFFERS, values, ("retention_days",))


def test_a_version_may_not_take_effect_before_its_predecessor():
    """Else which wording was shown on a day could not be told."""
    with pytest.raises(NoticeInvalid):
        publish(NOTICE, {"en": "text"}, day("2026-05-01"), False, NOW)


def test_a_version_needs_a_wording_and_a_notice_is_bounded():
    """Empty wordings and the hundred-and-first version are refused."""
    with pytest.raises(NoticeInvalid):
        publish(Notice("n", "n"), {"en": "  "}, NOW, False, NOW)
    full = replace(NOTICE, versions=tuple(itertools.islice(itertools.cycle(NOTICE.versions), 100)))
    with pytest.raises(NoticeInvalid):
        publish(full, {"en": "text"}, day("2026-07-01"), False, NOW)


def test_the_hash_of_a_wording_ignores_how_it_was_typed():
    """NFC, line ends and outer space do not matter; words do."""
    assert wording_hash("Caf\u00e9\r\nend \n") == wording_hash("Cafe\u0301\nend")
    assert wording_hash("a") != wording_hash("b")
